"""The disposable machine: it boots, lets in whom it should, and is gone without a trace however it ends."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MACHINE, Done, Machine, call, make_key, neighbour, processes_naming, until


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine of the test's own."""
    machine = Machine(tmp_path, "trixie")
    yield machine
    machine.stop()


def verb(name: str, given: object, **environment: str) -> Done:
    """Run a verb with JSON, or with text that is none."""
    text = given if isinstance(given, str) else json.dumps(given)
    env = {**os.environ, "SFTP_JAIL_UNTIL_PID": str(os.getpid()), **environment}
    return call(sys.executable, MACHINE, name, stdin=text, env=env)


def write_spec(folder: Path) -> Path:
    """Write what `start` reads to the file `spec`; the machine's directory."""
    spec = {
        "name": "alone",
        "release": "trixie",
        "directory": str(folder / "machine"),
        "adminKey": make_key(folder / "admin").public,
        "hostKeyFile": str(make_key(folder / "host").path),
    }
    (folder / "spec").write_text(json.dumps(spec))
    return folder / "machine"


def supervisor(machine: Machine) -> int:
    """The process that all of it hangs on."""
    return int(Path(machine.spec["directory"], "supervisor.pid").read_text())


def traces(folder: Path, address: str) -> list[str]:
    """What there is of a machine: processes that live, links, routes that lead to it, mounts, control groups."""
    found = [f"process {line}" for line in processes_naming(folder)]
    found += [line for line in call("ip", "-oneline", "address").out.splitlines() if f" {neighbour(address)}/" in line]
    route = call("ip", "route", "get", address).out
    found += [route] if " dev " in route and "10.213" in route.replace(address, "") else []
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
    # Others come and go meanwhile, which os.walk does not mind.
    groups = (f"{top}/{name}" for top, names, _ in os.walk("/sys/fs/cgroup") for name in names)
    return found + [group for group in groups if folder.name in group]


def until_gone(folder: Path, address: str) -> None:
    """Wait until there is nothing of a machine."""
    until(lambda: not traces(folder, address), f"left: {traces(folder, address)}", seconds=20)


def test_the_administrator_logs_in_with_his_key_and_may_do_anything(machine: Machine) -> None:
    assert machine.ssh("admin", machine.admin_key, "sudo", "-n", "id", "-u").out == "0\n"
    assert machine.root("systemctl", "is-system-running", "--wait") == "running\n"


def test_root_another_key_and_another_host_key_are_refused(machine: Machine, tmp_path: Path) -> None:
    assert machine.ssh("root", machine.admin_key, "true").code == 255
    assert machine.ssh("admin", make_key(tmp_path / "stranger"), "true").code == 255
    other = make_key(tmp_path / "other-host")
    machine.known_hosts.write_text(f"{machine.address} {other.public}\n")
    refused = machine.ssh("admin", machine.admin_key, "true")
    assert refused.code == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in refused.err


def test_its_one_host_key_is_the_one_that_was_given(machine: Machine) -> None:
    scanned = call("ssh-keyscan", machine.address).out.splitlines()
    assert {line.split(" ", 1)[1] for line in scanned if not line.startswith("#")} == {machine.host_key.public}


def test_it_reaches_neither_another_machine_nor_anything_else(machine: Machine, trixie: Machine) -> None:
    assert machine.address != trixie.address
    assert machine.run("ip", "route", "get", trixie.address).code != 0
    assert machine.run("ip", "route", "get", "192.0.2.1").code != 0
    assert call("ip", "route", "get", "10.213.255.254").err == "RTNETLINK answers: No route to host\n"


def test_starting_it_again_boots_nothing_and_gives_the_same_answer(machine: Machine) -> None:
    before = supervisor(machine)
    again = verb("start", machine.spec)
    assert json.loads(again.out)["address"] == machine.address
    assert supervisor(machine) == before


def test_run_hands_over_input_output_and_exit_status(machine: Machine) -> None:
    done = machine.run("sh", "-c", "cat; echo no >&2; exit 7", stdin="yes")
    assert done == Done(7, "yes", "no\n")


