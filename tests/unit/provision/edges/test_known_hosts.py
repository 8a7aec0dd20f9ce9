"""A machine's host keys are those that OpenSSH would take from the same files."""

from __future__ import annotations

import base64
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.edges.known_hosts import trusted_keys

A, B = "ssh-ed25519 AAAA", "ecdsa-sha2-nistp256 BBBB"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (f"te1 {A}\n", [A]),
        (f"10.0.0.1,te1\t{A} a comment\nTE1 {B}\n", [A, B]),
        (f"te2 {A}\n", []),
        (f"te1.example {A}\nxte1 {A}\n", []),
        (f"te? {A}\n", [A]),
        (f"*,!te1 {A}\n", []),
        (f"# te1 {A}\n\nte1\nte1 ssh-ed25519\n", []),
        (f"@cert-authority te1 {A}\n", []),
        (f"te1 {A}\nte1 {B}\n@revoked * {A}\n", [B]),
        (f"[te1]:22 {A}\n", []),
        (f"|1|not base64|x {A}\n|1|x {A}\n", []),
        ("\x00\x85te1 ssh-x\n", []),
    ],
)
def test_lines_count_as_for_ssh(text: str, keys: list[str]) -> None:
    assert trusted_keys([text], "te1") == keys


def test_another_port_has_keys_of_its_own() -> None:
    text = f"te1 {A}\n[te1]:2222 {B}\n"

    assert trusted_keys([text], "[te1]:2222") == [B]
    assert trusted_keys([text, text], "te1") == [A]


def test_hidden_names_are_found(tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    known = tmp_path / "known"
    known.write_text(f"[te1]:2222 {public}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, capture_output=True)

    assert known.read_text().startswith("|1|")
    assert trusted_keys([known.read_text()], "[te1]:2222") == [public]


# Parts of which names and patterns are made, so that many of them meet.
PARTS = st.sampled_from(["te", "1", "10.0.", "*", "?", ".x", "T", "[", "]:22", "-"])
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("".join)
PATTERNS = st.lists(
    st.builds(str.__add__, st.sampled_from(["", "", "!"]), NAMES), min_size=1, max_size=3
).map(",".join)
MARKS = st.sampled_from(["", "", "", "@cert-authority ", "@revoked "])


@settings(max_examples=150, deadline=None)
@given(
    name=st.one_of(NAMES.filter(lambda name: not name.startswith("-")), st.just("te1")),
    lines=st.lists(st.tuples(MARKS, PATTERNS), max_size=6),
)
def test_the_same_lines_count_as_for_ssh_keygen(name: str, lines: list[tuple[str, str]]) -> None:
    kind = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"
    keys = [base64.b64encode(kind + bytes([number]) * 32).decode() for number, _ in enumerate(lines)]
    text = "".join(
        f"{mark}{names} ssh-ed25519 {key}\n" for (mark, names), key in zip(lines, keys, strict=True)
    )
    with tempfile.NamedTemporaryFile("w") as known:
        known.write(text)
        known.flush()
        said = subprocess.run(
            ["ssh-keygen", "-F", name, "-f", known.name], capture_output=True, text=True, check=False
        )

    found = [line for line in said.stdout.splitlines() if not line.startswith(("#", "@"))]
    assert trusted_keys([text], name) == [f"ssh-ed25519 {line.split()[2]}" for line in found]
