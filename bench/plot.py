#!/usr/bin/env python3
"""plot.py RESULTS.JSON PLOT.SVG: draws the figures; run by the bench's own Python, which has matplotlib."""

import json
import sys
from pathlib import Path

from matplotlib import pyplot

NAMES = {
    "floor": "one script, one connection",
    "ours": "sftp_jail",
    "bare": "bare pulumi-command",
    "ansible": "Ansible",
    "pyinfra": "pyinfra",
}
COLOURS = {"floor": "#9aa0a6", "ours": "#1a73e8", "bare": "#a8c7fa", "ansible": "#e37400", "pyinfra": "#188038"}
PARTS = {
    "engine": "engine and state",
    "program": "Python program",
    "plugin": "plugin",
    "ssh": "sshd, sudo, login",
    "jailctl": "jailctl",
}


def main() -> None:
    """Two panels: the time to make users, and where ours goes."""
    # Words stay words: a small file, which the reader's own font shows. A salt: the same figures make the same file.
    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "sftp-jail", "font.size": 9})
    figures = json.loads(Path(sys.argv[1]).read_text())
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 2.9), width_ratios=[3, 2], layout="constrained")
    sizes = sorted(int(key.partition("_")[2]) for key in figures if key.startswith("create_"))
    for place, name in enumerate(NAMES):
        points = [(index, figures[f"create_{size}"].get(name)) for index, size in enumerate(sizes)]
        there = [(index + (place - 2) * 0.16, seconds) for index, seconds in points if seconds is not None]
        if there:
            bars = left.bar(*zip(*there), width=0.15, color=COLOURS[name], label=NAMES[name])
            left.bar_label(bars, fmt=lambda seconds: f"{seconds:.3g}", fontsize=7)
    left.set(yscale="log", ylabel="seconds", title="Making users")
    left.set_xticks(range(len(sizes)), [f"{size} users" for size in sizes])
    left.margins(y=0.15)
    left.legend(fontsize=7, frameon=False, loc="upper left")
    left.spines[["top", "right"]].set_visible(False)
    largest = max(sizes)
    split = figures.get(f"split_{largest}", {}).get("ours")
    verb = figures.get("verbs", {}).get(str(largest), {}).get("new user")
    if split and verb:
        jailctl = largest * verb["cpu"]
        parts = {**split, "jailctl": jailctl, "ssh": max(0.0, split["machine"] - jailctl)}
        bars = right.barh(list(PARTS.values())[::-1], [parts[part] for part in PARTS][::-1], color=COLOURS["ours"])
        right.bar_label(bars, fmt="%.0f", fontsize=7, padding=2)
        right.set(xlabel="CPU seconds", title=f"Where they go at {largest} users")
        right.margins(x=0.12)
        right.spines[["top", "right"]].set_visible(False)
    figure.savefig(sys.argv[2], metadata={"Date": None})


if __name__ == "__main__":
    main()
