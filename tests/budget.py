"""What a lane of `make test` took, by module, beside what it may take (tests/budget.yml).

A module is over its budget when it worked half as much again as is written there: in processor seconds and
in pieces of the fixed work of tests/yardstick.py, which ran beside it. So a slower machine fails no lane: the
fixed work takes longer there, too. How long it waited hangs on the other lanes as well: gates with equal code
differed by half in one module of twenty. So it is over only when it took three times as long, in seconds and
in pieces of the fixed work with what that waited.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import yaml

BUDGET = Path(os.environ.get("BUDGET_OF_TESTS", Path(__file__).with_name("budget.yml")))
LANES = Path(".pytest_cache/lanes")  # from the root of the tests: what the last run of each lane took
SHOWN_SECONDS = 5.0
TOO_MUCH_WORK, TOO_LONG = 1.5, 3.0
# A module of seconds is left alone: one slow start of a program would be half of it.
SPARED_WORK, SPARED_SECONDS = 5.0, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """A module: its seconds, its fixtures' among them, and the milliseconds of the fixed work meanwhile.

    Of both also those in which a processor worked, the nodes of labs left out (`cpu`, `yardstick_cpu`).
    """

    seconds: float
    yardstick: float
    cpu: float
    yardstick_cpu: float


def is_over(took: Took, budget: Took) -> bool:
    worked = _is_over(
        (took.cpu, took.yardstick_cpu), (budget.cpu, budget.yardstick_cpu), TOO_MUCH_WORK, SPARED_WORK
    )
    return worked or _is_over(
        (took.seconds, took.yardstick), (budget.seconds, budget.yardstick), TOO_LONG, SPARED_SECONDS
    )


def _is_over(took: tuple[float, float], budget: tuple[float, float], times: float, spared: float) -> bool:
    """Seconds and milliseconds of the fixed work: over in seconds and in pieces of the work."""
    allowed = max(times * budget[0], budget[0] + spared)
    return took[0] > allowed and took[0] / took[1] > times * budget[0] / budget[1]


def read_budget(path: Path = BUDGET) -> dict[str, Took]:
    return {module: Took(**line) for module, line in (yaml.safe_load(path.read_text()) or {}).items()}


def verdicts(took: Mapping[str, Took], budget: Mapping[str, Took]) -> tuple[list[str], list[str]]:
    """What is said of modules over their budget, and of those that have none."""
    over = [
        f"{module} is over its budget: {_said(took[module])}, for {_said(budget[module])}."
        " Make it cheaper, or say in the commit why it costs more: make budget"
        for module in sorted(took.keys() & budget.keys())
        if is_over(took[module], budget[module])
    ]
    new = [
        f"{module} has no budget: {took[module].seconds:.0f} s. Give it one: make budget"
        for module in sorted(took.keys() - budget.keys())
        if took[module].seconds >= SHOWN_SECONDS
    ]
    return over, new


def _said(took: Took) -> str:
    return (
        f"{took.seconds:.0f} s (processors {took.cpu:.0f}) where the fixed work took {took.yardstick:.0f} ms"
        f" ({took.yardstick_cpu:.0f})"
    )


def written(budget: Mapping[str, Took]) -> str:
    """The text of tests/budget.yml."""
    lines = [
        f"{module}: {{{', '.join(f'{name}: {value:.0f}' for name, value in asdict(took).items())}}}"
        for module, took in sorted(budget.items())
    ]
    return "\n".join(["---", "# Written by `make budget` from the last run of each lane.", *lines, ""])


def read_records(folder: Path) -> list[dict[str, Took]]:
    """What the last run of each lane took.

    Raises:
        ValueError: there is none, or those that are named are not as lanes write them now.
    """
    lanes, foreign = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            modules = json.loads(path.read_text())["modules"]
            lanes.append({module: Took(**one) for module, one in modules.items()})
        except (ValueError, KeyError, TypeError, AttributeError):
            foreign.append(str(path))
    if foreign:
        names = " ".join(foreign)
        raise ValueError(
            f"{names}: not what lanes write now, but of another version or cut off, so tests/budget.yml stays"
            f" as it is. Remove them, run the lanes again, take them over: rm {names}; make test; make budget"
        )
    if not lanes:
        raise ValueError("No lane has run here: make test, then make budget")
    return lanes


def taken_over(lanes: Iterable[Mapping[str, Took]], budget: Mapping[str, Took]) -> dict[str, Took]:
    """The budget with what the last runs took; modules that are there no longer have none."""
    new = {module: took for lane in lanes for module, took in lane.items() if took.seconds >= SHOWN_SECONDS}
    return {module: took for module, took in {**budget, **new}.items() if Path(module).exists()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A moment beside a lane: the fixed work, and how long processors and the nodes of labs have worked."""

    time: float
    milliseconds: float
    cpu_milliseconds: float
    busy: float
    nodes: Mapping[str, float]


def samples_in(text: str) -> list[Sample]:
    """What tests/yardstick.py wrote, a last line that it did not end left out."""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [
        Sample(time=at, milliseconds=ms, cpu_milliseconds=cpu, busy=busy, nodes=nodes)
        for at, ms, cpu, busy, nodes in lines
    ]


