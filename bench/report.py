"""RESULTS.md, out of results.json."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from bench.users import OPERATIONS, SLOW

WAYS = ("floor", "ours", "bare", "ansible", "pyinfra")

METHOD = f"""\
# What the jail costs

Written by `make bench`. Seconds are this computer's, and other work on it makes them longer; what counts is how the
columns of one row compare, for the contenders take turns on the same computer. Every figure is a median of the rounds,
each ratio a median of what each round says (`details` in results.json has how many there were). A dash is what was not
measured.

- **floor**: one SSH connection that runs one hand-written script (`scripts/floor.sh`).
- **ours**: `pulumi up --skip-preview` of this project, with a stack file.
- **bare**: a Pulumi program with one Command a user, each of which runs the floor's script for that user.
- **ansible**: ansible-core, `user`, `file` and `copy` in loops, pipelining on, no facts (`scripts/ansible.yml`).
- **pyinfra**: its own operations (`scripts/pyinfra_deploy.py`).

Each run has a machine of its own, booted for it from the same root file system: Debian 13, reached over a veth pair as
an administrator with sudo. The jail is there before (`jailctl apply-jail`, the same for all, not counted), and each
makes the same users: account, chroot chain, upload directory, key, name in the log and link to the log. Afterwards a
user logs in, uploads, and must be in the log under his name; who was removed must be gone.

What differs: ours also asks sshd what it would do for each user, waits until a line of his bears his name in the log,
logs what he was granted, keeps a record that survives the machine, and has all of it on the disk (fsync) before it says
so; the others do none of that. On removal all of them end the processes and archive the uploads, ours with a manifest.
`preview` is Ansible's `--check` and pyinfra's `--dry`; the floor has none. Whoever takes more than {SLOW} s for the
first operation and is no Pulumi program is asked for the first two, and in the first round alone. Ansible is not tried
at 500: its time grows with the users. pyinfra is not tried above 10.
"""


def text(figures: Mapping[str, Any]) -> str:
    """The whole file."""
    parts = [METHOD, *_users(figures), *_throughput(figures), *_split(figures), *_idle(figures), *_verbs(figures)]
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def _number(value: Optional[float]) -> str:
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _users(figures: Mapping[str, Any]) -> Iterable[str]:
    keys = [key for key in figures.get("details", {}) if key in figures]
    if not keys:
        return
    yield "## Users: seconds\n"
    rows = []
    for key in sorted(
        keys, key=lambda key: (int(key.rpartition("_")[2]), list(OPERATIONS).index(key.rpartition("_")[0]))
    ):
        operation, _, size = key.rpartition("_")
        rows.append([OPERATIONS[operation].format(size), *(_number(figures[key].get(way)) for way in WAYS)])
    yield _table(["", *WAYS], rows)
    yield "How they compare, each round by itself:\n"
    ratios = {key: value for key, value in figures["ratios"].items() if "throughput" not in key and value is not None}
    yield _table(["", "times"], [[key.replace("_", " "), _number(value)] for key, value in ratios.items()])
    yield "CPU seconds, of the deploying computer + of the machine, and SSH connections:\n"
    rows = []
    for key in keys:
        details = figures["details"][key]
        rows.append(
            [
                OPERATIONS[key.rpartition("_")[0]].format(key.rpartition("_")[2]),
                *(_cpu(details, way) if way in details["cpu"] else "-" for way in WAYS),
            ]
        )
    yield _table(["", *WAYS], rows)


def _cpu(details: Mapping[str, Any], way: str) -> str:
    here, there = _number(details["cpu"][way]), _number(details["machine_cpu"][way])
    return f"{here} + {there}, {details['connections'][way]}"


def _throughput(figures: Mapping[str, Any]) -> Iterable[str]:
    kinds = {
        "throughput_1GiB": "one file of 1 GiB",
        "throughput_small": "10 000 files of 4 KiB",
        "throughput_clients": "as many by 20 clients at once",
    }
    if not all(kind in figures for kind in kinds):
        return
    yield "## Uploads by SFTP: MB/s\n"
    yield (
        "Into the jail with the full log (VERBOSE), beside an sshd as Debian ships it on the same machine, with no "
        "jail and no logging. OpenSSH's client; the two take turns, and who begins does, too.\n"
    )
    rows = [
        [
            words,
            *(_number(figures[kind][way]) for way in ("ours", "stock")),
            _number(figures["ratios"][f"{kind}: ours/stock"]),
        ]
        for kind, words in kinds.items()
    ]
    yield _table(["", "ours", "stock", "ours/stock"], rows)


def _split(figures: Mapping[str, Any]) -> Iterable[str]:
    for key in (key for key in figures if key.startswith("split_")):
        size = int(key.rpartition("_")[2])
        verb = figures.get("verbs", {}).get(str(size), {}).get("new user")
        yield f"## Where the time goes: CPU seconds of an `up` that makes {size} users\n"
        rows = []
        for way, split in figures[key].items():
            jailctl = size * verb["cpu"] if verb and way == "ours" else None
            rest = split["machine"] - (jailctl or 0)
            rows.append(
                [
                    way,
                    *(_number(split[part]) for part in ("engine", "program", "plugin")),
                    *map(_number, (rest, jailctl, split["seconds"], split["peak"])),
                ]
            )
        yield _table(
            [
                "",
                "engine",
                "program",
                "plugin",
                "rest of the machine",
                "jailctl and its tools",
                "by the clock",
                "peak MB",
            ],
            rows,
        )
        yield (
            "Of ours, jailctl's part is what one `apply-user` takes (below), times the users; the rest of the machine "
            "is sshd, sudo, logind, systemd and rsyslog. The bare program's script is in the rest. The memory is that "
            "of the engine, the program and the plugin together.\n"
        )


def _idle(figures: Mapping[str, Any]) -> Iterable[str]:
    for key in (key for key in figures if key.startswith("idle_")):
        yield f"## A server at rest, with {key.rpartition('_')[2]} users\n"
        rows = [[way, _number(figure["memory"]), _number(figure["cpu"])] for way, figure in figures[key].items()]
        yield _table(["", "memory of all processes, MB", "% of one CPU"], rows)


def _verbs(figures: Mapping[str, Any]) -> Iterable[str]:
    sizes = figures.get("verbs", {})
    if not sizes:
        return
    yield "## jailctl by itself\n"
    yield (
        "CPU seconds of one run, the tools that it calls included (useradd, sshd -T, ...), by the users that the "
        "server has; and the most memory that one of the processes had. `expire` looks at every user's record, "
        "`apply-jail` and `check` ask sshd about each of them.\n"
    )
    names = list(next(iter(sizes.values())))
    rows = [
        [
            verb,
            *(_number(sizes[size][verb]["cpu"]) for size in sizes),
            _number(max(sizes[size][verb]["peak"] for size in sizes)),
        ]
        for verb in names
    ]
    yield _table(["", *(f"{size} users" for size in sizes), "peak MB"], rows)
