"""What is true of all tests: a run of the attacks ends with a table of them."""

from __future__ import annotations

from collections import defaultdict

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Notes with each attack from where it comes; the terminal gets reports alone."""
    for item in items:
        if (attack := item.get_closest_marker("attack")) is not None:
            item.user_properties.append(("attacker", attack.args[0]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """A line an attack: from where, in how many forms, how many of them were refused."""
    if config.getoption("markexpr") != "attack":
        return
    attacks: dict[tuple[str, str], list[pytest.TestReport]] = defaultdict(list)
    for category in ("passed", "failed"):
        for report in terminalreporter.stats.get(category, ()):
            properties = dict(report.user_properties)
            if report.when == "call" and "attacker" in properties:
                attacks[str(properties["attacker"]), _words(report)].append(report)
    terminalreporter.section("attacks")
    for (attacker, words), reports in sorted(attacks.items()):
        refused = sum(report.passed for report in reports)
        terminalreporter.write_line(f"{attacker:<12}{refused:>4} of {len(reports):<4}{words}")
    through = sum(report.failed for reports in attacks.values() for report in reports)
    terminalreporter.write_line(
        f"{len(attacks)} attacks, {through} of their forms not refused as they must be"
    )


def _words(report: pytest.TestReport) -> str:
    name = report.nodeid.rpartition("::")[2].partition("[")[0]
    return name.removeprefix("test_").replace("_s_", "'s ").replace("_", " ")
