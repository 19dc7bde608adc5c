"""The stack's configuration: what is accepted, and what each fault is called."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from sftp_jail import ConfigError, SftpJail, SftpJailArgs, config
from sftp_jail.faults import below

from . import keys
from .conftest import is_secret, revealed

ROOT = Path(__file__).parents[2]
JACK = {"keys": {"laptop": keys.ed25519()}}
PASSWORD = {"passwordHash": keys.YESCRYPT}


@pytest.fixture
def faults(stack_config, project_root):
    """The faults of a configuration by place, in one error, with no file made meanwhile."""

    def read(values, secret=False):
        stack_config(values, secret)
        with pytest.raises(ConfigError) as raised:
            config.load()
        assert list(project_root.iterdir()) == []
        found = raised.value.faults
        assert all(str(fault) in str(raised.value) for fault in found)
        assert all(fault.message and fault.remedy for fault in found)
        return [fault.path.removeprefix("sftp-jail:") for fault in found], str(raised.value)

    return read


# What is accepted


def test_an_empty_configuration_means_a_local_host_without_users(stack_config):
    stack_config({})
    settings = config.load()
    assert settings.users == {}
    assert settings.log_level is None
    assert settings.umask is None


def test_users_and_options_are_read(stack_config):
    stack_config({"users": {"jack": JACK}, "logLevel": "INFO", "umask": "027", "host": {"kind": "local"}})
    settings = config.load()
    assert settings.users["jack"].keys == JACK["keys"]
    assert settings.log_level == "INFO"
    assert settings.umask == "027"


@pytest.mark.parametrize(
    ("arrives", "expires"),
    [
        ("2026-12-07", "2026-12-07"),
        ("2026-12-07 00:00:00 +0000 UTC", "2026-12-07"),
        ("2026-12-07 18:00:00 +0000 UTC", "2026-12-07T18:00:00+00:00"),
        ("2026-12-07 18:00:00 +0530 +0530", "2026-12-07T18:00:00+05:30"),
        ("2026-12-07T18:00:00+05:30", "2026-12-07T18:00:00+05:30"),
    ],
)
def test_the_end_of_access_is_read_with_and_without_quotes(stack_config, arrives, expires):
    """Without, Pulumi hands on what Go says of a point in time."""
    stack_config({"users": {"jack": {**JACK, "expires": arrives}}})
    assert config.load().users["jack"].expires == expires


def test_a_receiver_of_the_log_is_read_with_its_defaults(stack_config):
    stack_config({"siem": {"host": "siem.example.org", "ca": keys.CERTIFICATE}})
    siem = config.load().siem
    assert siem is not None
    assert siem.spec() == {
        "ca": keys.CERTIFICATE,
        "format": "rfc5424",
        "host": "siem.example.org",
        "port": 6514,
        "protocol": "tls",
    }


def test_a_vm_on_aws_may_reach_the_receiver_of_the_log(stack_config):
    stack_config({"host": AWS, "siem": {"host": "siem.example.org", "port": 601}})
    assert config.load().host.keywords["args"].siem_port == 601  # type: ignore[attr-defined]
    stack_config({"host": AWS})
    assert config.load().host.keywords["args"].siem_port is None  # type: ignore[attr-defined]


def test_a_server_that_exists_is_read_with_its_jump_host(stack_config, engine):
    proxy = {"address": "198.51.100.7", "hostKey": keys.ed25519(2), "port": 2222, "user": "jump"}
    stack_config({"host": {**SERVER, "user": "ops", "privateKey": PRIVATE_KEY, "proxy": proxy}}, secret=True)
    settings = config.load()
    engine.run(lambda: SftpJail("jail", SftpJailArgs(host=settings.host("host"))).address)
    connection = revealed(engine.command("jail-policy").inputs["connection"])
    assert is_secret(engine.command("jail-policy").inputs["connection"])
    assert connection["privateKey"] == PRIVATE_KEY
    assert (connection["host"], connection["port"], connection["user"]) == ("staging.example.org", 22, "ops")
    assert connection["hostKey"] == " ".join(keys.ed25519().split()[:2])
    assert {name: connection["proxy"][name] for name in ("host", "port", "user", "hostKey")} == {
        "host": "198.51.100.7",
        "port": 2222,
        "user": "jump",
        "hostKey": " ".join(keys.ed25519(2).split()[:2]),
    }
    assert engine.command("jail-policy").deleted_with == ""


def test_a_server_without_address_and_host_key_is_told_how_to_get_them(faults):
    paths, message = faults({"host": {"kind": "existing", "proxy": {}}})
    assert paths == ["host.address", "host.hostKey", "host.proxy.address", "host.proxy.hostKey"]
    assert "ssh-keyscan -t ecdsa" in message
    assert "ssh-keygen -lf /etc/ssh/ssh_host_ecdsa_key.pub" in message


def test_a_secret_that_is_no_private_key_is_not_shown(stack_config):
    stack_config({"host": {**SERVER, "privateKey": "hunter2!"}}, secret=True)
    with pytest.raises(ConfigError) as raised:
        config.load()
    assert "host.privateKey" in str(raised.value)
    assert "hunter2!" not in str(raised.value)


def test_a_secret_password_hash_needs_no_key(stack_config):
    stack_config({"users": {"jack": PASSWORD}}, secret=True)
    assert config.load().users["jack"].password_hash == keys.YESCRYPT


def test_other_projects_keys_are_none_of_our_business(stack_config):
    stack_config({"aws:region": "eu-central-1", "pulumi:tags": {"a": "b"}})
    assert config.load().users == {}


def test_demo_keys_are_for_users_who_have_no_key(stack_config):
    stack_config({"host": {"kind": "local", "demoKeys": True}, "users": {"jack": {}, "jill": JACK}})
    users = config.load().users
    assert list(users["jack"].keys or {}) == ["demo"]
    assert users["jack"].identity_file == ".local/local/keys/jack"
    assert users["jill"].keys == JACK["keys"]
    assert users["jill"].identity_file is None


@pytest.mark.parametrize("path", sorted(ROOT.glob("stacks/*.yaml")), ids=lambda path: path.name)
def test_the_stack_files_are_accepted(path, stack_config):
    stack_config(yaml.safe_load(path.read_text())["config"])
    assert config.load().users


def test_a_quota_is_accepted_where_something_enforces_it(stack_config):
    for kind, quotas in (({}, "loop"), ({"host": SERVER}, "btrfs"), ({"host": AWS}, "auto"), ({"host": STACK}, "auto")):
        stack_config({**kind, **limited(quota="5GiB"), "quotas": quotas})
        settings = config.load()
        assert settings.users["jack"].quota == "5GiB"
        assert settings.quotas == (None if quotas == "auto" else quotas)


def test_the_schema_in_the_project_file_has_the_keys_that_are_read(stack_config, faults):
    schema = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    stack_config({key: entry["default"] for key, entry in schema.items()})
    config.load()
    _, message = faults({"x": 1})
    # `hardening` has no default of its own, without which it cannot be in the schema.
    keys = sorted(["hardening", *(key.split(":")[1] for key in schema)])
    assert re.findall("known here: (.*)[.]", message) == [", ".join(keys)]


def test_without_pulumi_aws_an_aws_stack_is_told_how_to_get_it(faults, monkeypatch):
    monkeypatch.setitem(sys.modules, "sftp_jail.hosts.aws", None)
    monkeypatch.delattr("sftp_jail.hosts.aws", raising=False)
    paths, message = faults({"host": AWS})
    assert paths == ["host.kind"]
    assert "pip install 'pulumi-aws" in message


def test_nothing_but_an_aws_stack_loads_pulumi_aws():
    code = "import sftp_jail, sftp_jail.config, sys; sys.exit('pulumi_aws' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=pytest.mark.case(case))
        for case, paths in {
            "C 39": ["srv/sftp"],
            "C 40": ["/srv/%x"],
            "C 42": ["/", "/etc", "/home"],
            "C 43": ["dev", ".."],
            "C 44": ["/sftp/jail/jack/log"],
            "C 45": ["/srv/my jails"],
        }.items()
        for path in paths
    ],
)
def test_no_path_of_the_server_can_be_configured(faults, path):
    for key in ("root", "chrootDirectory", "uploads", "log"):
        paths, message = faults({key: path})
        assert paths == [key]
        assert "an unknown key" in message
    for key in ("chroot", "uploads", "directory"):
        paths, message = faults(limited(**{key: path}))
        assert paths == [f"users.jack.{key}"]
        assert "an unknown key" in message


# Each fault has its place, and a remedy


SERVER = {"kind": "existing", "address": "staging.example.org", "hostKey": keys.ed25519()}
AWS = {"kind": "aws", "administratorKey": keys.ed25519(), "allowedCidrs": ["203.0.113.0/24"]}
STACK = {"kind": "stack", "stack": "staging"}
PRIVATE_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n"


def limited(**limits):
    """A configuration with one user who has limits."""
    return {"users": {"jack": {**JACK, **limits}}}


def allowed(*cidrs):
    """A stack on AWS for users from these networks."""
    return {"host": {**AWS, "allowedCidrs": list(cidrs)}}


def named(name):
    """A user of a name that is none: the configuration, the place, a remedy."""
    return {"users": {name: JACK}}, below("users", name), "Use 1 to 32"


def keyed(key, remedy):
    """The same of a key that is none."""
    return {"users": {"jack": {"keys": {"a": key}}}}, "users.jack.keys.a", remedy


FAULTS = {
    "an unknown key at the top": ({"xyz": 1}, "xyz", "known here"),
    "a misspelt key at the top": ({"user": {}}, "user", "Did you mean 'users'?"),
    "a misspelt option": ({"loglevel": "INFO"}, "loglevel", "Did you mean 'logLevel'?"),
    "an unknown key of a host": ({"host": {"kind": "local", "relese": "trixie"}}, "host.relese", "'release'"),
    "an unknown key of a user": ({"users": {"jack": {**JACK, "key": {}}}}, "users.jack.key", "'keys'"),
    "a host that is no map": ({"host": "local"}, "host", "{kind: local}"),
    "an unknown kind of host": ({"host": {"kind": "lokal"}}, "host.kind", "Use aws, existing, local or stack"),
    "no stack to attach to": ({"host": {"kind": "stack"}}, "host.stack", "the stack whose host this is"),
    "a stack's name cut short": ({"host": {"kind": "stack", "stack": "a/b"}}, "host.stack", "ORGANIZATION/PROJECT"),
    "an option of the host's stack": ({"host": STACK, "umask": "027"}, "umask", "set it in that stack"),
    "a destroy of the host's stack": ({"host": STACK, "forceDestroy": True}, "forceDestroy", "set it in that stack"),
    "a hardening of the host's stack": ({"host": STACK, "hardening": True}, "hardening", "set it in that stack"),
    "a hardening that is no bool": ({"hardening": "yes"}, "hardening", "Write one of them"),
    "a destroy that is no bool": ({"forceDestroy": "yes"}, "forceDestroy", "Write one of them"),
    "a kind of host that is a list": ({"host": {"kind": ["local"]}}, "host.kind", "Use aws, existing, local or stack"),
    "a release that is none": ({"host": {"kind": "local", "release": "sid"}}, "host.release", "trixie"),
    "a release that is a number": ({"host": {"kind": "local", "release": 13}}, "host.release", "trixie"),
    "a release without a value": ({"host": {"kind": "local", "release": None}}, "host.release", "remove the line"),
    "demoKeys in quotes": ({"host": {"kind": "local", "demoKeys": "yes"}}, "host.demoKeys", "without quotes"),
    "no address of a server": ({"host": {**SERVER, "address": None}}, "host.address", "remove the line"),
    "an address with a user": ({"host": {**SERVER, "address": "root@x"}}, "host.address", "keys of their own"),
    "an address with a port": ({"host": {**SERVER, "address": "x:22"}}, "host.address", "keys of their own"),
    "an address like an option": ({"host": {**SERVER, "address": "-oProxyCommand"}}, "host.address", "host name"),
    "port 70000": ({"host": {**SERVER, "port": 70000}}, "host.port", "1 to 65535"),
    "a port in quotes": ({"host": {**SERVER, "port": "22"}}, "host.port", "without quotes"),
    "an administrator like an option": ({"host": {**SERVER, "user": "-x"}}, "host.user", "passwordless sudo"),
    "a cut host key": ({"host": {**SERVER, "hostKey": keys.ed25519()[:-4]}}, "host.hostKey", "whole line"),
    "a misspelt key of a server": ({"host": {**SERVER, "hostkey": "x"}}, "host.hostkey", "'hostKey'"),
    "a proxy that is a word": ({"host": {**SERVER, "proxy": "bastion"}}, "host.proxy", "{address:"),
    "a bad port of a proxy": (
        {"host": {**SERVER, "proxy": {"address": "b", "hostKey": keys.ed25519(), "port": 0}}},
        "host.proxy.port",
        "1 to 65535",
    ),
    "a plain private key": ({"host": {**SERVER, "privateKey": PRIVATE_KEY}}, "host.privateKey", "config set --secret"),
    "an AWS host without an administrator": (
        {"host": {key: value for key, value in AWS.items() if key != "administratorKey"}},
        "host.administratorKey",
        "Add it: the administrator's public key",
    ),
    "an AWS host that lets nobody in": (
        {"host": {key: value for key, value in AWS.items() if key != "allowedCidrs"}},
        "host.allowedCidrs",
        "Add it: the networks that the users come from",
    ),
    "host bits set": (allowed("203.0.113.7/24"), "host.allowedCidrs[0]", "Did you mean '203.0.113.0/24'?"),
    "/33": (allowed("203.0.113.0/33"), "host.allowedCidrs[0]", "'203.0.113.0/24'"),
    "a space in the list": (allowed("203.0.113.0/24", " 10.0.0.0/8"), "host.allowedCidrs[1]", "'203.0.113.0/24'"),
    "two ranges in one": (allowed("203.0.113.0/24 10.0.0.0/8"), "host.allowedCidrs[0]", "'203.0.113.0/24'"),
    "a host name as a range": (allowed("office.example.org"), "host.allowedCidrs[0]", "'203.0.113.0/24'"),
    "an address without its mask": (allowed("203.0.113.7"), "host.allowedCidrs[0]", "'203.0.113.7/32'"),
    "a range of IPv6": (allowed("2001:db8::/32"), "host.allowedCidrs[0]", "Name an IPv4 network"),
    "an empty range": (allowed(""), "host.allowedCidrs[0]", "'203.0.113.0/24'"),
    "no range": (allowed(), "host.allowedCidrs", "Name a network"),
    "ranges that are a word": (
        {"host": {**AWS, "allowedCidrs": "10.0.0.0/8"}},
        "host.allowedCidrs",
        "['203.0.113.0/24']",
    ),
    "everybody, without the word": (allowed("0.0.0.0/0"), "host.allowedCidrs[0]", "set allowAnyone: true"),
    "half of everybody": (allowed("128.0.0.0/1"), "host.allowedCidrs[0]", "set allowAnyone: true"),
    "everybody for the administrator": (
        {"host": {**AWS, "administratorCidrs": ["0.0.0.0/0"]}},
        "host.administratorCidrs[0]",
        "Name the network of the administrators",
    ),
    "everybody for the administrator, too": (
        {"host": {**AWS, "allowedCidrs": ["0.0.0.0/0"], "allowAnyone": True}},
        "host.allowedCidrs[0]",
        "in administratorCidrs",
    ),
    "a word for everybody in quotes": ({"host": {**AWS, "allowAnyone": "true"}}, "host.allowAnyone", "without quotes"),
    "another architecture": ({"host": {**AWS, "architecture": "x86_64"}}, "host.architecture", "arm64 or amd64"),
    "another release": ({"host": {**AWS, "release": "sid"}}, "host.release", "trixie"),
    "an image by its name": ({"host": {**AWS, "image": "debian-13"}}, "host.image", "newest, or ami-..."),
    "a size with its unit": ({"host": {**AWS, "dataVolumeSize": "20GiB"}}, "host.dataVolumeSize", "without a unit"),
    "a size of nothing": ({"host": {**AWS, "dataVolumeSize": 0}}, "host.dataVolumeSize", "1 to 65536 GiB"),
    "a volume that is none": ({"host": {**AWS, "dataVolumeId": "data"}}, "host.dataVolumeId", "vol-..."),
    "a subnet that is none": ({"host": {**AWS, "subnetId": "10.0.0.0/8"}}, "host.subnetId", "subnet-..."),
    "a zone by its name": ({"host": {**AWS, "dns": {"name": "x.org", "zoneId": "x.org"}}}, "host.dns.zoneId", "Z..."),
    "a misspelt key of an AWS host": ({"host": {**AWS, "allowedCidr": []}}, "host.allowedCidr", "'allowedCidrs'"),
    "a plain private key for AWS": ({"host": {**AWS, "privateKey": PRIVATE_KEY}}, "host.privateKey", "--secret"),
    "users that are a list": ({"users": ["jack"]}, "users", "{jack: {keys:"),
    "users that are a word": ({"users": "jack"}, "users", "{jack: {keys:"),
    "a user that is a list": ({"users": {"jack": [1]}}, "users.jack", "{keys:"),
    "a user that is a word": ({"users": {"jack": "x"}}, "users.jack", "{keys:"),
    "a user without a value": ({"users": {"jack": None}}, "users.jack", "{keys:"),
    "a user without a way in": ({"users": {"jack": {}}}, "users.jack", "public key"),
    "a user with no key among keys": ({"users": {"jack": {"keys": {}}}}, "users.jack", "public key"),
    "keys that are a list": ({"users": {"jack": {"keys": [keys.ed25519()]}}}, "users.jack.keys", "{laptop:"),
    "keys that are a word": ({"users": {"jack": {"keys": keys.ed25519()}}}, "users.jack.keys", "{laptop:"),
    "keys without a value": ({"users": {"jack": {"keys": None}}}, "users.jack.keys", "remove the line"),
    "a key that is a map": ({"users": {"jack": {"keys": {"a": {"b": "c"}}}}}, "users.jack.keys.a", "one string"),
    "a key without a value": ({"users": {"jack": {"keys": {"a": None}}}}, "users.jack.keys.a", "one string"),
    "a cut key": keyed(keys.ed25519()[:-4], "whole line"),
    "a private key among the public ones": keyed(PRIVATE_KEY, ".pub"),
    "a key in RFC 4716's form": keyed("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END", "ssh-keygen -i"),
    "an RSA key of 1024 bits": keyed(keys.rsa(1024), "ssh-keygen -t ed25519"),
    "a DSA key": keyed(keys.dsa(), "ssh-keygen -t ed25519"),
    "a key with options": keyed(f"no-pty {keys.ed25519()}", "options"),
    "a key of an authority": keyed(f"cert-authority {keys.ed25519()}", "own public key"),
    "an odd label": ({"users": {"jack": {"keys": {"<b>": keys.ed25519()}}}}, 'users.jack.keys["<b>"]', "e.g. 'laptop'"),
    "a plain password": ({"users": {"jack": {**JACK, "password": "x"}}}, "users.jack.password", "mkpasswd"),
    "a plain hash": ({"users": {"jack": PASSWORD}}, "users.jack.passwordHash", "config set --secret --path"),
    "two dots": named(".."),
    "a dot": named("."),
    "a slash": named("a/b"),
    "a star": named("*"),
    "a token of sshd": named("%u"),
    "quotes": named("'jack'"),
    "double quotes": named('"jack"'),
    "a semicolon": named("jack;id"),
    "a bracket": named("jack("),
    "a backslash": named("ja\\ck"),
    "digits alone": named("1234"),
    "a look-alike": named("j\u00fcck"),
    "33 characters": named("a" * 33),
    "a leading dash": named("-x"),
    "a newline": named("jack\nroot"),
    "no name": named(""),
    "a bad name of a demo user": (
        {"host": {"kind": "local", "demoKeys": True}, "users": {"a/b": {}}},
        'users["a/b"]',
        "Use 1 to 32",
    ),
    "a name in capitals": ({"users": {"Bob": JACK, "bob": {"keys": {"a": keys.ed25519(2)}}}}, "users.Bob", "a-z"),
    "a reserved name": ({"users": {"root": JACK}}, "users.root", "the user's own"),
    "an end that is no date": (limited(expires="soon"), "users.jack.expires", "Write '2026-12-07'"),
    "an end on 31 February": (limited(expires="2026-02-31"), "users.jack.expires", "Write '2026-12-07'"),
    "an end in another notation": (limited(expires="7.12.2026"), "users.jack.expires", "Write '2026-12-07'"),
    "an end in digits of another script": (
        limited(expires="\uff12\uff10\uff12\uff16-12-07"),
        "users.jack.expires",
        "Write",
    ),
    "an end without its zone": (limited(expires="2026-12-07T18:00"), "users.jack.expires", "End it with Z"),
    "an end that is a number": (limited(expires=20261207), "users.jack.expires", "in quotes"),
    "a source with host bits": (limited(allowFrom=["203.0.113.7/24"]), "users.jack.allowFrom[0]", "'203.0.113.0/24'"),
    "a source beyond 32 bits": (limited(allowFrom=["203.0.113.0/33"]), "users.jack.allowFrom[0]", "Write a network"),
    "a source with a space": (limited(allowFrom=["203.0.113.0/24 "]), "users.jack.allowFrom[0]", "Write a network"),
    "a source by name": (limited(allowFrom=["office.example.org"]), "users.jack.allowFrom[0]", "Write a network"),
    "an empty source": (limited(allowFrom=["10.0.0.0/8", ""]), "users.jack.allowFrom[1]", "Write a network"),
    "sources that are everything": (limited(allowFrom=["::/0"]), "users.jack.allowFrom[0]", "Leave allowFrom out"),
    "no source": (limited(allowFrom=[]), "users.jack.allowFrom", "leave it out"),
    "sources that are half of everything": (
        limited(allowFrom=["128.0.0.0/1"]),
        "users.jack.allowFrom[0]",
        "Leave allowFrom out",
    ),
    "sources that are a word": (limited(allowFrom="10.0.0.0/8"), "users.jack.allowFrom", "['203.0.113.0/24']"),
    "an unknown access": (limited(access="write-only"), "users.jack.access", "'upload-only'"),
    "an access that is a list": (limited(access=["read-only"]), "users.jack.access", "'upload-only'"),
    "a quota that is a number": ({"quotas": "loop", **limited(quota=5)}, "users.jack.quota", "'5GiB'"),
    "a quota of nothing": ({"quotas": "loop", **limited(quota="0GiB")}, "users.jack.quota", "Leave quota out"),
    "a quota of less than nothing": ({"quotas": "loop", **limited(quota="-5GiB")}, "users.jack.quota", "'5GiB'"),
    "a quota that is no number": ({"quotas": "loop", **limited(quota="NaN")}, "users.jack.quota", "e.g. '5GiB'"),
    "a quota in decimal units": (
        {"quotas": "loop", **limited(quota="5GB")},
        "users.jack.quota",
        "'5GiB' for 5368709120",
    ),
    "a quota that nothing enforces": (limited(quota="5GiB"), "users.jack.quota", "Set quotas: btrfs"),
    "a quota that a server may not enforce": (
        {"host": SERVER, **limited(quota="5GiB")},
        "users.jack.quota",
        "else quotas: loop",
    ),
    "nothing that enforces quotas": ({"quotas": "xfs"}, "quotas", "'btrfs' where"),
    "quotas of the host's stack": ({"host": STACK, "quotas": "loop"}, "quotas", "set it in that stack"),
    "an unknown end of uploads": (limited(onRemoval="burn"), "users.jack.onRemoval", "'archive'"),
    "a misspelt limit": (limited(expire="2026-12-07"), "users.jack.expire", "Did you mean 'expires'?"),
    "an unknown log level": ({"logLevel": "LOUD"}, "logLevel", "'VERBOSE'"),
    "a log level that is a map": ({"logLevel": {"a": "b"}}, "logLevel", "'VERBOSE'"),
    "a receiver without a host": ({"siem": {"port": 6514}}, "siem.host", "Add it"),
    "a receiver with its port in the host": ({"siem": {"host": "siem:514"}}, "siem.host", "keys of their own"),
    "a receiver's port 70000": ({"siem": {"host": "siem", "port": 70000}}, "siem.port", "1 to 65535"),
    "a receiver by UDP": ({"siem": {"host": "siem", "protocol": "udp"}}, "siem.protocol", "'tls'"),
    "a receiver's unknown format": ({"siem": {"host": "siem", "format": "cef"}}, "siem.format", "'json'"),
    "a receiver's misspelt key": ({"siem": {"host": "siem", "portt": 1}}, "siem.portt", "Did you mean 'port'?"),
    "an authority that is no certificate": ({"siem": {"host": "siem", "ca": "x"}}, "siem.ca", "BEGIN CERTIFICATE"),
    "an authority without TLS": (
        {"siem": {"host": "siem", "protocol": "tcp", "ca": keys.CERTIFICATE}},
        "siem.ca",
        "protocol: tls",
    ),
    "a receiver that is the other stack's": (
        {"host": {"kind": "stack", "stack": "staging"}, "siem": {"host": "siem"}},
        "siem",
        "set it in that stack",
    ),
    "umask 999": ({"umask": "999"}, "umask", "three octal digits"),
    "umask 022 without quotes": ({"umask": 0o22}, "umask", "quotes"),
}


CASES = {
    "two dots": ("C 1", "'..'"),
    "a dot": ("C 2", "'.'"),
    "a slash": ("C 3", "'a/b'"),
    "a star": ("C 4", "'*'"),
    "a token of sshd": ("C 5", "'%u'"),
    "quotes": ("C 6", "\"'jack'\""),
    "double quotes": ("C 6", "'\"jack\"'"),
    "a semicolon": ("C 7", "'jack;id'"),
    "a bracket": ("C 7", "'jack('"),
    "a backslash": ("C 8", r"'ja\\ck'"),
    "digits alone": ("C 9", "'1234'"),
    "a name in capitals": ("C 10", "'Bob'"),
    "a look-alike": ("C 11", r"'j\xfcck'"),
    "33 characters": ("C 12", f"'{'a' * 33}'"),
    "a leading dash": ("C 13", "'-x'"),
    "a newline": ("C 14", r"'jack\nroot'"),
    "a reserved name": ("C 15", "'root'"),
    "no name": ("C 16", "''"),
    "a private key among the public ones": ("C 18", "a private key"),
    "a key in RFC 4716's form": ("C 19", "RFC 4716"),
    "an RSA key of 1024 bits": ("C 20", "1024 bits"),
    "a DSA key": ("C 21", "ssh-dss"),
    "a cut key": ("C 22", "ssh-ed25519 AAAA"),
    "a key with options": ("C 23", "no-pty"),
    "a key of an authority": ("C 24", "cert-authority"),
    "a user without a way in": ("C 27", "neither a key nor a password"),
    "an end that is no date": ("C 28", "'soon'"),
    "an end on 31 February": ("C 29", "'2026-02-31'"),
    "an end without its zone": ("C 32", "'2026-12-07T18:00'"),
    "host bits set": ("C 33", "'203.0.113.7/24'"),
    "a source with host bits": ("C 33", "'203.0.113.7/24'"),
    "/33": ("C 34", "'203.0.113.0/33'"),
    "a source beyond 32 bits": ("C 34", "'203.0.113.0/33'"),
    "a space in the list": ("C 35", "' 10.0.0.0/8'"),
    "two ranges in one": ("C 35", "'203.0.113.0/24 10.0.0.0/8'"),
    "a source with a space": ("C 35", "'203.0.113.0/24 '"),
    "a host name as a range": ("C 36", "'office.example.org'"),
    "a source by name": ("C 36", "'office.example.org'"),
    "an empty range": ("C 37", "''"),
    "no range": ("C 37", "empty"),
    "an empty source": ("C 37", "''"),
    "no source": ("C 37", "empty"),
    "everybody for the administrator": ("C 38", "'0.0.0.0/0'"),
    "everybody for the administrator, too": ("C 38", "'0.0.0.0/0'"),
    "an unknown log level": ("C 46", "'LOUD'"),
    "umask 999": ("C 47", "'999'"),
    "a quota of nothing": ("C 48", "'0GiB'"),
    "a quota of less than nothing": ("C 48", "'-5GiB'"),
    "a quota that is no number": ("C 48", "'NaN'"),
    "a quota in decimal units": ("C 49", "'5GB'"),
    "port 70000": ("C 50", "70000"),
    "a receiver's port 70000": ("C 50", "70000"),
    "an unknown key at the top": ("C 51", "xyz"),
    "an unknown key of a host": ("C 51", "relese"),
    "an unknown key of a user": ("C 51", "users.jack.key:"),
}
"""Of faults in the list of cases, the line, and what is to be read of the value; of keys, what is wrong with it."""


@pytest.mark.parametrize(
    ("values", "path", "remedy", "shown"),
    [
        pytest.param(*fault, CASES[name][1], id=name, marks=pytest.mark.case(CASES[name][0]))
        if name in CASES
        else pytest.param(*fault, "", id=name)
        for name, fault in FAULTS.items()
    ],
)
def test_a_fault_is_reported_once_with_its_place_its_value_and_a_remedy(values, path, remedy, shown, faults):
    paths, message = faults(values)
    assert paths == [path]
    assert remedy in message
    assert shown in message


def test_the_list_of_cases_has_no_fault_that_is_not_tried():
    assert set(CASES) <= set(FAULTS)


def test_five_faults_of_different_kinds_are_one_error(faults):
    values = {
        "users": {
            "Bob": JACK,
            "jill": {"keys": {"laptop": keys.rsa(1024)}},
            "joan": {},
        },
        "logLevel": "DEBUG",
        "mask": "022",
    }
    paths, message = faults(values)
    assert sorted(paths) == ["logLevel", "mask", "users.Bob", "users.jill.keys.laptop", "users.joan"]
    assert "5 faults" in message
    for shown in ["'Bob'", "1024 bits", "'DEBUG'", "sftp-jail:users.joan", "sftp-jail:mask"]:
        assert shown in message


def test_all_faults_of_one_user_are_reported(faults):
    paths, _ = faults({"users": {"Jack": {"keys": {"-": "ssh-dss AAAA"}, "x": 1, "passwordHash": "x"}}})
    user = "users.Jack"
    hash_faults = [f"{user}.passwordHash"] * 2  # no secret, and no hash
    assert sorted(paths) == sorted([user, f'{user}.keys["-"]', f'{user}.keys["-"]', f"{user}.x", *hash_faults])


@pytest.mark.case("C 26")
def test_one_key_of_two_users_is_refused_naming_both(faults):
    values = {"jack": JACK, "jill": {"keys": {"desk": keys.ed25519() + " jill@desk\r\n"}}}
    paths, message = faults({"users": values})
    assert paths == ["users.jill.keys.desk"]
    assert "sftp-jail:users.jack.keys.laptop" in message


def test_one_key_under_two_labels_is_refused(faults):
    paths, _ = faults({"users": {"jack": {"keys": {"a": keys.ed25519(), "b": keys.ed25519()}}}})
    assert paths == ["users.jack.keys.b"]


def test_a_refused_stack_registers_nothing(engine, stack_config, faults):
    faults({"umask": "999"})
    with pytest.raises(ConfigError):
        engine.run(config.load)
    assert engine.registered == {}


# Nothing secret is repeated

SECRETS = {
    "a plain password": {"users": {"jack": {"password": "hunter2!"}}},
    "a misspelt password": {"users": {"jack": {**JACK, "passwrod": "hunter2!"}}},
    "a misspelt password hash": {"users": {"jack": {**JACK, "passwordhash": "hunter2!"}}},
    "a password at the top": {"password": "hunter2!"},
    "a password as the hash": {"users": {"jack": {"passwordHash": "hunter2!"}}},
    "a password in a map": {"users": {"jack": {"passwordHash": {"x": "hunter2!"}}}},
    "a password among the keys": {"users": {"jack": {"keys": {"password": "hunter2!"}}}},
    "a private key": {"users": {"jack": {"keys": {"a": "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2!"}}}},
    "a private key as a label": {"users": {"jack": {"keys": {"BEGIN PRIVATE KEY hunter2!": keys.ed25519()}}}},
    "a private key in a map": {"users": {"jack": {"keys": {"a": {"private": "hunter2!"}}}}},
}


@pytest.mark.parametrize("values", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("secret", [False, True], ids=["plain", "secret"])
def test_what_may_be_a_secret_is_not_repeated(values, secret, faults):
    assert "hunter2!" not in faults(values, secret)[1]


@pytest.mark.parametrize("values", [{"users": {"jack": {"keys": {"a": "hunter2!"}}}}, {"umask": "hunter2!"}])
def test_no_value_of_a_key_that_holds_a_secret_is_repeated(values, faults):
    assert "hunter2!" in faults(values)[1]
    assert "hunter2!" not in faults(values, secret=True)[1]


def test_a_look_alike_name_shows_its_code_point(faults):
    assert r"\u0430" in faults({"users": {"j\u0430ck": JACK}})[1]