def test_run_goes_on_with_a_command_that_was_stopped_as_a_shutdown_stops_all(machine: Machine) -> None:
    assert machine.run("sh", "-c", "kill -STOP $$; exit 7").code == 7


def test_its_services_are_out_of_reach_of_another_machine_s_systemd(machine: Machine, trixie: Machine) -> None:
    """As control groups have it: these may be the same for both, while process ids never are."""
    machine.root("systemd-run", "--quiet", "--unit=alone", "sleep", "600")
    comm = "cat /proc/$(cat /sys/fs/cgroup/system.slice/alone.service/cgroup.procs)/comm"
    # Until exec, it is a process of systemd's.
    until(lambda: machine.root("sh", "-c", comm) == "sleep\n", "the service's program")
    assert trixie.run("ls", "/sys/fs/cgroup/system.slice/alone.service").code != 0
    assert trixie.run("ls", "/sys/fs/cgroup/system.slice/ssh.service").code == 0


def test_it_reboots_itself_and_is_up_again_at_its_address(machine: Machine, tmp_path: Path) -> None:
    def boot_id() -> str:
        return machine.run("cat", "/proc/sys/kernel/random/boot_id").out

    before = boot_id()
    machine.root("sh", "-c", "echo kept > /root/file; systemctl reboot")
    until(lambda: boot_id() not in ("", before), "the next boot", seconds=20)
    again = verb("start", machine.spec)
    assert json.loads(again.out)["address"] == machine.address
    assert machine.ssh("admin", machine.admin_key, "sudo", "cat", "/root/file").out == "kept\n"
    machine.stop()
    assert traces(tmp_path, machine.address) == []


def test_a_machine_that_is_switched_off_from_within_is_gone(machine: Machine, tmp_path: Path) -> None:
    machine.run("systemctl", "poweroff")
    until(lambda: machine.run("true").code == 1, "its end", seconds=20)
    machine.stop()
    assert traces(tmp_path, machine.address) == []


def test_stop_leaves_nothing_and_may_be_repeated(machine: Machine, tmp_path: Path) -> None:
    assert len(traces(tmp_path, machine.address)) > 3
    for _ in range(2):
        machine.stop()
        assert traces(tmp_path, machine.address) == []
    assert not Path(machine.spec["directory"]).exists()
    refused = machine.run("true")
    assert refused.code == 1
    assert "no machine runs in" in refused.err


def test_the_last_machine_takes_the_route_of_all_of_them_away(tmp_path: Path) -> None:
    """In a network of its own, because others may have machines here."""
    write_spec(tmp_path)
    script = f"""
        set -eu
        ip link set lo up
        {sys.executable} {MACHINE} start < {tmp_path}/spec > /dev/null
        ip route
        {sys.executable} {MACHINE} stop < {tmp_path}/spec
        echo after; ip route; ip -brief link
    """
    environment = {**os.environ, "SFTP_JAIL_UNTIL_PID": str(os.getpid())}
    done = call("unshare", "--net", "--mount", "sh", "-c", script, env=environment)
    assert done.code == 0, done
    running, after = done.out.split("after\n")
    assert "unreachable 10.213.0.0/16" in running
    assert [line.split()[0] for line in after.splitlines()] == ["lo"]


def test_it_holds_on_to_nothing_that_the_computer_unmounts(tmp_path: Path) -> None:
    """In a mount namespace of its own, where mounts are shared, as systemd has them."""
    machine = write_spec(tmp_path)
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"""
        set -eu
        mount -t tmpfs disk {disk}
        {sys.executable} {MACHINE} start < {tmp_path}/spec > /dev/null
        umount {disk}
        echo supervisor $(cat {machine}/supervisor.pid)
        grep -ls {disk} /proc/[0-9]*/mountinfo || true
        {sys.executable} {MACHINE} stop < {tmp_path}/spec
    """
    environment = {**os.environ, "SFTP_JAIL_UNTIL_PID": str(os.getpid())}
    done = call("unshare", "--mount", "--propagation=shared", "sh", "-c", script, env=environment)
    assert done.code == 0, done
    assert re.fullmatch(r"supervisor \d+\n", done.out)


