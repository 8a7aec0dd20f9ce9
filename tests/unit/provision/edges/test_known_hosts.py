"""A machine's host keys are those that OpenSSH would take from the same files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

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
