"""What a baked node gets back, where somebody changed its disk meanwhile; on trees of a few files."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import RecordRefusal

PLAYBOOKS = Path(__file__).parents[3] / "playbooks"
SCRIPT = PLAYBOOKS / "roles" / "image_cleanup" / "files" / "live_view.py"
# The program with its places below the first word, and a user who acts while root copies.
ACT = """
import os, sys
import live_view as program

top, act = sys.argv[1:]
program.PLACE, program.ROOT, program.MEMORY = f"{top}/run", f"{top}/run/root", f"{top}/run/memory"
program.KEPT = f"{top}/run/kept.tar"
program.USED, program.WRITTEN = (f"{top}/home/*/.ssh", f"{top}/etc/machine-id"), (f"{top}/var/log",)
run, copied = program.run, program.copied
program.run = lambda *words, check=True: None if words[0] == "journalctl" else run(*words, check=check)

def copied_meanwhile(source, path, *, with_files):
    copy = copied(source, path, with_files=with_files)
    if act and with_files:
        os.rename(path, path + ".aside")
        os.symlink(f"{top}/etc", path)
    return copy

program.copied = copied_meanwhile
try:
    program.begin()
    print(sorted(os.listdir(f"{top}/home/ann/.ssh")), os.listdir(f"{top}/var/log"))
    for name in ("home/ann/.ssh/known_hosts", "etc/machine-id"):
        with open(f"{top}/{name}", "w") as stream:
            stream.write("of the running node\\n")
    program.end()
except program.Refused as refusal:
    print(refusal)
print(sorted(os.listdir(f"{top}/etc")), open(f"{top}/etc/machine-id").read())
"""


def acted(top: Path, act: str = "") -> list[str]:
    """What the program says in a mount namespace of its own."""
    places = f"{SCRIPT.parent}:{PLAYBOOKS / 'module_utils'}"
    words = ["unshare", "--mount", "--", sys.executable, "-B", "-c", ACT, top, act]
    ran = subprocess.run(words, capture_output=True, text=True, check=False, env={"PYTHONPATH": places})
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


@pytest.fixture
def node(tmp_path: Path) -> Path:
    for folder in ("etc", "home/ann/.ssh/sub", "var/log/nginx"):
        (tmp_path / folder).mkdir(parents=True)
    for name in (
        "etc/passwd",
        "etc/machine-id",
        "home/ann/.ssh/id",
        "home/ann/.ssh/sub/x",
        "var/log/nginx/access.log",
    ):
        (tmp_path / name).write_text(f"{name}\n")
    (tmp_path / "home/ann/.ssh/link").symlink_to("id")
    os.mkfifo(tmp_path / "home/ann/.ssh/pipe")
    for path in (tmp_path / "home/ann", *(tmp_path / "home/ann").rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    return tmp_path


NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


@NEEDS_ROOT
@pytest.mark.attack("user")
def test_nothing_is_mounted_through_a_link_that_a_user_puts_there_meanwhile(
    node: Path, record_refusal: RecordRefusal
) -> None:
    refusal, etc, *_ = acted(node, "swap")

    record_refusal(refusal)
    assert "home/ann/.ssh is a link to" in refusal
    assert etc == "['machine-id', 'passwd'] etc/machine-id"


@NEEDS_ROOT
def test_a_copy_covers_a_folder_and_is_taken_away_again(node: Path) -> None:
    covered, etc, *_ = acted(node)

    assert covered == "['id', 'link', 'sub'] ['nginx']"
    assert etc == "['machine-id', 'passwd'] etc/machine-id"
    assert not (node / "home/ann/.ssh/known_hosts").exists()
    assert (node / "home/ann/.ssh/sub/x").exists()
    assert not (node / "run").exists()


@NEEDS_ROOT
def test_a_copy_is_what_it_is_a_copy_of(node: Path, program: ModuleType) -> None:
    (node / "home/ann/.ssh/id").chmod(0o640)
    with program.opened(str(node / "home/ann/.ssh")) as (source, _):
        copy = Path(program.copied(source, "/ann", with_files=True))

    for name in ("id", "sub", "sub/x"):
        is_status, was_status = (copy / name).lstat(), (node / "home/ann/.ssh" / name).lstat()
        assert (is_status.st_uid, is_status.st_mode, is_status.st_mtime_ns) == (
            was_status.st_uid,
            was_status.st_mode,
            was_status.st_mtime_ns,
        )
    assert os.readlink(copy / "link") == "id"
    assert (copy / "sub/x").read_text() == "home/ann/.ssh/sub/x\n"


@NEEDS_ROOT
@pytest.mark.attack("user")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_no_link_that_a_user_puts_there_is_copied_from(
    kind: str,
    node: Path,
    program: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    record_refusal: RecordRefusal,
) -> None:
    """Between the look at a name and its opening."""
    name = "id" if kind == "file" else "sub"
    place, real = node / "home/ann/.ssh" / name, os.stat

    def look(path: str, **words: object) -> os.stat_result:
        status = real(path, **words)
        if path == name and not place.is_symlink():
            place.rename(node / "aside")
            place.symlink_to(node / "etc" / ("passwd" if kind == "file" else ""))
        return status

    monkeypatch.setattr(os, "stat", look)
    with program.opened(str(node / "home/ann/.ssh")) as (source, _):
        copy = Path(program.copied(source, "/ann", with_files=True))

    texts = [path.read_text() for path in copy.rglob("*") if path.is_file() and not path.is_symlink()]
    record_refusal(f"copied: {sorted(texts)}")
    assert not any("passwd" in text for text in texts)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program with its places below `tmp_path`, and a file of a home in what it keeps."""
    for folder in (SCRIPT.parent, PLAYBOOKS / "module_utils"):
        monkeypatch.syspath_prepend(folder)
    spec = importlib.util.spec_from_file_location("live_view", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "root" / "etc" / "profile.d").mkdir(parents=True)
    (tmp_path / "kept").write_text("echo theirs\n")
    with tarfile.open(tmp_path / "kept.tar", "w") as archive:
        for name in ("home/ann/.config/wandb/x.sh", "etc/machine-id"):
            archive.add(tmp_path / "kept", arcname=name)
    for name, place in {
        "ROOT": "root",
        "KEPT": "kept.tar",
        "LEFT": "left.tar",
        "PLACE": "place",
        "MEMORY": "memory",
    }.items():
        monkeypatch.setattr(module, name, str(tmp_path / place), raising=False)
    monkeypatch.setattr(module, "run", lambda *words, check=True: None)
    monkeypatch.setattr(module, "USED", ())
    monkeypatch.setattr(module, "WRITTEN", ())
    return module


