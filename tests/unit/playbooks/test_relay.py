"""The relay of an environment, with folders for nodes and a shell for ssh: the same for all, or no change."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provision.images.programs import with_module
from tests.conftest import RecordRefusal

PLAYBOOKS = Path(__file__).parents[3] / "playbooks"
FILES = "roles/conda_env/files"
TEXT = (PLAYBOOKS / FILES / "relay.py").read_text()
for part in (
    f"{FILES}/environment_hardening.py",
    "module_utils/running.py",
    "module_utils/working_folder.py",
):
    TEXT = with_module(TEXT, Path(part).stem, (PLAYBOOKS / part).read_text())
USER = pwd.getpwuid(os.geteuid()).pw_name
KEY = "5e" * 32
# ssh NODE COMMAND: runs the command with the node's own folder in place of the caller's.
SSH = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift 2; done
case " $BROKEN " in *" $1 "*) exit 255;; esac
exec sh -c "$(printf '%s' "$2" | sed "s#{root}/te[0-9]*/#{root}/$1/#g")"
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Four nodes; te1 has the environment, te3 an old one."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ssh").write_text(SSH.replace("{root}", str(tmp_path)))
    (tmp_path / "bin" / "ssh").chmod(0o755)
    for node in ("te1", "te2", "te3", "te4"):
        (tmp_path / node / "envs").mkdir(parents=True)
    new = tmp_path / "te1" / "envs" / "llm"
    (new / "lib").mkdir(parents=True)
    (new / "lib" / "big").write_bytes(os.urandom(3_500_000))
    (new / "lib" / "program").write_text("#!")
    (new / "lib" / "program").chmod(0o755)
    (new / "link").symlink_to("lib/big")
    (tmp_path / "te3" / "envs" / "llm").mkdir()
    (tmp_path / "te3" / "envs" / "llm" / "old").write_text("old")
    return tmp_path


def run(site: Path, *words: str, given: str = KEY, broken: str = "") -> str:
    ended = subprocess.run(
        ["python3", "-c", "import sys; exec(sys.argv[1])", TEXT, *words],
        env={**os.environ, "PATH": f"{site / 'bin'}:{os.environ['PATH']}", "BROKEN": broken},
        input=given,
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout


def listen(site: Path, *nodes: str, given: str = KEY, broken: str = "") -> None:
    run(site, "receive", USER, str(site / nodes[0] / "envs" / "llm"), *nodes, given=given, broken=broken)


def said_in(text: str) -> dict[str, dict[str, Any]]:
    said = [json.loads(line) for line in text.splitlines()]
    return {line["node"]: line for line in said}


def relay(site: Path, *nodes: str, broken: str = "") -> dict[str, dict[str, Any]]:
    """Sends te1's environment through other nodes, which wait for it."""
    for number in range(len(nodes)):
        listen(site, *nodes[number:], broken=broken)
    return said_in(run(site, "send", USER, str(site / "te1" / "envs" / "llm"), *nodes, broken=broken))


def held(site: Path, node: str) -> dict[str, Any]:
    """What a node has, by path, but the records that a node keeps of its own."""
    folder, others = site / node / "envs", {".clusterwright-llm", ".clusterwright"}
    paths = [path for path in folder.rglob("*") if not others & set(path.parts) and not path.is_socket()]
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else (path.stat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in paths
    }


def test_every_node_gets_the_same_in_one_pass(site: Path) -> None:
    said = relay(site, "te2", "te3", "te4")

    assert [line["ok"] for line in said.values()] == [True, True, True]
    assert all(line["bytes"] > 3_500_000 for line in said.values())
    assert held(site, "te2") == held(site, "te3") == held(site, "te4") == held(site, "te1")
    assert (site / "te3" / "envs" / ".clusterwright-llm" / "previous" / "old").read_text() == "old"


def test_bytecode_does_not_travel(site: Path) -> None:
    cached = site / "te1" / "envs" / "llm" / "lib" / "__pycache__" / "a.cpython-311.pyc"
    cached.parent.mkdir()
    cached.write_bytes(b"evil")

    relay(site, "te2")

    assert sorted(path.name for path in (site / "te2" / "envs" / "llm" / "lib").iterdir()) == [
        "big",
        "program",
    ]


