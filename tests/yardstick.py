"""A program beside a lane of tests: how long a fixed piece of work takes, and who uses the processors.

`python -I -S tests/yardstick.py FILE` writes a line of JSON every two seconds until its input ends.
"""

from __future__ import annotations

import glob
import json
import select
import sys
import time
from pathlib import Path

_PAUSE_SECONDS = 2.0
_WORK = 1_000_000  # empty turns of a loop, 10 to 20 ms of a processor: longer than it has one to itself
# Where nodes of labs have their groups: of their own, or as scopes of systemd.
_GROUPS = ("clusterwright/*/*", "machine.slice/clusterwright-*.scope")


def fixed_work() -> tuple[float, float]:
    """Milliseconds that the fixed work took, and those of them in which it had a processor."""
    started, begun = time.perf_counter(), time.process_time()
    for _ in range(_WORK):
        pass
    worked = time.process_time() - begun  # first, so that it is never more than what all of it took
    return 1000 * (time.perf_counter() - started), 1000 * worked


def busy_seconds() -> float:
    """Seconds that all processors of this machine have worked since it was started (proc(5), stat)."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq) / 100


def node_seconds() -> dict[str, float]:
    """Seconds that each node of a lab has worked, by its control group (cgroup v2, cpu.stat)."""
    found = {}
    for hierarchy in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")):
        for pattern in _GROUPS:
            # Unlike Path.glob, it goes past a group that goes away while it looks.
            for stat in map(Path, glob.iglob(f"{hierarchy}/{pattern}/cpu.stat")):
                try:
                    fields = dict(line.split() for line in stat.read_text().splitlines())
                except OSError:  # it has gone meanwhile
                    continue
                found[str(stat.parent.relative_to(hierarchy))] = int(fields["usage_usec"]) / 1e6
    return found


def main() -> None:
    with open(sys.argv[1], "w", buffering=1) as out:
        ended = False
        while not ended:
            sample = (time.time(), *fixed_work(), busy_seconds(), node_seconds())
            out.write(json.dumps(sample) + "\n")
            ended = bool(select.select([sys.stdin], [], [], _PAUSE_SECONDS)[0])


if __name__ == "__main__":
    main()
