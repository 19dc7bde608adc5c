"""AWS as the stand-in sees it: the provider's configuration, clients that reach loopback and nothing else, waiting."""

from __future__ import annotations

import ipaddress
import json
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import boto3  # type: ignore[import-untyped]
import botocore.session  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

SERVICES = {"ec2": "EC2", "route53": "Route 53", "sts": "STS"}
"""What is called, and its name in AWS's messages."""

STATIC_CREDENTIALS = {"env", "shared-credentials-file", "config-file"}
"""Where botocore may find credentials without asking anybody over a network, by its own names."""

TEXTS = {"accessKey", "profile", "region", "secretKey", "token"}
VALUES = {"defaultTags", "endpoints", "maxRetries"}
SWITCHES = {
    "insecure",
    "skipCredentialsValidation",
    "skipMetadataApiCheck",
    "skipRegionValidation",
    "skipRequestingAccountId",
}
FROM_ENGINE = {"version", "pluginDownloadURL"}
CONFIGURATION = TEXTS | VALUES | SWITCHES | FROM_ENGINE

REQUEST_SECONDS = 600  # as good as for ever, like the real one: a request that is sent twice may do its work twice
SOONEST, LATEST = 0.1, 3.0  # seconds between two looks at something that takes its time


class Failure(Exception):
    """Something that cannot be done; the message is for the user."""


class NotThere(Exception):
    """What was asked for does not exist, or no longer."""


def decode_configuration(given: Mapping[str, Any]) -> dict[str, Any]:
    """The provider's configuration; the engine sends whatever is no text as JSON. Raises Failure."""
    unknown = sorted(given.keys() - CONFIGURATION)
    if unknown:
        raise Failure(f"the stand-in for pulumi-aws does not know the configuration {', '.join(unknown)}")
    decoded: dict[str, Any] = {}
    for name, value in given.items():
        try:
            decoded[name] = json.loads(value) if name not in TEXTS | FROM_ENGINE and isinstance(value, str) else value
        except ValueError as error:
            raise Failure(f"aws:{name} must be JSON, not {value!r}") from error
    return decoded


def region_of(configuration: Mapping[str, Any]) -> str | None:
    """The provider's region: its own, or else as the environment says."""
    return configuration.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


class Aws:
    """The account and the region that a provider is configured for. Every method may be called from any thread."""

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        """Raises Failure, before anything is sent, if a client would talk to anything but this computer."""
        region = region_of(configuration)
        if not region:
            raise Failure("Missing region information: set `aws:region`, or AWS_REGION in the environment")
        self.region = region
        self.ending = threading.Event()
        tags = (configuration.get("defaultTags") or {}).get("tags") or {}
        self.default_tags: dict[str, str] = dict(tags)
        self._options = configuration
        self._endpoints = _endpoints(configuration)
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str], Any] = {}
        self._session = _session(configuration)
        self.partition = self._session.get_partition_for_region(region)
        for service in SERVICES:
            self.client(service)
        self.account = "" if configuration.get("skipRequestingAccountId") else self._account()

    def client(self, service: str, region: str | None = None) -> Any:
        """The client of `service`, a key of SERVICES, in the provider's region or another. Failure: not loopback."""
        key = (service, region or self.region)
        with self._lock:  # making a client is not for two threads at once, using it is
            if key not in self._clients:
                self._clients[key] = self._make(*key)
            return self._clients[key]

    def arn(self, service: str, resource: str, region: str | None = None, account: str | None = None) -> str:
        """The Amazon resource name."""
        owner = self.account if account is None else account
        return f"arn:{self.partition}:{service}:{region or self.region}:{owner}:{resource}"

    def _make(self, service: str, region: str) -> Any:
        attempts = self._options.get("maxRetries")
        config = Config(
            proxies={},  # never for loopback, as Go has it
            read_timeout=REQUEST_SECONDS,
            max_pool_connections=100,
            retries=None if attempts is None else {"total_max_attempts": int(attempts) + 1},
        )
        verify = False if self._options.get("insecure") else None
        made = self._session.client(
            service, region_name=region, endpoint_url=self._endpoints.get(service), config=config, verify=verify
        )
        _refuse_unless_loopback(service, made.meta.endpoint_url)
        return made

    def _account(self) -> str:
        with doing("unable to validate AWS credentials.\nDetails", "sts"):
            return str(self.client("sts").get_caller_identity()["Account"])