def test_what_arrived_is_an_unfinished_build_of_ours_until_its_digest_is_recorded(site: Path) -> None:
    relay(site, "te2")

    claim = site / "te2" / "envs" / "llm" / ".clusterwright" / "record.json"
    assert claim.read_text() == '{"unfinished": true}\n'


@pytest.mark.attack("node")
def test_no_rights_owners_or_records_of_the_sender_arrive(site: Path, record_refusal: RecordRefusal) -> None:
    sent, got = (site / node / "envs" / "llm" for node in ("te1", "te2"))
    for name in ("conda-meta/state", "conda-meta/pinned/deep", "conda-meta/a.json", ".clusterwright/evil.so"):
        (sent / name).parent.mkdir(parents=True, exist_ok=True)
        (sent / name).write_text("{}")
    (sent / "lib" / "program").chmod(0o6755)
    (sent / "lib" / "big").chmod(0o666)
    (sent / "lib").chmod(0o3777)
    if os.geteuid() == 0:
        os.chown(sent / "lib" / "big", 65534, 65534)

    said = relay(site, "te2")

    assert said["te2"]["ok"]
    record_refusal(f"arrived: {', '.join(sorted(str(path.relative_to(got)) for path in got.rglob('*')))}")
    modes = {name: (got / name).stat().st_mode & 0o7777 for name in ("lib", "lib/big", "lib/program")}
    assert modes == {"lib": 0o755, "lib/big": 0o644, "lib/program": 0o755}
    assert {path.lstat().st_uid for path in got.rglob("*")} == {os.geteuid()}
    assert [path.name for path in (got / "conda-meta").iterdir()] == ["a.json"]
    assert [path.name for path in (got / ".clusterwright").iterdir()] == ["record.json"]


def with_a_pipe(sent: Path) -> None:
    (sent / "conda-meta").mkdir()
    os.mkfifo(sent / "conda-meta" / "a.json")


def with_folders_behind_a_link(sent: Path) -> None:
    (sent / "conda-meta").symlink_to("../../elsewhere")


def as_a_link(sent: Path) -> None:
    sent.rename(sent.with_name("other"))
    sent.symlink_to("other")


@pytest.mark.attack("node")
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (with_a_pipe, "conda-meta/a.json is neither a file, a folder nor a link"),
        (with_folders_behind_a_link, "conda-meta is no folder"),
        (as_a_link, "llm is no folder"),
    ],
)
def test_what_is_no_environment_is_not_put_in_place(
    site: Path, spoil: Callable[[Path], None], why: str, record_refusal: RecordRefusal
) -> None:
    (site / "te3" / "elsewhere").mkdir()
    (site / "te3" / "elsewhere" / "state").write_text("somebody's")
    before = held(site, "te3")
    spoil(site / "te1" / "envs" / "llm")

    said = relay(site, "te3")

    record_refusal(said["te3"]["error"])
    assert why in said["te3"]["error"]
    assert held(site, "te3") == before
    assert (site / "te3" / "elsewhere" / "state").read_text() == "somebody's"


def test_what_is_there_is_not_overwritten_where_something_was_set_aside_before(site: Path) -> None:
    relay(site, "te3")
    (site / "te1" / "envs" / "llm" / "lib" / "program").write_text("#! another")
    before = held(site, "te3")

    said = relay(site, "te3")

    assert ".clusterwright-llm/previous is there already" in said["te3"]["error"]
    assert held(site, "te3") == before


@pytest.mark.parametrize("what", ["a folder", "a link"])
def test_a_working_folder_of_somebody_else_is_not_worked_in(site: Path, what: str) -> None:
    theirs = site / "te3" / "envs" / ".clusterwright-llm"
    place = site / "theirs" if what == "a link" else theirs
    (place / "arriving").mkdir(parents=True)
    (place / "arriving" / "theirs").write_text("theirs")
    if what == "a link":
        theirs.symlink_to(place)

    with pytest.raises(subprocess.CalledProcessError) as refused:
        listen(site, "te3")

    assert (
        f"{theirs} is there already, and not ours: move it to another name yourself" in refused.value.stderr
    )
    assert [str(path.relative_to(place)) for path in place.rglob("*")] == ["arriving", "arriving/theirs"]