def yardstick_of(samples: Sequence[Sample], spans: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """The mean of the fixed work in these spans of time; of all of it where there were few samples."""
    within = [one for begin, end in spans for one in samples if begin <= one.time <= end]
    chosen = within if len(within) >= 3 else samples
    return mean(one.milliseconds for one in chosen), mean(one.cpu_milliseconds for one in chosen)


def node_seconds(samples: Sequence[Sample]) -> dict[str, float]:
    """What the nodes of each lab worked between first and last sample; one that restarts counts anew."""
    total: dict[str, float] = defaultdict(float)
    for before, after in pairwise(samples):
        for group, seconds in after.nodes.items():
            last = before.nodes.get(group, 0.0)
            name = group.removeprefix("machine.slice/clusterwright-").removeprefix("clusterwright/")
            total[name.replace("/", "-").rpartition("-")[0]] += seconds - last if seconds >= last else seconds
    return dict(total)


def tree_seconds(pid: int) -> float:
    """Processor seconds of a process, of its descendants, and of those of them that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:  # it has ended meanwhile
        return 0.0
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(map(tree_seconds, children))


class Lane:
    """A session of tests that is a lane, and the program that measures beside it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        folder.mkdir(parents=True, exist_ok=True)
        self.record = folder / f"{name}.json"
        self._samples = folder / f"{name}.samples"
        words = [sys.executable, "-I", "-S", Path(__file__).with_name("yardstick.py"), self._samples]
        self._program = subprocess.Popen(words, stdin=subprocess.PIPE)

    def end(self) -> list[Sample]:
        assert self._program.stdin is not None
        self._program.stdin.close()
        self._program.wait(60)
        samples = samples_in(self._samples.read_text())
        self._samples.unlink()
        return samples


_LANE, _CPU = pytest.StashKey[Lane](), pytest.StashKey[float]()
_SAID = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lane", metavar="NAME", help="hold each module against its budget (tests/budget.yml)")


def pytest_configure(config: pytest.Config) -> None:
    name = config.getoption("--lane")
    if name and not hasattr(config, "workerinput") and not config.option.collectonly:
        config.stash[_LANE] = Lane(name, config.rootpath / LANES)
    config.stash[_CPU] = tree_seconds(os.getpid())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Notes with each report what this process and those that it started worked since the last one."""
    report = yield
    before, now = item.config.stash[_CPU], tree_seconds(os.getpid())
    item.config.stash[_CPU] = now
    report.__dict__["cpu_seconds"] = max(0.0, now - before)  # what daemons worked goes with them
    return report


def reports_of(config: pytest.Config) -> list[pytest.TestReport]:
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    stats = reporter.stats.values() if reporter else ()
    return [one for reports in stats for one in reports if isinstance(one, pytest.TestReport)]


def seconds_of(reports: Iterable[pytest.TestReport]) -> dict[str, tuple[float, float]]:
    """Seconds and processor seconds of each module, the slowest first."""
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for report in reports:
        module = found[report.nodeid.partition("::")[0]]
        module[0] += report.duration
        module[1] += getattr(report, "cpu_seconds", 0.0)
    return {module: (both[0], both[1]) for module, both in sorted(found.items(), key=lambda it: -it[1][0])}


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Ends the lane, and fails it where a module is over its budget."""
    if _LANE not in session.config.stash:
        return
    lane = session.config.stash[_LANE]
    samples, reports = lane.end(), reports_of(session.config)
    if not samples:
        session.config.stash[_SAID] = ["no module was held against its budget: tests/yardstick.py was ended"]
        return
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for report in reports:
        spans[report.nodeid.partition("::")[0]].append((report.start, report.stop))
    took: dict[str, Took] = {}
    for module, (seconds, cpu) in seconds_of(reports).items():
        fixed, fixed_cpu = yardstick_of(samples, spans[module])
        took[module] = Took(seconds=seconds, yardstick=fixed, cpu=cpu, yardstick_cpu=fixed_cpu)
    modules = {module: asdict(one) for module, one in took.items()}
    lane.record.write_text(json.dumps({"modules": modules}, indent=1))
    over, new = verdicts(took, read_budget())
    session.config.stash[_SAID] = [*said_of_machine(samples), *new, *over]
    if over and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def said_of_machine(samples: Sequence[Sample]) -> list[str]:
    first, last, cores = samples[0], samples[-1], os.cpu_count() or 1
    wall = max(last.time - first.time, 0.01)
    used = (last.busy - first.busy) / wall
    nodes = ", ".join(f"{lab} {seconds:.0f}" for lab, seconds in sorted(node_seconds(samples).items()))
    fixed = mean(one.milliseconds for one in samples)
    return [
        f"{wall:.0f} s; meanwhile {used:.2f} of {cores} processors worked ({used / cores:.0%}),"
        f" and the fixed work took {fixed:.0f} ms",
        *([f"processor seconds of the nodes of labs meanwhile: {nodes}"] if nodes else []),
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The seconds of each module that took more than five, its fixtures among them, and what is over."""
    slow = {
        module: both for module, both in seconds_of(reports_of(config)).items() if both[0] >= SHOWN_SECONDS
    }
    if slow:
        terminalreporter.section("seconds of modules, and of processors without the nodes of labs")
        for module, (seconds, cpu) in slow.items():
            terminalreporter.write_line(f"{seconds:8.1f} {cpu:8.1f} {module}")
    for line in config.stash.get(_SAID, []):
        terminalreporter.write_line(line)


def main() -> None:
    """Rewrites tests/budget.yml from the last run of each lane."""
    try:
        lanes = read_records(LANES)
    except ValueError as e:
        sys.exit(str(e))
    BUDGET.write_text(written(taken_over(lanes, read_budget())))


if __name__ == "__main__":
    main()