@pytest.mark.parametrize("seconds", [0.05, 0.2])
def test_stop_takes_the_route_of_a_machine_killed_while_it_boots(tmp_path: Path, seconds: float) -> None:
    """In a network of its own, because others may have machines here."""
    machine = write_spec(tmp_path)
    # Killed with its supervisor, since a `start` that lives clears up by `stop` itself.
    script = f"""
        ip link set lo up
        {sys.executable} {MACHINE} start < {tmp_path}/spec > /dev/null & start=$!
        until ip route | grep -q unreachable; do sleep 0.01; done
        sleep {seconds}
        test -e {machine}/machine.json && echo too late
        kill -9 $start $(cat {machine}/supervisor.pid)
        {sys.executable} {MACHINE} stop < {tmp_path}/spec || echo stop failed
        ip route; ip -brief link
    """
    environment = {**os.environ, "SFTP_JAIL_UNTIL_PID": str(os.getpid())}
    done = call("unshare", "--net", "--mount", "sh", "-c", script, env=environment)
    assert [line.split()[0] for line in done.out.splitlines()] == ["lo"], done


def test_a_killed_supervisor_takes_all_of_it_along(machine: Machine, tmp_path: Path) -> None:
    os.kill(supervisor(machine), signal.SIGKILL)
    until_gone(tmp_path, machine.address)
    assert machine.run("true").code == 1
    again = verb("start", machine.spec)
    assert again.code == 0, again
    assert machine.root("hostname") == f"{machine.spec['name']}\n"


def test_it_ends_with_the_process_that_it_was_booted_for(machine: Machine, tmp_path: Path) -> None:
    machine.stop()
    with subprocess.Popen(["sleep", "600"]) as owner:
        started = verb("start", machine.spec, SFTP_JAIL_UNTIL_PID=str(owner.pid))
        assert started.code == 0, started
        owner.kill()
    until_gone(tmp_path, json.loads(started.out)["address"])


@pytest.mark.parametrize("seconds", [0.05, 0.15, 0.3, 0.5])
def test_a_start_that_is_killed_is_taken_up_by_the_next(machine: Machine, tmp_path: Path, seconds: float) -> None:
    machine.stop()
    environment = {**os.environ, "SFTP_JAIL_UNTIL_PID": str(os.getpid())}
    with subprocess.Popen(
        [sys.executable, MACHINE, "start"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, text=True
    ) as start:
        assert start.stdin is not None
        start.stdin.write(json.dumps(machine.spec))
        start.stdin.close()
        time.sleep(seconds)
        start.kill()
    answers = {verb("start", machine.spec).out for _ in range(2)}
    assert len(answers) == 1
    assert machine.root("hostname") == f"{machine.spec['name']}\n"
    machine.stop()
    # The supervisor that came second may just be about to see that.
    address = json.loads(answers.pop())["address"]
    until(lambda: traces(tmp_path, address) == [], "the end of all of it")


def test_a_half_made_root_file_system_is_not_taken_for_one(tmp_path: Path) -> None:
    """With an mmdebstrap that makes a directory, mounts there what the computer has elsewhere, and never ends."""
    tools, cache, elsewhere = tmp_path / "tools", tmp_path / "cache", tmp_path / "elsewhere"
    tools.mkdir()
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    fake = tools / "mmdebstrap"
    fake.write_text(
        f'#!/bin/sh\nmkdir -p "$4/dev"; mount --bind {elsewhere} "$4/dev"; echo $$ > {tools}/pid; exec sleep 600\n'
    )
    fake.chmod(0o755)
    environment = {**os.environ, "SFTP_JAIL_CACHE": str(cache), "PATH": f"{tools}:{os.environ['PATH']}"}
    command = [sys.executable, str(MACHINE), "rootfs"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, text=True) as making:
        assert making.stdin is not None
        making.stdin.write('{"release": "trixie"}')
        making.stdin.close()
        until(lambda: (tools / "pid").exists() and (tools / "pid").read_text(), "mmdebstrap", seconds=20)
        making.kill()
    os.kill(int((tools / "pid").read_text()), signal.SIGKILL)
    assert not list(cache.glob("rootfs-*[!k]"))

    fake.write_text("#!/bin/sh\necho no space >&2; exit 25\n")
    done = verb("rootfs", {"release": "trixie"}, SFTP_JAIL_CACHE=str(cache), PATH=environment["PATH"])
    assert done.code == 1
    assert "no space" in done.err
    assert [path.suffix for path in cache.iterdir()] == [".lock"], "the killed one's leavings are cleared away"
    assert (elsewhere / "file").exists()


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("start", "{", "stdin is not JSON"),
        ("start", [], "not a JSON object"),
        ("start", {}, "lacks the string 'name'"),
        ("stop", "", "stdin is not JSON"),
        ("stop", {"directory": 7}, "lacks the string 'directory'"),
        ("stop", {"directory": ""}, "lacks the string 'directory'"),
        ("stop", {"directory": "/x", "dir": "/y"}, "unknown field 'dir'"),
        ("rootfs", {"release": None}, "lacks the string 'release'"),
        ("rootfs", {"release": "../x"}, "is no Debian release"),
        ("stop", {"directory": "/x\0y"}, "has a control character"),
        ("stop", {"directory": "/dev/null/x"}, "Not a directory"),
    ],
)
def test_bad_input_is_one_line(name: str, given: object, words: str) -> None:
    done = verb(name, given)
    assert done.code == 1
    [line] = done.err.splitlines()
    assert words in line