def test_a_node_that_cannot_unpack_hands_it_on(site: Path) -> None:
    (site / "te2" / "envs" / "llm").write_text("no folder")

    said = relay(site, "te2", "te3")

    assert (said["te2"]["ok"], said["te3"]["ok"]) == (False, True)
    assert "Not a directory" in said["te2"]["error"]
    assert held(site, "te3") == held(site, "te1")


def test_a_connection_that_breaks_leaves_those_behind_it_as_they_were(site: Path) -> None:
    before = held(site, "te3")

    said = relay(site, "te2", "te3", broken="te3")

    assert (said["te2"]["ok"], said["te3"]["ok"]) == (True, False)
    assert "255" in said["te3"]["error"]
    assert held(site, "te3") == before
    assert held(site, "te2") == held(site, "te1")


def answer(site: Path, node: str, stream: bytes) -> dict[str, Any]:
    """What a node says that waits, to somebody who has found its socket."""
    os.chdir(site / node / "envs" / ".clusterwright-llm")
    with socket.socket(socket.AF_UNIX) as line:
        line.connect("relay.socket")
        line.sendall(stream)
        line.shutdown(socket.SHUT_WR)
        with line.makefile() as back:
            said: dict[str, Any] = json.loads(back.read())
    return said


UNSIGNED = bytes(32)


@pytest.mark.attack("user")
@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (b"", "cut off"),
        (b"\0\0\0\x05ab", "cut off"),
        (b"\0\0\0\x02" + UNSIGNED + b"ab", "not signed with the key of this run"),
        (b"\0\0\0\0" + UNSIGNED, "not signed with the key of this run"),
        (b"\xff\0\0\0" + UNSIGNED, "too large"),
    ],
)
def test_a_stream_that_is_cut_off_or_of_somebody_else_changes_nothing(
    site: Path, monkeypatch: pytest.MonkeyPatch, stream: bytes, why: str, record_refusal: RecordRefusal
) -> None:
    before = held(site, "te3")
    monkeypatch.chdir(site)
    listen(site, "te3")

    said = answer(site, "te3", stream)
    record_refusal(said["error"])

    assert not said["ok"]
    assert why in said["error"]
    assert held(site, "te3") == before


def test_who_has_another_key_is_not_unpacked(site: Path) -> None:
    listen(site, "te2", given="00" * 32)

    said = said_in(run(site, "send", USER, str(site / "te1" / "envs" / "llm"), "te2"))

    assert "not signed with the key of this run" in said["te2"]["error"]
    assert held(site, "te2") == {}


@pytest.mark.attack("user")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_gets_no_way_to_the_socket(site: Path, record_refusal: RecordRefusal) -> None:
    listen(site, "te2")
    waiting = site / "te2" / "envs" / ".clusterwright-llm" / "relay.socket"
    for folder in (site, *site.parents):
        folder.chmod(folder.stat().st_mode | 0o111)
    connecting = f"import socket; socket.socket(socket.AF_UNIX).connect({str(waiting)!r})"

    refused = subprocess.run(
        ["setpriv", "--reuid=nobody", "--clear-groups", "python3", "-c", connecting],
        capture_output=True,
        text=True,
        check=False,
    )
    record_refusal(refused.stderr.splitlines()[-1])

    assert "Permission denied" in refused.stderr
    assert said_in(run(site, "send", USER, str(site / "te1" / "envs" / "llm"), "te2"))["te2"]["ok"]


def test_who_can_be_reached_is_asked_at_once(site: Path) -> None:
    said = said_in(run(site, "ask", USER, "te2", "te3", "te4", broken="te3"))

    assert {node: line["ok"] for node, line in said.items()} == {"te2": True, "te3": False, "te4": True}


def test_an_environment_in_which_a_process_runs_is_not_moved(site: Path) -> None:
    program = site / "te3" / "envs" / "llm" / "sleep"
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen(["job", "60"], executable=program) as job:
        said = relay(site, "te2", "te3", "te4")
        job.kill()

    assert [said[node]["ok"] for node in ("te2", "te3", "te4")] == [True, False, True]
    assert f"{job.pid} (job 60)" in said["te3"]["error"]
    assert program.exists()
