"""What is live is compared with what is wanted: clocks, files and the way to the next node."""

from __future__ import annotations

from provision.roles.observed import clock_problem, differing
from provision.roles.ssh_trust.next_node import next_node_problems

FILE = {"text": "a\n", "mode": "0644", "owner": "root", "group": "root"}
TRACKING = (
    "0A4D000B,10.77.0.11,11,1763715000.1,0.000001,0.000001,0.000002,1.5,0.0,0.1,0.0002,0.0001,16.0,Normal"
)


def said(stdout: str, *, rc: int = 0, stderr: str = "") -> dict[str, object]:
    return {"rc": rc, "stdout": stdout, "stderr": stderr}


def test_a_clock_with_a_source_is_kept() -> None:
    assert clock_problem(said(TRACKING), largest_offset_seconds=0.1) == ""


def test_a_clock_that_is_off_or_alone_or_unknown_is_a_problem() -> None:
    off = said(TRACKING.replace(",0.000001,", ",-0.25,", 1))
    alone = said(TRACKING.replace("Normal", "Not synchronised"))

    assert "-0.250 s off 10.77.0.11" in clock_problem(off, largest_offset_seconds=0.1)
    assert "no source yet" in clock_problem(alone, largest_offset_seconds=0.1)
    assert "ends with 127" in clock_problem(said("", rc=127), largest_offset_seconds=0.1)


def test_a_file_differs_by_content_mode_owner_or_absence() -> None:
    wanted = [{"path": "/a", "content": "a\n"}]

    assert differing(wanted, {"/a": FILE}) == []
    assert differing(wanted, {"/a": None}) == wanted
    assert differing(wanted, {"/a": FILE | {"text": "b\n"}}) == wanted
    assert differing(wanted, {"/a": FILE | {"mode": "0600"}}) == wanted
    assert differing(wanted, {"/a": FILE | {"owner": "daemon"}}) == wanted


def test_another_answer_than_the_next_node_s_name_is_a_problem() -> None:
    assert next_node_problems(said("te2"), "te2") == []
    assert next_node_problems(said("te3"), "te2") == ["ssh to te2 ends with 0: te3"]
    assert next_node_problems(said("", rc=255), "te2") == ["ssh to te2 ends with 255: nothing"]