class Call:
    """One thing that the engine asks for: the region it is about, and how long it may take."""

    def __init__(self, aws: Aws, region: str | None, seconds: float) -> None:
        self.aws = aws
        self.region = region or aws.region
        self.deadline = time.monotonic() + seconds
        self.seconds = seconds

    @property
    def ec2(self) -> Any:
        return self.aws.client("ec2", self.region)

    @property
    def route53(self) -> Any:
        return self.aws.client("route53", self.region)

    def arn(self, resource: str, account: str | None = None) -> str:
        """The name of a resource of EC2, e.g. of "instance/i-1"."""
        return self.aws.arn("ec2", resource, self.region, account)

    def pauses(self) -> Iterator[object]:
        """Wait a little longer before each step; ends when the time is up. Raises Failure if the engine cancels."""
        pause = SOONEST
        while time.monotonic() + pause < self.deadline:
            if self.aws.ending.wait(pause):
                raise Failure("cancelled")
            yield None
            pause = min(pause * 1.5, LATEST)

    def wait(self, look: Callable[[], Seen], target: Collection[str], pending: Collection[str]) -> None:
        """Look again and again until the state is in `target`; "" is the state of what is not there.

        Raises Failure, with the reason that AWS gives, for a state that is not in `pending` either, or if it takes
        too long.
        """
        seen = look()
        if seen.state in target:
            return
        for _ in self.pauses():
            if seen.state not in pending:
                break
            seen = look()
            if seen.state in target:
                return
        wanted = ", ".join(sorted(target))
        why = f". last error: {seen.reason}" if seen.reason else ""
        if seen.state not in pending:
            raise Failure(f"unexpected state '{seen.state}', wanted target '{wanted}'{why}")
        raise Failure(
            f"timeout while waiting for state to become '{wanted}' "
            f"(last state: '{seen.state}', timeout: {self.seconds:g}s){why}"
        )

    def persist(self, attempt: Callable[[], Any], while_code: Collection[str]) -> Any:
        """Try until AWS no longer answers with one of the error codes, or until the time is up; returns its answer."""
        pauses = self.pauses()
        while True:
            try:
                return attempt()
            except ClientError as error:
                if code(error) not in while_code or next(pauses, self) is self:
                    raise


class Seen(NamedTuple):
    """The state of something, as AWS has it, and AWS's reason for it if there is one."""

    state: str
    reason: str = ""


def code(error: ClientError) -> str:
    """AWS's error code, e.g. "InvalidVolume.NotFound"."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def doing(what: str, service: str = "ec2") -> Iterator[None]:
    """Say `what` was being done when AWS refuses, in the real plugin's words."""
    try:
        yield
    except ClientError as error:
        meta = error.response.get("ResponseMetadata", {})
        raise Failure(
            f"{what}: operation error {SERVICES[service]}: {error.operation_name}, https response error "
            f"StatusCode: {meta.get('HTTPStatusCode')}, RequestID: {meta.get('RequestId', '')}, "
            f"api error {code(error)}: {error.response.get('Error', {}).get('Message', '')}"
        ) from error
    except (BotoCoreError, Failure) as error:
        raise Failure(f"{what}: {error}") from error


@contextmanager
def absent(*codes: str) -> Iterator[None]:
    """Turn AWS's word for "there is no such thing" into NotThere."""
    try:
        yield
    except ClientError as error:
        if code(error) in codes:
            raise NotThere from error
        raise


def tags_of(answer: Mapping[str, Any]) -> dict[str, str]:
    """The tags of what AWS describes, without AWS's own."""
    return {tag["Key"]: tag["Value"] for tag in answer.get("Tags") or () if not tag["Key"].startswith("aws:")}


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as EC2 wants them."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def _session(configuration: Mapping[str, Any]) -> boto3.Session:
    """A session whose credentials are given, or lie in the environment or the user's files: no role, no metadata
    service, no process is asked for any, because those are not on loopback."""
    with doing("unable to validate AWS credentials.\nDetails"):
        base = botocore.session.Session(profile=configuration.get("profile"))
        chain = base.get_component("credential_provider")
        chain.providers = [one for one in chain.providers if one.METHOD in STATIC_CREDENTIALS]
        if configuration.get("accessKey"):
            base.set_credentials(configuration["accessKey"], configuration.get("secretKey"), configuration.get("token"))
        if base.get_credentials() is None:
            raise Failure("no credentials: set `aws:accessKey`, AWS_ACCESS_KEY_ID or `aws:profile`")
        return boto3.Session(botocore_session=base, region_name=region_of(configuration))


def _endpoints(configuration: Mapping[str, Any]) -> dict[str, str]:
    """What `aws:endpoints` says, by service. Failure if any of it, used or not, is not on this computer."""
    endpoints: dict[str, str] = {}
    for block in configuration.get("endpoints") or ():
        for service, url in block.items():
            if url:
                _refuse_unless_loopback(service, url)
                endpoints[service] = url
    return endpoints


def _refuse_unless_loopback(service: str, url: str) -> None:
    host = urlsplit(url).hostname or ""
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    if not here:
        raise Failure(
            f"the aws plugin here is a stand-in, which never talks to a real AWS: the endpoint of {service} must be on "
            f"loopback, and is {url}; set AWS_ENDPOINT_URL to a local one, or install the official plugin"
        )
