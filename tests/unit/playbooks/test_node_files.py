"""Files that root writes and reads where a user without rights has prepared something; needs root."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RecordRefusal

PLAYBOOKS = Path(__file__).parents[3] / "playbooks"
# The module itself, as on a node, without Ansible's way there: that takes seconds for each call.
RUN = """\
import json, runpy, sys
import ansible.module_utils
from ansible.module_utils.testing import patch_module_args
ansible.module_utils.__path__.append(sys.argv[1] + "/module_utils")
with patch_module_args(json.load(sys.stdin)):
    runpy.run_path(f"{sys.argv[1]}/library/{sys.argv[2]}.py", run_name="__main__")
"""
USER = pwd.getpwnam("nobody")
THEIRS = {"owner": "nobody", "group": "nogroup"}
SECRET = "root's own secret\n"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


def run_module(name: str, arguments: dict[str, Any], *, check_mode: bool = False) -> dict[str, Any]:
    """What the module returned; its `failed` is True where it failed."""
    words = ["prlimit", f"--as={1 << 30}", sys.executable, "-c", RUN, PLAYBOOKS, name]
    given = json.dumps({**arguments, "_ansible_check_mode": check_mode})
    finished = subprocess.run(words, input=given, capture_output=True, text=True, check=False)
    assert finished.stdout.strip(), finished.stderr
    return {"failed": False, **json.loads(finished.stdout)}


def give(*paths: Path) -> None:
    for path in paths:
        os.chown(path, USER.pw_uid, USER.pw_gid, follow_symlinks=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's home beside root's secret."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    give(home, home / ".ssh")
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "roots").mkdir()
    return home


def authorise(home: Path, *, check_mode: bool = False) -> dict[str, Any]:
    file = {"path": f"{home}/.ssh/authorized_keys", "lines": ["our key"], "mode": "0600", **THEIRS}
    arguments = {"files": [file], "journal": f"{home.parent}/state/journal.json"}
    return run_module("write_files", arguments, check_mode=check_mode)


def key_is_a_link(home: Path) -> None:
    (home / ".ssh" / "authorized_keys").symlink_to(home.parent / "secret")


def key_is_a_relative_link(home: Path) -> None:
    (home / ".ssh" / "authorized_keys").symlink_to("../../secret")


def key_is_a_link_to_nothing(home: Path) -> None:
    (home / ".ssh" / "authorized_keys").symlink_to(home.parent / "roots" / "made by root")


def folder_is_a_link(home: Path) -> None:
    shutil.rmtree(home / ".ssh")
    (home / ".ssh").symlink_to(home.parent / "roots")


def key_is_a_second_name(home: Path) -> None:
    os.link(home.parent / "secret", home / ".ssh" / "authorized_keys")


def key_is_a_fifo(home: Path) -> None:
    os.mkfifo(home / ".ssh" / "authorized_keys")


def key_is_a_device(home: Path) -> None:
    os.mknod(home / ".ssh" / "authorized_keys", 0o20600, os.makedev(1, 3))


def key_is_without_end(home: Path) -> None:
    """On the disk it takes nothing."""
    key = home / ".ssh" / "authorized_keys"
    key.touch()
    give(key)
    os.truncate(key, 3 << 30)


def key_was_moved_there(home: Path) -> None:
    """A file of root's in the user's home, which he may rename."""
    (home.parent / "secret").rename(home / ".ssh" / "authorized_keys")


def folder_is_somebody_elses(home: Path) -> None:
    os.chown(home / ".ssh", 1, 1)


TRAPS = [
    key_is_a_link,
    key_is_a_relative_link,
    key_is_a_link_to_nothing,
    folder_is_a_link,
    key_is_a_second_name,
    key_is_a_fifo,
    key_is_a_device,
    key_is_without_end,
    key_was_moved_there,
    folder_is_somebody_elses,
]


def everything_below(folder: Path) -> dict[str, tuple[int, int, str]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        is_read = path.is_file() and not path.is_symlink() and status.st_size < 1 << 20
        text = path.read_text() if is_read else f"{status.st_size} bytes"
        found[str(path)] = (status.st_uid, status.st_mode, text)
    return found


@pytest.mark.attack("user")
@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_nothing_is_written_through_what_a_user_prepared(
    trap: Any, home: Path, record_refusal: RecordRefusal
) -> None:
    trap(home)
    before = everything_below(home.parent)

    refused = [authorise(home, check_mode=True), authorise(home)]

    record_refusal(refused[1]["msg"])
    assert all(one["failed"] for one in refused)
    assert all(".ssh" in one["msg"] for one in refused)
    assert everything_below(home.parent) == before
    assert SECRET.strip() not in json.dumps(refused)


@pytest.mark.attack("user")
@pytest.mark.parametrize("trap", TRAPS[:-1], ids=lambda trap: trap.__name__)
@pytest.mark.parametrize("asked", ["files", "secrets"])
def test_nothing_is_read_through_what_a_user_prepared(
    asked: str, trap: Any, home: Path, record_refusal: RecordRefusal
) -> None:
    trap(home)
    if trap is folder_is_a_link:
        shutil.copy(home.parent / "secret", home.parent / "roots" / "authorized_keys")

    found = run_module("observe", {asked: [f"{home}/.ssh/authorized_keys"]})

    record_refusal(found["msg"])
    assert found["failed"]
    assert "authorized_keys" in found["msg"]
    assert SECRET.strip() not in json.dumps(found)


@pytest.mark.attack("user")
@pytest.mark.parametrize("trap", TRAPS[:-2], ids=lambda trap: trap.__name__)
def test_nothing_is_put_back_through_what_a_user_prepared(
    trap: Any, home: Path, record_refusal: RecordRefusal
) -> None:
    (home / ".ssh" / "authorized_keys").write_text("a key of theirs\n")
    other = home.parent / "other.conf"
    written = [{"path": str(other), "content": "ours\n"}]
    run_module("write_files", {"files": written, "journal": f"{home.parent}/state/journal.json"})
    authorise(home)
    (home / ".ssh" / "authorized_keys").unlink()
    trap(home)
    before = everything_below(home.parent)

    restored = run_module("restore_files", {"journal": f"{home.parent}/state/journal.json"})

    record_refusal(restored["msg"])
    assert restored["failed"]
    assert ".ssh" in restored["msg"]
    assert everything_below(home.parent) == before


def test_a_users_file_and_its_folder_are_made_in_his_home(home: Path) -> None:
    (home / ".ssh").rmdir()

    written = authorise(home)

    key = home / ".ssh" / "authorized_keys"
    assert not written["failed"], written
    assert key.read_text() == "our key\n"
    assert {path.stat().st_uid for path in (key, key.parent)} == {USER.pw_uid}
    assert key.stat().st_mode & 0o777 == 0o600
    assert not authorise(home)["changed"]


@pytest.mark.parametrize("is_folder", [False, True])
def test_links_that_only_root_can_make_remain(is_folder: bool, tmp_path: Path) -> None:
    """As /etc/resolv.conf, and as /data on another disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "a.conf").write_text("old\n")
    link = tmp_path / "data" if is_folder else tmp_path / "a.conf"
    link.symlink_to("disk" if is_folder else disk / "a.conf")
    asked = str(link / "a.conf") if is_folder else str(link)
    arguments = {
        "files": [
            {
                "path": asked,
                "content": "new\n",
            }
        ],
        "journal": f"{tmp_path}/journal.json",
    }

    written = run_module("write_files", arguments)
    seen = run_module("observe", {"files": [asked]})
    now = (link.is_symlink(), (disk / "a.conf").read_text())
    run_module("restore_files", {"journal": f"{tmp_path}/journal.json"})

    assert written["changed"]
    assert seen["files"][asked]["text"] == "new\n"
    assert now == (True, "new\n")
    assert (link.is_symlink(), (disk / "a.conf").read_text()) == (True, "old\n")


