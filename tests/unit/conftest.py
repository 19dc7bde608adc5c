"""A Pulumi engine that does nothing but write down what a program asks of it."""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pulumi
import pytest
from pulumi.runtime import config, mocks, rpc, settings

# As Pulumi's own program runner does: a failed Output is told once, not by every Output made from it.
logging.getLogger("asyncio").setLevel(logging.CRITICAL)

SECRET = rpc._special_sig_key

MACHINE_STDOUT = json.dumps({"address": "10.213.0.2", "port": 22, "leader": 4711})


class Resource(NamedTuple):
    """One registered resource; other resources by their names."""

    type: str
    name: str
    inputs: dict[str, Any]
    parent: str
    depends_on: frozenset[str]
    deleted_with: str
    delete_before_replace: bool


class Engine(mocks.MockMonitor):
    """Registers everything at once and keeps what was registered, by type and name."""

    def __init__(self) -> None:
        super().__init__(Echo())
        self.registered: dict[tuple[str, str], Resource] = {}
        self.outputs: dict[str, dict[str, Any]] = {}

    def RegisterResource(self, request):
        if request.type != "pulumi:pulumi:Stack":
            key = (request.type.rsplit(":", 1)[1], request.name)
            assert key not in self.registered, f"registered twice: {key}"
            self.registered[key] = Resource(
                request.type,
                request.name,
                rpc.deserialize_properties(request.object),
                _name(request.parent),
                frozenset(_name(urn) for urn in request.dependencies),
                _name(request.deletedWith),
                request.deleteBeforeReplace,
            )
        return super().RegisterResource(request)

    def RegisterResourceOutputs(self, request):
        self.outputs[_name(request.urn)] = rpc.deserialize_properties(request.outputs)
        return super().RegisterResourceOutputs(request)

    def run(self, program: Callable[[], Any]) -> Any:
        """Run a program to its end; what its last Output resolves to."""
        results: list[Any] = []
        mocks.set_mocks(self.mocks, project="sftp-jail", stack="local", organization="organization", monitor=self)
        pulumi.runtime.test(lambda: pulumi.Output.from_input(program()).apply(results.append))()
        return results[0]

    def command(self, name: str) -> Resource:
        """The Command of that name."""
        return self.registered["Command", name]

    @property
    def commands(self) -> dict[str, Resource]:
        """Every Command by its name."""
        return {name: resource for (kind, name), resource in self.registered.items() if kind == "Command"}


class Echo(mocks.Mocks):
    """A provider whose resources have their inputs as outputs; a local Command says that a machine runs."""

    def new_resource(self, args):
        outputs = {"stdout": MACHINE_STDOUT} if args.typ == "command:local:Command" else {}
        return f"{args.name}-id", {**args.inputs, **outputs}

    def call(self, args):
        return {}


def _name(urn: str) -> str:
    return urn.rsplit("::", 1)[-1]


def is_secret(value: Any) -> bool:
    """Whether an input is one that the engine encrypts."""
    return isinstance(value, Mapping) and SECRET in value


def revealed(value: Any) -> Any:
    """An input, secret or not."""
    return value["value"] if is_secret(value) else value


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture(autouse=True)
def project_root(tmp_path, monkeypatch):
    """Programs run in the project's root, and may write there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def event_loop():
    """Pulumi's mocks take the thread's event loop, and another test may have closed it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    # The SDK would keep this loop's stack for the next program, which would wait for it for ever.
    loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop), return_exceptions=True))
    settings.set_root_resource(None)  # type: ignore[arg-type]
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def stack_config(event_loop):
    """Sets the stack's configuration as the CLI hands it to a program: a map or a bool as JSON, else as text."""

    mocks.set_mocks(Echo(), project="sftp-jail", stack="local")

    def configure(values: Mapping[str, Any], secret: bool = False) -> None:
        texts = {
            key if ":" in key else f"sftp-jail:{key}": json.dumps(value)
            if isinstance(value, (bool, dict, list))
            else str(value)
            for key, value in values.items()
        }
        config.set_all_config(texts, list(texts) if secret else [])

    yield configure
    config.set_all_config({}, [])
