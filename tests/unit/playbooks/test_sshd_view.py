"""What a node says of its sshd: the lines that sshd reads, in its order, and by whom it was called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.playbooks.played_node import PLAYBOOKS, load

PROGRAM = PLAYBOOKS / "roles" / "cluster" / "files" / "sshd_view.py"


@pytest.fixture(scope="module")
def program() -> Any:
    return load("sshd_view", PROGRAM)


@pytest.fixture
def ssh(tmp_path: Path) -> Path:
    (tmp_path / "sshd_config.d").mkdir()
    return tmp_path


def read(program: Any, ssh: Path) -> list[str]:
    config, ours = str(ssh / "sshd_config"), str(ssh / "sshd_config.d" / "10-clusterwright.conf")
    return [
        f"{Path(line['path']).name}:{line['number']} [{line['match']}] {line['text']}"
        for line in program.lines_of(config, config, ours)
    ]


def test_lines_are_told_in_the_order_in_which_sshd_reads_them(program: Any, ssh: Path) -> None:
    (ssh / "sshd_config").write_text(
        "Port 22\nInclude sshd_config.d/*.conf\n  allowusers = ann bob  # us\n# DenyUsers x\n"
        "Match User bob Address 10.*\nPasswordAuthentication yes\nMatch all\nDenyUsers eve\n"
    )
    (ssh / "sshd_config.d" / "00-a.conf").write_text("Match Group sftp\nForceCommand internal-sftp\n")
    (ssh / "sshd_config.d" / "50-b.conf").write_text("ChallengeResponseAuthentication no\n")

    assert read(program, ssh) == [
        "00-a.conf:2 [Group sftp] ForceCommand internal-sftp",
        "10-clusterwright.conf:0 [] ",  # where it would be read, though it is not there yet
        "50-b.conf:1 [] ChallengeResponseAuthentication no",
        "sshd_config:3 [] allowusers = ann bob # us",
        "sshd_config:6 [User bob Address 10.*] PasswordAuthentication yes",
        "sshd_config:8 [all] DenyUsers eve",
    ]


def test_an_include_in_a_match_is_of_that_match_and_none_at_all_is_told(program: Any, ssh: Path) -> None:
    (ssh / "sshd_config").write_text("Match User bob\nInclude sshd_config.d/*.conf\n")

    assert read(program, ssh) == ["10-clusterwright.conf:0 [User bob] "]
    (ssh / "sshd_config").write_text("# Include sshd_config.d/*.conf\nInclude /nowhere/*\n")
    assert read(program, ssh) == []


def test_a_file_that_includes_itself_ends(program: Any, ssh: Path) -> None:
    (ssh / "sshd_config").write_text("DenyUsers a\nInclude sshd_config\n")

    assert len(read(program, ssh)) == program.MOST_INCLUDES + 1


# A shell is replaced by its last command, so that sshd may be the parent; sudo leaves another environment.
@pytest.mark.parametrize(
    "between", ["", "env -u SSH_CONNECTION LOGNAME=root ", "env -i sh -c 'exec \"$@\"' sh "]
)
def test_a_connection_is_told_by_the_outermost_process_that_knows_of_it(between: str) -> None:
    program = f"import os, runpy; print(runpy.run_path({str(PROGRAM)!r})['caller'](os.getpid()))"
    last = '"$@"' if not between else f'{between} "$@"; true'
    environment = {**os.environ, "SSH_CONNECTION": "192.0.2.7 50000 192.0.2.1 2222", "LOGNAME": "daemon"}

    done = subprocess.run(
        ["bash", "-c", last, "bash", sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "'address': '192.0.2.7', 'own': '192.0.2.1', 'port': '2222', 'user': 'daemon'" in done.stdout


def test_one_who_is_not_there_yet_has_the_home_and_the_group_to_come(program: Any) -> None:
    found = program.account("nobody-of-this-name", "/home/x", "x")

    assert found == {"user": "nobody-of-this-name", "home": "/home/x", "groups": ["x"]}
    assert program.account("root", "", "")["home"] == "/root"


def test_the_kernel_s_table_is_read_as_addresses(program: Any) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        assert program.listening(server.getsockname()[1]) == ["127.0.0.1"]
