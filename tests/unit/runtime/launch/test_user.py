"""Root's commands go on as the user of jobs, by a description that only root can have written."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from runtime.errors import BadInput
from runtime.launch.user import cluster_user, environment_of, go_on_as_cluster_user
from tests.conftest import RecordRefusal

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
    session = {
        "HOME": "/root",
        "USER": "root",
        "XDG_RUNTIME_DIR": "/run/user/0",
        "NCCL_DEBUG": "INFO",
    }

    found = environment_of(account, session)

    names = {"HOME": "/home/train", "USER": "train", "LOGNAME": "train", "SHELL": "/bin/bash"}
    assert found == {**names, "NCCL_DEBUG": "INFO"}
