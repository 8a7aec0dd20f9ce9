"""The key that a line of authorized_keys lets in, as the real sshd reads it: held against ssh-keygen."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provision.audit.findings import key_in
from tests.conftest import RecordRefusal

KNOWN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPdyNJvlVWJO6cBWTTr4xY26MKRsuX/nHBPw1bFPM7L3"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICkcgqvXx8DT5XEJG1wTrXX1Q9vHSi6VmMoJ3gKjL4M7"


@pytest.mark.parametrize(
    "line",
    [
        OTHER,
        f"{OTHER} a comment",
        f"  {OTHER}\t{KNOWN}",
        f"restrict,pty {OTHER} {KNOWN}",
        f'command="{KNOWN}" {OTHER}',
        f'command="say \\"{KNOWN}\\" x",restrict {OTHER} {KNOWN}',
        f'from="10.0.0.1,10.0.0.2",restrict,pty {OTHER} clusterwright lab',
        f'environment="A=b c" {OTHER}',
        f'command="a\\\\" {KNOWN}\\" b" {OTHER} {KNOWN}',
    ],
)
def test_a_key_in_options_or_comment_is_no_decoy(line: str, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{line}\n")
    (tmp_path / "other").write_text(f"{OTHER}\n")

    by_ssh, wanted = (
        subprocess.run(
            ["ssh-keygen", "-l", "-f", tmp_path / name], capture_output=True, text=True, check=True
        )
        for name in ("keys", "other")
    )

    assert key_in(line) == OTHER
    assert by_ssh.stdout.split()[1] == wanted.stdout.split()[1]


@pytest.mark.parametrize("line", ["", "x", "ssh-ed25519", "ssh-rsa !!!", 'command="open ssh-ed25519 AAAA'])
def test_what_holds_no_key_has_none(line: str) -> None:
    assert key_in(line) == ""


@pytest.mark.attack("user")
@pytest.mark.parametrize(
    "piece", ['\\"', "\\", '"', '""', 'a"', '\\""', '\\\\"', '"\\"a"', "a", "ssh-rsa A=", "A= ", "\t"]
)
@pytest.mark.parametrize("start", ["", '"', 'a="', "ssh-rsa A"])
@pytest.mark.parametrize("end", ["", '"', " ", "!", ' "ssh-rsa'])
def test_a_line_of_a_user_is_read_once_however_it_is_made(
    start: str, piece: str, end: str, record_refusal: RecordRefusal
) -> None:
    """Read in two ways, eight characters of it took eight times as long; 100,000 would have no end."""
    found = key_in(start + piece * (100_000 // len(piece)) + end)

    record_refusal(f"read to its end: {found[:12] or 'no key'}")
