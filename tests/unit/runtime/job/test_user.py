"""Root's commands go on as the user of jobs, by a description that only root can have written."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import BadInput
from runtime.job.user import (
    cluster_user,
    data_folder,
    environment_of,
    go_on_as_cluster_user,
    jobs_folder,
    user_name,
)
from tests.conftest import RecordRefusal

# Begun anew are a shell and its words, which look at what they were handed.
GOES_ON = """\
import os, sys
from pathlib import Path
from runtime.job.user import go_on_as_cluster_user
sys.executable, sys.orig_argv = "/bin/sh", ["", *sys.argv[2:]]
go_on_as_cluster_user(os.environ, print, description=Path(sys.argv[1]))
"""
SECRETS = {"AWS_SECRET_ACCESS_KEY": "s3cret", "VAULT_TOKEN": "s3cret", "SSH_AUTH_SOCK": "/tmp/s3cret/agent"}

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def description(folder: Path, text: str, mode: int = 0o644) -> Path:
    path = folder / "cluster.json"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_node_without_a_description_has_no_user_of_jobs(tmp_path: Path) -> None:
    assert cluster_user(tmp_path / "cluster.json") == ""


@as_root
@pytest.mark.attack("user")
def test_a_description_that_others_can_write_is_refused(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    ours = cluster_user(description(tmp_path, '{"user": "train"}'))
    open_to_all = description(tmp_path, '{"user": "root"}', 0o666)
    with pytest.raises(BadInput, match="others than root can write it"):
        cluster_user(open_to_all)
    theirs = description(tmp_path, '{"user": "root"}')
    os.chown(theirs, pwd.getpwnam("nobody").pw_uid, -1)

    with pytest.raises(BadInput, match="others than root can write it") as refusal:
        cluster_user(theirs)
    record_refusal(refusal.value)
    assert ours == "train"


@as_root
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"user": '])
def test_a_damaged_description_is_said(text: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="it is damaged"):
        cluster_user(description(tmp_path, text))


@as_root
def test_a_user_who_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="run this as no-such-user"):
        go_on_as_cluster_user({}, print, description=description(tmp_path, '{"user": "no-such-user"}'))


def test_root_stays_root_where_the_site_chose_that(tmp_path: Path) -> None:
    told: list[str] = []

    go_on_as_cluster_user({}, told.append, description=description(tmp_path, '{"user": "root"}'))

    assert told == []


def test_the_variables_are_those_of_the_user(tmp_path: Path) -> None:
    account = pwd.struct_passwd(("train", "x", 1, 1, "", "/home/train", "/bin/bash"))
    going_on = {"NCCL_DEBUG": "INFO", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin", "COLUMNS": "110"}
    session = {
        "HOME": "/root",
        "USER": "root",
        "XDG_RUNTIME_DIR": "/run/user/0",
        **SECRETS,
        **going_on,
    }

    found = environment_of(account, session)

    names = {"HOME": "/home/train", "USER": "train", "LOGNAME": "train", "SHELL": "/bin/bash"}
    assert found == {**names, **going_on}


@as_root
@pytest.mark.attack("user")
def test_no_secret_of_root_s_session_goes_on(tmp_path: Path, record_refusal: RecordRefusal) -> None:
    asked = description(tmp_path, '{"user": "nobody"}')
    (tmp_path / "secret").write_text("s3cret")
    opened = os.open(tmp_path / "secret", os.O_RDONLY)
    look = f"id -u; env; readlink /proc/$$/fd/{opened} || echo the descriptor is closed"

    ended = subprocess.run(
        [sys.executable, "-c", GOES_ON, str(asked), "-c", look],
        env={**os.environ, **SECRETS, "NCCL_DEBUG": "INFO"},
        cwd="/",
        pass_fds=[opened],
        capture_output=True,
        text=True,
        check=True,
    )
    os.close(opened)

    told = ended.stdout.splitlines()
    record_refusal(told[-1])
    assert told[1] == str(pwd.getpwnam("nobody").pw_uid)
    assert told[-1] == "the descriptor is closed"
    assert {line.partition("=")[0] for line in told} & {*SECRETS, "NCCL_DEBUG"} == {"NCCL_DEBUG"}


@as_root
def test_a_python_that_the_user_may_not_run_is_named(tmp_path: Path) -> None:
    asked = description(tmp_path, '{"user": "nobody"}')
    closed = tmp_path / "python"
    closed.touch(mode=0o700)
    program = GOES_ON.replace("/bin/sh", str(closed))

    ended = subprocess.run(
        [sys.executable, "-c", program, str(asked)], capture_output=True, text=True, check=False
    )

    assert f"nobody may not run {closed}: Permission denied" in ended.stderr
    assert "BadInput" in ended.stderr


@as_root
@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('{"user": "train", "data": "/srv/scratch"}', "/srv/scratch"),
        ('{"user": "train"}', "/data"),
        ('{"data": "scratch"}', "/data"),
        ('{"data": ["/srv"]}', "/data"),
        ('{"data": ', "/data"),
    ],
)
def test_the_data_disk_is_where_the_site_has_it(text: str, data: str, tmp_path: Path) -> None:
    assert data_folder(description(tmp_path, text)) == Path(data)


def test_a_node_without_a_description_has_its_data_disk_at_data(tmp_path: Path) -> None:
    assert data_folder(tmp_path / "cluster.json") == Path("/data")


@as_root
@pytest.mark.attack("user")
def test_the_data_disk_is_not_what_a_description_of_others_says(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    path = description(tmp_path, '{"data": "/tmp/mine"}', 0o666)

    found = data_folder(path)

    assert found == Path("/data")
    record_refusal(f"it stays at {found}")


@as_root
def test_the_jobs_of_a_user_lie_on_that_disk(tmp_path: Path) -> None:
    path = description(tmp_path, f'{{"data": "{tmp_path}"}}')
    (tmp_path / "jobs" / user_name()).mkdir(parents=True)

    assert jobs_folder(path) == tmp_path / "jobs" / user_name()
