"""What became of each check of the smoke test."""

from __future__ import annotations

import pytest

from runtime.probes.finding import Finding
from runtime.smoke.checks import CATALOGUE, checks


def finding(check: str, host: str = "te1", *, conclusive: bool = True, where: str = "") -> Finding:
    return Finding(
        check=check, hosts=(host,), ranks=(0,), found="f", fix="x", conclusive=conclusive, where=where
    )


def test_every_check_has_an_entry_and_one_that_was_not_reached_never_passes() -> None:
    made = checks((), done={"host.mtu": "1500 bytes"}, skipped={})

    assert [check.id for check in made] == list(CATALOGUE)
    verdicts = {check.id: check.verdict for check in made}
    assert verdicts.pop("host.mtu") == "pass"
    assert set(verdicts.values()) == {"skipped"}


def test_each_fault_is_an_entry_and_hides_the_pass() -> None:
    found = (
        finding("mtu"),
        finding("mtu", "te2"),
        finding("bandwidth", conclusive=False, where="te1 -> te2"),
    )

    made = checks(found, done=dict.fromkeys(CATALOGUE, "seen"), skipped={"host.clock": "not asked"})

    assert [(c.id, c.verdict, c.where) for c in made if c.verdict != "pass"] == [
        ("host.clock", "skipped", ""),
        ("host.mtu", "fail", "te1"),
        ("host.mtu", "fail", "te2"),
        ("sockets.bandwidth", "inconclusive", "te1 -> te2"),
    ]


def test_no_name_of_a_finding_belongs_to_two_checks() -> None:
    names = [name for names in CATALOGUE.values() for name in names]

    assert len(set(names)) == len(names)


def test_a_finding_of_no_check_is_a_mistake_in_the_program() -> None:
    with pytest.raises(KeyError):
        checks((finding("no such"),), done={}, skipped={})
