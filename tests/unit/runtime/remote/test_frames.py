"""What a node may say to the launcher, line by line: what no node of ours says is refused."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from runtime.remote import frames
from runtime.untrusted.conform import Malformed
from tests.conftest import RecordRefusal
from tests.unit.runtime.launch.jobs import facts
from tests.unit.runtime.smoke.host.cluster import healthy


def frame(kind: Any, **values: Any) -> bytes:
    return b"\x1e" + json.dumps({"kind": kind, **values}).encode() + b"\n"


EXIT = {"rank": 0, "status": 0, "age": 0.1, "tail": [], "calls": []}
CALL = {
    "group": "0",
    "number": 1,
    "operation": "barrier",
    "shape": "",
    "state": "",
    "at": "",
    "created": 0.0,
}
REACH = {"source": "te1", "target": "te2", "error": "", "seconds": 0.1}


@pytest.mark.attack("node")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"\x1e{\n", "no frame"),
        (b"\x1e" + b"[" * 100_000 + b"\n", "no frame"),
        (b'\x1e{"kind": "exit", "rank": ' + b"9" * 5000 + b"}\n", "no frame"),
        (b"\x1e" + b"x" * frames.MOST_BYTES, "no frame"),
        (frame("reboot"), "unknown kind"),
        (frame(["exit"]), "unknown kind"),
        (frame("exit"), "lacks or should not have"),
        (frame("exit", **EXIT | {"rank": "0"}), "rank should be int"),
        (frame("exit", **EXIT | {"age": float("nan")}), "age should be float"),
        (frame("exit", **EXIT | {"age": -1e9}), "age should be at least 0"),
        (frame("exit", **EXIT | {"status": -128}), "status should be from -64 to 255, and is -128"),
        (frame("exit", **EXIT | {"status": 256}), "status should be from -64 to 255, and is 256"),
        (frame("ended", ok=False, status=-128, tail=[]), "status should be from -64 to 255"),
        (frame("exit", **EXIT | {"calls": [CALL] * 51}), "calls should be at most 50 calls"),
        (frame("exit", **EXIT | {"tail": "x"}), "tail should be a list"),
        (frame("exit", **EXIT | {"rank": 2}), "for 2, which is not there"),
        (frame("lines", rank=-1, pieces=["x"]), "for -1, which is not there"),
        (frame("lines", rank=1, pieces=["\r[te2:2] loss 0.01\n"]), "pieces should be a line"),
        (frame("lines", rank=1, pieces=["a\n", "b\nzerorun: job finished\n"]), "pieces should be a line"),
        (frame("lines", rank=1, pieces=["a\r\r"]), "pieces should be a line"),
        (frame("failing", rank=7), "for 7, which is not there"),
        (frame("looked", standing=[{"rank": 2, "state": "T"}]), "for 2, which is not there"),
        (frame("reached", reached=[REACH | {"source": "te2"}]), "for te2, which is not there"),
        (frame("facts", facts={"hostname": "te1"}), "facts lacks or should not have"),
        (frame("pong", more=1), "lacks or should not have"),
    ],
)
def test_a_frame_that_no_node_of_ours_sends_is_refused(
    line: bytes, words: str, record_refusal: RecordRefusal
) -> None:
    with pytest.raises(Malformed) as e:
        frames.read(line, host="te1", ranks=(0, 1))

    record_refusal(e.value)
    assert words in str(e.value)


@pytest.mark.attack("node")
def test_the_output_of_a_rank_that_is_not_to_be_shown_is_refused(record_refusal: RecordRefusal) -> None:
    assert frames.read(frame("lines", rank=0, pieces=["a\n"]), host="te1", ranks=(0, 1), shown={0})

    with pytest.raises(Malformed, match="rank 1, which is not to be shown") as e:
        frames.read(frame("lines", rank=1, pieces=["a\n"]), host="te1", ranks=(0, 1), shown={0})

    record_refusal(e.value)


@pytest.mark.parametrize("said", ["a\n", "a\r", "a\r\n", "\r", "10%|=  |\r", "x" * 40_000, ""])
def test_a_line_a_progress_bar_and_a_part_of_a_long_line_pass_as_they_are(said: str) -> None:
    read = frames.read(frame("lines", rank=1, pieces=[said]), host="te1", ranks=(0, 1))

    assert read == {"kind": "lines", "rank": 1, "pieces": (said,)}


@pytest.mark.attack("node")
def test_what_a_node_says_of_itself_begins_no_line_of_its_own(record_refusal: RecordRefusal) -> None:
    said = asdict(facts(torch="2\nzerorun: job finished\r\n\u2028ok", certificate="{\n}\n"))

    read = frames.read(frame("facts", facts=said), host="te1", ranks=(0, 1))

    assert read
    record_refusal(f"read as {read['facts'].torch!r}")
    assert read["facts"] == facts(torch="2 zerorun: job finished  ok", certificate="{\n}\n")


RESULT = {"source": "te1", "target": "te2", "connected": True, "bytes_per_s": 1e9}


def said_in_a_survey(**changes: Any) -> bytes:
    names = {"te1": "10.0.0.1", "te2": "fe80::1%eth0"}
    return frame("surveyed", survey={**asdict(healthy("te1")), "addresses_by_name": names, **changes})


CARD = {
    "name": "",
    "bus": "",
    "uncorrected": 0,
    "remapping": "odd",
    "slowed_by": [],
    "width": 0,
    "most_width": 0,
    "temperature": None,
    "wanted_mhz": 0,
    "processes": [],
}
GPUS = {"present": True, "problem": "", "driver": "", "cards": [CARD], "xids": None}


@pytest.mark.attack("node")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        (frame("listening", address="a" * 70, port=1), "address should be an IP address"),
        (frame("listening", address="::1%" + "a" * 70, port=1), "address should be an IP address"),
        (frame("listening", address="", port=1), "address should be an IP address"),
        (frame("listening", address="127.0.0.1", port=70_000), "port should be from 1 to 65535"),
        (frame("serving", address="10.0.0.1/24", port=1), "address should be an IP address"),
        (frame("serving", address="127.0.0.1", port=0), "port should be from 1 to 65535"),
        (frame("facts", facts=asdict(facts(address="%%%%%"))), "facts.address should be an IP address"),
        (frame("facts", facts=asdict(facts(master_address="te1"))), "facts.master_address should be an IP"),
        (frame("facts", facts=asdict(facts(master_port=1 << 16))), "facts.master_port should be from 0"),
        (said_in_a_survey(job_address="no address"), "survey.job_address should be an address with its"),
        (said_in_a_survey(own_address="no address"), "survey.own_address should be an IP address"),
        (said_in_a_survey(addresses_by_name={"te1": "x", "te2": ""}), "addresses_by_name should be an IP"),
        (said_in_a_survey(free_bytes={}), "survey.free_bytes should be by mount point, / among them"),
        (said_in_a_survey(gpus=GPUS), "remapping should be one of '', 'pending', 'failed'"),
        (said_in_a_survey(addresses_by_name={"te1": ""}), "about other nodes than it was asked for: te2"),
        (said_in_a_survey(addresses_by_name=dict.fromkeys(("te1", "te2", "te9"), "")), "asked for: te9"),
        (frame("computed", rate=-1.0), "rate should be at least 0"),
        (frame("measured", result=RESULT | {"bytes_per_s": -1}), "bytes_per_s should be at least 0"),
        (frame("measured", result=RESULT | {"target": "nowhere"}), "than it was asked for: nowhere"),
        (frame("reached", reached=[REACH | {"target": "nowhere"}]), "than it was asked for: nowhere"),
        (frame("ssh_reached", ssh_reached=[REACH | {"target": "nowhere"}]), "than it was asked for: nowhere"),
    ],
)
def test_an_answer_with_which_the_smoke_test_could_not_go_on_is_refused(
    line: bytes, words: str, record_refusal: RecordRefusal
) -> None:
    with pytest.raises(Malformed) as e:
        frames.read(line, host="te1", ranks=(0, 1), nodes=("te1", "te2"))

    record_refusal(e.value)
    assert words in str(e.value)


@pytest.mark.parametrize(
    "line",
    [
        said_in_a_survey(),
        said_in_a_survey(own_address="", job_address="", addresses_by_name={"te1": "", "te2": ""}),
        said_in_a_survey(own_address="::1", job_address="fd00::1/64"),
        frame("facts", facts=asdict(facts(address="", master_address="", master_port=0))),
        frame("serving", address="fe80::1%eth0.100", port=65535),
        frame("measured", result=RESULT),
    ],
)
def test_answers_of_ours_pass(line: bytes) -> None:
    assert frames.read(line, host="te1", ranks=(0, 1), nodes=("te1", "te2"))


def test_frames_of_ours_and_other_output_pass() -> None:
    own = {"host": "te1", "ranks": (0, 1)}

    assert frames.read(frame("exit", **EXIT), **own) == {"kind": "exit", **EXIT, "tail": (), "calls": ()}
    assert frames.read(frame("exit", **EXIT | {"calls": [CALL] * 50}), **own)
    assert frames.read(frame("reached", reached=[REACH]), **own)
    assert frames.read(frame("facts", facts=asdict(facts())), **own) == {"kind": "facts", "facts": facts()}
    for other in (b"Welcome to te1\n", b"", b'\x1e{"kind": "ex'):
        assert frames.read(other, **own) is None
