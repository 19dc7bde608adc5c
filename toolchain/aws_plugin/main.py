"""A stand-in for the `aws` resource plugin of Pulumi, pulumi-aws, which never talks to anything but loopback.

It is for AWS APIs that run on this computer, where the official plugin, which is in no package registry, cannot be
had. What it knows, which is what sftp_jail/hosts/aws.py uses, it does as the official one does: the same types,
properties, defaults, ids, replacements, waits and errors. What it does not know, it refuses, and says that it is a
stand-in.

It is started with the version that it stands in for, and with what the engine adds. The engine reads a port from the
first line of stdout, and ends it with a signal. Its stdin is a pipe that the engine holds open: when it ends, the
engine is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc  # type: ignore[import-untyped]
from pulumi.runtime.proto import provider_pb2_grpc

from .server import Provider

MESSAGE_BYTES = 400 * 1024 * 1024  # the engine's own limit
THREADS = 100
"""Calls at once; each waits in a thread of its own for AWS. More are put in a queue."""


def main() -> None:
    """Serve until a signal comes, or until the engine is gone."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())

    def wait_for_the_engine_to_end() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        ended.set()

    provider = Provider(version=sys.argv[1])
    sizes = [("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.max_send_message_length", MESSAGE_BYTES)]
    server = grpc.server(ThreadPoolExecutor(THREADS), options=sizes)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    threading.Thread(target=wait_for_the_engine_to_end, daemon=True).start()
    ended.wait()
    provider.cancel()
    server.stop(grace=None).wait()
    os._exit(0)  # A thread may be in a request to AWS, and nobody waits for its answer any more.
