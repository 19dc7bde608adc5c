"""This is a stand-in for AWS EC2: it prints `{"endpoint": "http://127.0.0.1:PORT"}` when it is ready.

It runs until SIGTERM, SIGINT, or the end of the process $SFTP_JAIL_UNTIL_PID, and leaves nothing but files.
"""

import argparse
import fcntl
import json
import logging
import os
import select
import signal
import sys
import threading
from pathlib import Path

# Before moto reads it: what EC2 refuses is refused.
os.environ.update(MOTO_ENABLE_AMI_VALIDATION="1", MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION="1")

import moto.ec2.urls
from moto.ec2.models import elastic_ip_addresses, elastic_network_interfaces
from moto.ec2.models.amis import AmiBackend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from . import addresses, amis, api
from .computer import Computer
from .disposable import machine
from .image import image

OURS = {"lock", "instances", "volumes"}
"""All that the directory holds."""


def adapt_moto() -> None:
    """Have moto use our images, our addresses and our answers in place of its own."""
    AmiBackend._load_amis = amis.load  # type: ignore[method-assign,assignment]
    elastic_ip_addresses.random_ip = addresses.new_elastic
    elastic_network_interfaces.random_public_ip = lambda: addresses.UNKNOWN
    moto.ec2.urls.url_paths["{0}/"] = api.Api.dispatch


def serve(directory: Path) -> None:
    """Answer requests until it is time to end."""
    owner = machine.owner()
    ended, ending = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(ending, b"x"))
    # What we start ends with us.
    os.environ["SFTP_JAIL_UNTIL_PID"] = str(os.getpid())
    machine.ensure_tools()
    machine.ensure_rootfs(image("trixie"))
    adapt_moto()
    api.Api.computer = Computer(directory)
    server = make_server(
        "127.0.0.1",
        0,
        DomainDispatcherApplication(create_backend_app),
        threaded=True,
        request_handler=MotoRequestHandler,
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"endpoint": f"http://127.0.0.1:{server.server_port}"}), flush=True)
    select.select([ended, *([os.pidfd_open(owner)] if owner is not None else [])], [], [])
    server.shutdown()
    with api.LOCK:
        api.Api.computer.end()


def main() -> int:
    """Run the server."""
    parser = argparse.ArgumentParser(prog="local_ec2", description="A stand-in for AWS EC2 on this computer.")
    parser.add_argument("--directory", type=Path, required=True, help="where machines and volumes are kept")
    directory = parser.parse_args().directory.resolve()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    try:
        if sys.platform != "linux" or os.geteuid() != 0:
            raise machine.Problem("it boots machines, which needs root on Linux: run this as root there")
        directory.mkdir(parents=True, exist_ok=True)
        if foreign := sorted({path.name for path in directory.iterdir()} - OURS):
            raise machine.Problem(f"{directory} holds {foreign[0]!r}: name a directory of its own")
        with open(directory / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise machine.Problem(f"another local_ec2 has {directory}: name another directory") from None
            serve(directory)
    except (machine.Problem, OSError) as problem:
        print(f"local_ec2: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
