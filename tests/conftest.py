"""What is true of all tests: lanes side by side; an attack says how it was refused."""

from __future__ import annotations

import fcntl
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import BuiltinFunctionType

import pytest
from hypothesis import HealthCheck, settings

from provision.printable import printable

pytest_plugins = ["tests.budget"]
_HERE = Path(__file__).parent
# The unit tests get the least of a busy machine: none fails for its time.
settings.register_profile("beside others", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("beside others")

RecordRefusal = Callable[[object], None]
_TEST_FOLDER = re.compile(r"\S*/pytest-of-[^/\s]+/pytest-\d+/[^/\s]+")
_WIDTH_OF_A_FILE = 200


@pytest.fixture
def record_refusal(record_property: Callable[[str, object], None]) -> RecordRefusal:
    """Notes for the table what an attack was told or, where nothing is said, what the attacker saw."""

    def record(words: object) -> None:
        text = " ".join(printable(str(words)).split())
        assert text, "a refusal without words: record what the attacker saw"
        record_property("refusal", text)

    return record


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Notes with each attack from where it comes; the terminal gets reports alone."""
    for item in items:
        if (attack := item.get_closest_marker("attack")) is not None:
            item.user_properties.append(("attacker", attack.args[0]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """An attack that does not say how it was refused has not shown that it was.

    Ansible replaces `sys.intern` where it is imported, after which torch._dynamo cannot be: whether a later
    test fails would hang on the order.
    """
    yield
    if not isinstance(sys.intern, BuiltinFunctionType):
        pytest.fail("it has Ansible in this process: ask tests/unit/playbooks/role_runner.py", pytrace=False)
    properties = dict(item.user_properties)
    if "attacker" in properties and "refusal" not in properties:
        pytest.fail("it bears the mark `attack` and hands no words to record_refusal", pytrace=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Has a test that measures wait until no other lane runs a test; other unit tests go on.

    Those that measure and follow each other have the machine until the last of them has ended.
    """
    if not _measures(item) and {_HERE / "unit", _HERE / "architecture"} & set(item.path.parents):
        return (yield)
    machine = item.config.stash.setdefault(_MACHINE, _Machine())
    machine.take(alone=_measures(item))
    try:
        return (yield)
    finally:
        if not (_measures(item) and _measures(nextitem)):
            machine.let_go()


def _measures(item: pytest.Item | None) -> bool:
    return item is not None and item.get_closest_marker("measures") is not None


class _Machine:
    """The machine, held alone or with lanes of `make test`; who waits for it alone has the next turn."""

    def __init__(self) -> None:
        self._turn, self._machine = (os.open(path, os.O_RDONLY) for path in (_HERE, _HERE / "conftest.py"))
        self._alone = False

    def take(self, *, alone: bool) -> None:
        if self._alone:
            return  # the test before measured, too
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        fcntl.flock(self._machine, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(self._turn, fcntl.LOCK_UN)
        self._alone = alone

    def let_go(self) -> None:
        fcntl.flock(self._machine, fcntl.LOCK_UN)  # a child that was forked meanwhile holds it as well
        self._alone = False


_MACHINE = pytest.StashKey[_Machine]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("markexpr") == "attack":
        _write_attacks(terminalreporter, config)


def _write_attacks(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """An attack: from where, in how many forms, how many of them were refused, and with which words."""
    attacks: dict[tuple[str, str], list[pytest.TestReport]] = defaultdict(list)
    for category in ("passed", "failed"):
        for report in terminalreporter.stats.get(category, ()):
            properties = dict(report.user_properties)
            if report.when == "call" and "attacker" in properties:
                attacks[str(properties["attacker"]), _words(report)].append(report)
    terminal = config.get_terminal_writer()
    width = terminal.fullwidth if terminalreporter.isatty else _WIDTH_OF_A_FILE
    terminalreporter.section("attacks")
    for (attacker, words), reports in sorted(attacks.items()):
        refused = sum(report.passed for report in reports)
        terminalreporter.write_line(f"{attacker:<12}{refused:>4} of {len(reports):<4}{words}")
        for text, times in Counter(text for report in reports for text in _refusals(report)).items():
            again = f" ({times} times)" if times > 1 else ""
            terminalreporter.write_line(_cut(f"      {text}", width - len(again)) + again)
    through = sum(report.failed for reports in attacks.values() for report in reports)
    forms = sum(map(len, attacks.values()))
    terminalreporter.write_line(
        f"{len(attacks)} attacks in {forms} forms, {through} of which were not refused as they must be"
    )


def _words(report: pytest.TestReport) -> str:
    name = report.nodeid.rpartition("::")[2].partition("[")[0]
    return name.removeprefix("test_").replace("_s_", "'s ").replace("_", " ")


def _refusals(report: pytest.TestReport) -> list[str]:
    """The words of a report in which the folder of its test, which tells nobody anything, is left out."""
    said = [str(text) for name, text in report.user_properties if name == "refusal"]
    return [_TEST_FOLDER.sub("...", text) for text in said] or ["no refusal was recorded"]


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 3]}..."
