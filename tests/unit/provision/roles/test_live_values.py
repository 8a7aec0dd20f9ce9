"""What is live is compared with what is wanted: clocks, files, sshd and the way to the next node."""

from __future__ import annotations

from provision.roles.observed import clock_problem, differing
from provision.roles.ssh_trust.live_daemon import offers_too_much, trust_problems

FILE = {"text": "a\n", "mode": "0644", "owner": "root", "group": "root"}
TRACKING = (
    "0A4D000B,10.77.0.11,11,1763715000.1,0.000001,0.000001,0.000002,1.5,0.0,0.1,0.0002,0.0001,16.0,Normal"
)
KEYS_ONLY = {
    "settings": {"rc": 0, "stdout": "port 22\npasswordauthentication no", "stderr": ""},
    "offered": {"rc": 255, "stdout": "", "stderr": "root@10.77.0.11: Permission denied (publickey)."},
    "next_node": {"rc": 0, "stdout": "te2", "stderr": ""},
}


def said(stdout: str, *, rc: int = 0, stderr: str = "") -> dict[str, object]:
    return {"rc": rc, "stdout": stdout, "stderr": stderr}


def problems(**changed: dict[str, object]) -> list[str]:
    return trust_problems(KEYS_ONLY | changed, settings=["passwordauthentication no"], next_node="te2")


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


def test_keys_only_and_a_right_answer_are_no_problem() -> None:
    assert problems() == []


def test_a_daemon_that_offers_passwords_is_told_from_one_that_says_nothing() -> None:
    offers = "root@10.77.0.11: Permission denied (publickey,password)."

    assert offers_too_much(offers, False)
    assert not offers_too_much(offers, True)
    assert not offers_too_much("Host key verification failed.", False)
    assert not offers_too_much("root@10.77.0.11: Permission denied (publickey,gssapi-with-mic).", False)


def test_every_hole_in_the_trust_is_a_problem() -> None:
    password = "root@10.77.0.11: Permission denied (publickey,password)."

    assert problems(settings=said("passwordauthentication yes")) == [
        "sshd has 'passwordauthentication yes', wanted 'passwordauthentication no'"
    ]
    assert problems(offered=said("", rc=255, stderr=password)) == [
        "the running sshd offers publickey,password, wanted publickey alone"
    ]
    assert problems(offered=said("")) == ["a login without a key was not refused as it should be: nothing"]
    assert problems(next_node=said("te3")) == ["ssh to te2 ends with 0: te3"]
    assert "refuses the configuration: bad line" in problems(settings=said("", rc=1, stderr="bad line"))[0]
