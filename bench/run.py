#!/usr/bin/env python3
"""What the jail costs, side by side with others on the same computer: writes RESULTS.md, results.json and plot.svg.

Progress is told on stderr. All of it takes an hour or two; `--sizes 10 --rounds 1` a few minutes.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Optional

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import cost, idle, report, throughput, users, verbs
from bench.contenders import CONTENDERS, Bare, Ours
from bench.users import OPERATIONS, Run

PARTS = ("users", "split", "throughput", "idle", "verbs")
FOLDER = Path(__file__).parent


def say(text: str) -> None:
    """A line of progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def rounds_of(size: int, rounds: int, names: Sequence[str]) -> list[list[Run]]:
    """Round by round, all contenders in turns; who is as slow as Ansible is at 100 takes part in the first one."""
    done: list[list[Run]] = []
    slow: set[str] = set()
    for number in range(rounds):
        runs: list[Run] = []
        for contender in CONTENDERS:
            if contender.name not in names or contender.largest < size or contender.name in slow:
                continue
            say(f"{size} users, round {number + 1} of {rounds}: {contender.name}")
            found = users.one_round(contender, size)
            for run in found:
                say(f"    {run.operation}: {'-' if run.cost is None else f'{run.cost.seconds:.1f} s'}")
            if len(found) < len(OPERATIONS):
                slow.add(contender.name)
            runs += found
        done.append(runs)
    return done


def of_users(sizes: Iterable[int], rounds: int, names: Sequence[str]) -> dict[str, Any]:
    """`OPERATION_USERS` by contender: medians of seconds; and beside them CPU seconds, connections, and the medians of
    each round's ratios."""
    figures: dict[str, Any] = {}
    for size in sizes:
        done = rounds_of(size, rounds, names)
        for operation in OPERATIONS:
            seconds: dict[str, Optional[float]] = {}
            more: dict[str, dict[str, Any]] = {"cpu": {}, "machine_cpu": {}, "connections": {}, "rounds": {}}
            for contender in (contender.name for contender in CONTENDERS):
                runs = [
                    run for each in done for run in each if (run.operation, run.contender) == (operation, contender)
                ]
                costs = [run.cost for run in runs if run.cost is not None]
                seconds[contender] = _median([cost.seconds for cost in costs])
                if costs:
                    more["cpu"][contender] = _median([cost.cpu for cost in costs])
                    more["machine_cpu"][contender] = _median([cost.machine_cpu for cost in costs])
                    more["connections"][contender] = max(run.connections for run in runs)
                    more["rounds"][contender] = len(costs)
            figures[f"{operation}_{size}"] = seconds
            figures.setdefault("details", {})[f"{operation}_{size}"] = more
        ratios = figures.setdefault("ratios", {})
        for contender in (contender.name for contender in CONTENDERS if contender is not Ours):
            ratios[f"create_{size}: ours/{contender}"] = _ratio(done, ("create", "ours"), ("create", contender))
        ratios[f"add_one_{size}/noop_{size}: ours"] = _ratio(done, ("add_one", "ours"), ("noop", "ours"))
    return figures


def _ratio(done: list[list[Run]], over: tuple[str, str], under: tuple[str, str]) -> Optional[float]:
    """The median of what the rounds say, of those that have both."""
    found = []
    for runs in done:
        seconds = {(run.operation, run.contender): run.cost.seconds for run in runs if run.cost is not None}
        if over in seconds and under in seconds:
            found.append(seconds[over] / seconds[under])
    return _median(found)


def _median(values: list[float]) -> Optional[float]:
    return round(statistics.median(values), 3) if values else None


def of_throughput(rounds: int, gibibytes: float, small: int, clients: int) -> dict[str, Any]:
    """Medians of MB/s, and of each round's ratio."""
    say("throughput")
    found = throughput.measure(rounds, gibibytes, small, clients)
    figures: dict[str, Any] = {"ratios": {}}
    for kind, each in found.items():
        figures[kind] = {way: _median([rates[way] for rates in each]) for way in ("ours", "stock")}
        figures["ratios"][f"{kind}: ours/stock"] = _median([rates["ours"] / rates["stock"] for rates in each])
    return figures


def of_split(size: int) -> dict[str, Any]:
    """Of the largest `up`, ours and the bare program's."""
    figures = {}
    for contender in (Ours, Bare):
        say(f"where the time goes at {size} users: {contender.name}")
        figures[contender.name] = {key: round(value, 3) for key, value in cost.of_up(contender, size)._asdict().items()}
    return {f"split_{size}": figures}


def of_verbs(sizes: Iterable[int], rounds: int) -> dict[str, Any]:
    """By the number of users, by verb."""
    figures: dict[str, Any] = {}
    for size in sizes:
        say(f"jailctl's verbs at {size} users")
        taken = verbs.measure(size, rounds)
        figures[str(size)] = {
            verb: {key: round(value, 4) for key, value in figure._asdict().items()} for verb, figure in taken.items()
        }
    return {"verbs": figures}


def of_idle(size: int, seconds: float) -> dict[str, Any]:
    """By machine."""
    say(f"a server at rest with {size} users")
    found = idle.measure(size, seconds)
    return {
        f"idle_{size}": {name: {k: round(v, 3) for k, v in figure._asdict().items()} for name, figure in found.items()}
    }


def computer() -> dict[str, Any]:
    """What it was measured on, as far as it says something to others."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {"cores": os.cpu_count(), "cpu": model, "load": round(os.getloadavg()[2], 1)}


def plot(figures: Path) -> None:
    """Draw it, by the bench's own Python, which has matplotlib."""
    subprocess.run([os.environ["SFTP_JAIL_BENCH_PYTHON"], FOLDER / "plot.py", figures, FOLDER / "plot.svg"], check=True)


def main() -> int:
    """Measure the parts that are asked for; what another run has measured of the rest stays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--sizes", nargs="+", type=int, default=[10, 100, 500])
    parser.add_argument("--contenders", nargs="+", default=[contender.name for contender in CONTENDERS])
    parser.add_argument("--verb-sizes", nargs="+", type=int, default=[1, 500, 5000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gibibytes", type=float, default=1)
    parser.add_argument("--small-files", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--idle-seconds", type=float, default=300)
    parser.add_argument("--output", type=Path, default=FOLDER, help="the folder of results.json")
    args = parser.parse_args()
    place = args.output / "results.json"
    figures: dict[str, Any] = json.loads(place.read_text()) if place.exists() else {}
    largest = max(args.sizes)
    for part in args.parts:
        if part == "users":
            new = of_users(args.sizes, args.rounds, args.contenders)
        elif part == "split":
            new = of_split(largest)
        elif part == "throughput":
            new = of_throughput(4 * args.rounds, args.gibibytes, args.small_files, args.clients)
        elif part == "idle":
            new = of_idle(largest, args.idle_seconds)
        else:
            new = of_verbs(args.verb_sizes, 3 * args.rounds)
        for key, value in new.items():
            if key in ("ratios", "details"):
                value = {**figures.get(key, {}), **value}
            figures[key] = value
        figures["computer"] = {**figures.get("computer", {}), part: computer()}
        # At once: what follows may take an hour.
        place.write_text(json.dumps(figures, indent=1) + "\n")
    (args.output / "RESULTS.md").write_text(report.text(figures))
    if args.output == FOLDER:
        plot(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