# Before each call that opens, renames or changes a mode: the modes of the files in a folder.
WATCHED = """\
import os, sys
modes = []
def note(event, arguments):
    if event == "os.chmod":
        modes.append(arguments[1])
    if event.startswith(("os.", "open")) and event != "os.scandir":
        modes.extend(entry.stat().st_mode & 0o777 for entry in os.scandir(sys.argv[3]) if entry.is_file())
sys.addaudithook(note)
try:
    exec(sys.argv[4])
finally:
    print("modes", *modes, file=sys.stderr)
"""


@pytest.mark.attack("user")
def test_a_secret_is_never_readable_by_others_not_even_while_it_is_written(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    target = tmp_path / "new" / "key"
    target.parent.mkdir()
    file = {"path": str(target), "content": SECRET, "mode": "0600"}
    given = json.dumps({"files": [file], "journal": f"{tmp_path}/journal.json"})

    words = [sys.executable, "-c", WATCHED, PLAYBOOKS, "write_files", target.parent, RUN]
    finished = subprocess.run(words, input=given, capture_output=True, text=True, check=True)

    modes = {int(mode) for mode in finished.stderr.rpartition("modes")[2].split()}
    assert target.read_text() == SECRET
    record_refusal(f"modes that were seen: {', '.join(f'{mode:04o}' for mode in sorted(modes))}")
    assert modes
    assert {f"{mode:04o}" for mode in modes if mode & 0o077} == set()


# CRLF, a form feed and a separator that str.splitlines would take for ends, and no end at the end.
OF_OTHERS = (
    b"ssh-rsa AAAA a person\r\n\n# ours was: old key\n"
    b'command="a\x0cb" ssh-rsa BBBB\nkey of \xe2\x80\xa8caf\xe9'
)


def test_a_line_of_ours_is_replaced_and_those_of_others_stay_byte_for_byte(tmp_path: Path) -> None:
    """By the record alone: the new line says nothing of how the old one began."""
    keys, journal = tmp_path / "keys", str(tmp_path / "journal.json")
    keys.write_bytes(OF_OTHERS)

    for line in ('from="1.2.3.4" key', 'from="1.2.3.4,1.2.3.5" key', 'from="1.2.3.5" other'):
        files = [{"path": str(keys), "lines": [line], "without": ["key"], "supersede": True}]
        first = run_module("write_files", {"files": files, "journal": journal})
        again = run_module("write_files", {"files": files, "journal": journal})

        assert [first["changed"], again["changed"]] == [True, False]
        assert keys.read_bytes() == OF_OTHERS + f"\n{line}\n".encode()

    keys.write_bytes(keys.read_bytes() + b"one more\n")
    run_module("restore_files", {"journal": journal})
    assert keys.read_bytes() == OF_OTHERS + b"\none more\n"


def test_a_line_that_was_there_before_us_stays_when_we_want_another(tmp_path: Path) -> None:
    keys, journal = tmp_path / "keys", str(tmp_path / "journal.json")
    keys.write_text("key\n")

    for line in ("key", "other"):
        files = [{"path": str(keys), "lines": [line, "third"], "supersede": True}]
        run_module("write_files", {"files": files, "journal": journal})

    assert keys.read_text() == "key\nthird\nother\n"


def test_lines_that_are_collected_over_runs_stay(tmp_path: Path) -> None:
    """As role base_packages does, which writes what was missing."""
    path, journal = tmp_path / "packages", str(tmp_path / "journal.json")

    for line in ("nftables", "pdsh"):
        run_module("write_files", {"files": [{"path": str(path), "lines": [line]}], "journal": journal})

    assert path.read_text() == "nftables\npdsh\n"