def test_a_name_that_no_host_can_have_is_refused(tmp_path: Path) -> None:
    spec = {"release": "trixie", "directory": str(tmp_path / "no"), "adminKey": "x", "hostKeyFile": "y"}
    for name in ("a_b", "-a", "a" * 64, "a.b"):
        done = verb("start", {"name": name, **spec})
        assert done.code == 1
        assert f"{name!r} is no host name" in done.err
    assert not (tmp_path / "no").exists()


def test_a_directory_that_is_not_a_machine_s_is_left_alone(machine: Machine, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "precious").write_text("kept")
    for name in ("start", "stop"):
        done = verb(name, {**machine.spec, "directory": str(foreign)})
        assert done.code == 1
        assert "is no machine's directory" in done.err
    assert [path.name for path in foreign.iterdir()] == ["precious"]


@pytest.mark.parametrize(
    ("last", "words"), [("x" * 300, "File name too long"), ("a,b", "has a comma")], ids=["too long", "comma"]
)
def test_a_directory_that_cannot_be_used_is_one_line(machine: Machine, tmp_path: Path, last: str, words: str) -> None:
    before = set(tmp_path.iterdir())
    done = verb("start", {**machine.spec, "directory": str(tmp_path / last)})
    assert done.code == 1
    [line] = done.err.splitlines()
    assert words in line
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("owner", ["junk", "-1", "999999999"])
def test_an_owner_that_is_no_process_is_refused(machine: Machine, tmp_path: Path, owner: str) -> None:
    done = verb("start", {**machine.spec, "directory": str(tmp_path / "none")}, SFTP_JAIL_UNTIL_PID=owner)
    assert done.code == 1
    [line] = done.err.splitlines()
    assert "is no running process" in line
    assert not (tmp_path / "none").exists()


def test_a_missing_host_key_is_named(machine: Machine, tmp_path: Path) -> None:
    directory = tmp_path / "other"
    done = verb("start", {**machine.spec, "directory": str(directory), "hostKeyFile": str(tmp_path / "none")})
    assert done.code == 1
    assert f"there is no {tmp_path / 'none'}" in done.err
    assert not directory.exists()


def test_who_is_not_root_is_told_so() -> None:
    python = shutil.which("python3", path="/usr/bin") or sys.executable
    argv = ["setpriv", "--reuid=65534", "--clear-groups", python, "-", "stop"]
    done = call(*argv, stdin=MACHINE.read_text())
    assert done.code == 1
    assert "needs root on Linux" in done.err
