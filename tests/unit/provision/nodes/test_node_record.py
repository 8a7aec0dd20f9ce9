"""What is remembered of nodes: the last failure stands, and who missed a change is pending until told."""

from __future__ import annotations

from provision.nodes.node_record import Failure, Record, failed, parse, pending, ran, render, said

FAILURE = Failure(when="2026-01-02T03:04:05", playbook="site.yml", role="data_disk", task="Mount", said="no")


def test_records_survive_being_written_and_read() -> None:
    records = {"te1": Record(ok="2026-01-01", playbook="site.yml", failure=FAILURE, pending_since="x")}

    assert parse(render(records)) == records


def test_a_damaged_record_is_none() -> None:
    assert parse("") == parse("{") == parse('{"te1": {"unknown": 1}}') == parse("[1]") == {}


def test_a_failure_stands_when_a_later_run_is_good() -> None:
    records = ran(
        failed({}, "te1", FAILURE), playbook="site.yml", tells=True, good=["te1"], bad=[], now="later"
    )

    assert records["te1"].failure == FAILURE
    assert records["te1"].ok == "later"
    assert FAILURE.step == "data_disk: Mount"


def test_a_node_is_pending_from_the_first_change_that_it_missed_until_it_is_told() -> None:
    missed = ran({}, playbook="members.yml", tells=True, good=["te1"], bad=["te2"], now="1")
    again = ran(missed, playbook="members.yml", tells=True, good=["te1"], bad=["te2"], now="2")
    partly = ran(again, playbook="site.yml", tells=False, good=["te1", "te2"], bad=[], now="3")
    told = ran(partly, playbook="site.yml", tells=True, good=["te2"], bad=[], now="4")

    assert again["te2"].pending_since == "1"
    assert pending(partly, ["te1", "te2", "te3"]) == ["te2"]
    assert pending(told, ["te1", "te2"]) == []


def test_a_run_that_tells_nothing_makes_nobody_pending() -> None:
    assert ran({}, playbook="site.yml", tells=False, good=[], bad=["te1"], now="1") == {}


def test_what_a_task_said_is_its_standard_error_and_the_end_of_it() -> None:
    assert said({"stderr": "", "msg": "it failed"}) == "it failed"
    assert said({"stderr": "one\ntwo", "msg": "non-zero return code"}) == "one\ntwo"
    assert said({"stderr": "\n".join(map(str, range(99)))}).splitlines()[0] == "79"
    assert said({}) == "nothing"
