"""`provision smoke --drill`: injects each fault of the catalogue, and sees whether the test names it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rich.table import Table

from provision.commands.demo import machines_of
from provision.edges.terminal import Console
from provision.errors import BadInput, CommandFailed
from provision.inventory.trust import controller_key
from provision.lab import lab as labs
from provision.lab.fault import injection, record
from provision.lab.fault.catalogue import CATALOGUE, fault_called
from provision.lab.fault.drill import LEAST_NODES, Case, Outcome, cases, judge, several
from provision.lab.layout import Lab
from provision.smoke.remote import Ended, Signing, run_smoke
from provision.smoke.result import PASSED, SmokeResult

_LIMIT_SECONDS = 240.0
_progress = Console(stderr=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillRow:
    """One case of the drill: who had to be named, what the test said, and how the two agree."""

    fault: str
    expected: str
    verdict: str
    outcome: Outcome
    named: str
    seconds: float


def drill(lab: Lab, names: Sequence[str], options: Sequence[str], *, together: bool) -> list[DrillRow]:
    """Strikes with each fault (all without names) in turn, or with several at once.

    The lab is healthy before and after.

    Raises:
        BadInput: the lab has too few nodes, or a fault is active in it.
        CommandFailed: the healthy lab does not pass the test, before or after.
    """
    _refuse(lab)
    faults = [fault_called(name) for name in names] or list(CATALOGUE.values())
    chosen = several(lab.nodes) if together else cases(faults, lab.nodes)
    rows = []
    with labs.locked(lab.folder):
        _require_health(lab, options)
        for number, case in enumerate(chosen, start=1):
            what = "; ".join(f"{one.fault.name}: {one.fault.what}" for one in case)
            _progress.print(f"{number}/{len(chosen)} {what}", soft_wrap=True)
            rows.append(_drilled(lab, case, options))
            _progress.print(f"  {rows[-1].outcome}: {rows[-1].named}", markup=False, soft_wrap=True)
        # Nodes that a test names lose their certificates; this one gives them back.
        _require_health(lab, options)
    return rows


def _refuse(lab: Lab) -> None:
    if lab.count < LEAST_NODES:
        raise BadInput(
            f"drill lab {lab.name}",
            found=f"it has {lab.count} nodes",
            fix=f"A drill needs {LEAST_NODES} at least: provision lab up --nodes {LEAST_NODES}",
        )
    if broken := [node.name for node in lab.nodes if record.load(node)]:
        raise BadInput(
            f"drill lab {lab.name}",
            found=f"{', '.join(broken)} has faults",
            fix=f"provision lab fault clear --name {lab.name}",
        )


def _test(lab: Lab, options: Sequence[str]) -> Ended:
    with _progress.status("") as status:

        def on_line(line: str) -> None:
            status.update(line.strip().replace("[", r"\[")[:100])

        signing = Signing(
            key=controller_key(lab.folder / "secrets", "drill a lab"), nodes=[node.name for node in lab.nodes]
        )
        first = machines_of(lab)[0]
        return run_smoke(first, options, limit_seconds=_LIMIT_SECONDS, on_line=on_line, signing=signing)


def _require_health(lab: Lab, options: Sequence[str]) -> None:
    _progress.print("the healthy lab must pass", highlight=False)
    ended = _test(lab, options)
    if ended.exit_code != PASSED:
        raise CommandFailed(
            f"pass the smoke test on the healthy lab {lab.name}",
            found="\n".join(ended.printed.strip().splitlines()[-15:]),
            fix="Mend that first: a drill on a broken lab shows nothing.",
        )


def _drilled(lab: Lab, case: Case, options: Sequence[str]) -> DrillRow:
    """A fault that cannot be injected, or a test that cannot be run, is a row too: the others go on."""
    try:
        ended = _ended(lab, case, options)
    except CommandFailed as e:
        return _row(case, verdict="none", outcome=Outcome.not_injected, named=e.found, seconds=0)
    result = ended.result
    verdict = result.verdict if result else "none"
    return _row(
        case, verdict=verdict, outcome=judge(case, result), named=_named(result), seconds=ended.seconds
    )


def _ended(lab: Lab, case: Case, options: Sequence[str]) -> Ended:
    """The faults of a case, there while the test runs and taken back whatever happens."""
    try:
        for one in case:
            if not one.fault.needs_ranks:
                injection.inject(lab, one.node, one.fault, peer=one.peer, value=None)
        wanted = (*options, *(word for one in case for word in one.fault.smoke_options))
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(_test, lab, wanted)
            for one in case:
                if one.fault.needs_ranks:
                    injection.inject(lab, one.node, one.fault, peer=one.peer, value=None)
            return running.result()
    finally:
        for one in case:
            injection.clear(lab, one.node)


def _row(case: Case, *, verdict: str, outcome: Outcome, named: str, seconds: float) -> DrillRow:
    return DrillRow(
        fault=" + ".join(one.fault.name for one in case),
        expected="; ".join(one.expected for one in case),
        verdict=verdict,
        outcome=outcome,
        named=named,
        seconds=seconds,
    )


def _named(result: SmokeResult | None) -> str:
    return "; ".join(finding.words for finding in result.findings) if result else ""


def table_of(rows: Sequence[DrillRow]) -> Table:
    """The drill for people."""
    table = Table("fault", "expected", "verdict", "outcome", "seconds", "what the test said", title="drill")
    for row in rows:
        colour = "green" if row.outcome is Outcome.named else "red"
        said = row.named.replace("[", r"\[")
        seconds = f"{row.seconds:.1f}"
        table.add_row(row.fault, row.expected, row.verdict, f"[{colour}]{row.outcome}[/]", seconds, said)
    return table