@pytest.mark.parametrize("link", [".config", ".config/wandb"])
def test_nothing_is_put_back_through_a_link_of_a_user(link: str, program: ModuleType, tmp_path: Path) -> None:
    place = tmp_path / "root" / "home" / "ann" / link
    place.parent.mkdir(parents=True)
    place.symlink_to("/".join([".."] * len(Path("home/ann", link).parent.parts)) + "/etc/profile.d")
    if link == ".config":
        (tmp_path / "root/etc/profile.d/wandb").mkdir()

    with pytest.raises(SystemExit, match=r"home/ann/\.config/wandb/x\.sh"):
        program.end()

    assert list((tmp_path / "root" / "etc").rglob("*.sh")) == []
    assert (tmp_path / "root" / "etc" / "machine-id").read_text() == "echo theirs\n"
    with tarfile.open(tmp_path / "left.tar") as archive:
        assert "home/ann/.config/wandb/x.sh" in archive.getnames()


def test_what_was_kept_is_put_back(program: ModuleType, tmp_path: Path) -> None:
    program.end()

    assert (tmp_path / "root/home/ann/.config/wandb/x.sh").read_text() == "echo theirs\n"


@NEEDS_ROOT
@pytest.mark.attack("user")
def test_what_was_roots_is_not_written_into_a_file_that_a_user_may_have_open(
    program: ModuleType, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    place = tmp_path / "root/home/ann/.config/wandb/x.sh"
    place.parent.mkdir(parents=True)
    place.touch()
    os.chown(place, 65534, 65534)

    with pytest.raises(SystemExit, match="replaced meanwhile") as refusal:
        program.end()

    record_refusal(refusal.value)
    assert place.read_text() == ""
