"""The parts of the first boot that decide: which disk, which line of /etc/fstab, which controller."""

from __future__ import annotations

import importlib.util
import os
import pwd
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.conftest import RecordRefusal

SCRIPT = Path(__file__).parents[3] / "playbooks" / "roles" / "image_cleanup" / "files" / "first_boot.py"
IMAGE = {
    "id": "te1-1",
    "data_path": "/data",
    "data_label": "cw-data",
    "data_options": "noatime,nofail,x-systemd.device-timeout=30s",
}
OURS = {"LABEL": "cw-data", "TYPE": "ext4", "UUID": "u1"}


@pytest.fixture
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("first_boot", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "before",
    [
        "",
        "UUID=1 / ext4 defaults 0 1\n",
        "# kept\nUUID=old /data ext4 noatime 0 2\n",
        "LABEL=x /data xfs a 0 0\n",
    ],
)
def test_fstab_has_the_data_disk_once_as_the_role_writes_it(program: ModuleType, before: str) -> None:
    after = program.fstab(before, "new", IMAGE)

    entry = "UUID=new /data ext4 noatime,nofail,x-systemd.device-timeout=30s 0 2\n"
    assert after.endswith(entry)
    assert after.count("/data") == 1
    assert after.removesuffix(entry) == "".join(
        line for line in before.splitlines(keepends=True) if "/data" not in line
    )
    assert program.fstab(after, "new", IMAGE) == after


def test_what_others_wrote_in_fstab_stays_with_its_mode_and_is_open_to_nobody_else(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A share's password may stand there."""
    path = tmp_path / "fstab"
    theirs = b"//nas/x /mnt cifs password=caf\xe9 0 0\r\n# old\x0cUUID=1 /data xfs a 0 0\n"
    path.write_bytes(theirs)
    path.chmod(0o600)
    monkeypatch.setattr(program, "FSTAB", str(path))
    monkeypatch.setattr(program, "disks", lambda: [{"path": "/dev/vdb", **OURS}])
    monkeypatch.setattr(program, "run", lambda *words: subprocess.CompletedProcess(words, 0, "Block size: 1"))
    monkeypatch.setattr(program, "grow", lambda path: "")
    monkeypatch.setattr(program, "own_uuid", lambda path: "new")
    monkeypatch.setattr(program, "usage", lambda path: "mounted")

    assert program.mount_data({**IMAGE, "data_path": str(tmp_path / "data")}) == "mounted"
    assert path.read_bytes().startswith(theirs)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_port_that_is_none_is_waited_for_and_ends_no_first_boot(program: ModuleType) -> None:
    with pytest.raises(program.UNUSABLE):
        program.own_address("127.0.0.1:99999")


@pytest.mark.parametrize(
    ("disks", "said"),
    [
        ([], "no disk has the label cw-data"),
        ([{"path": "/dev/vdb"}], "no disk has the label cw-data"),
        ([{"path": "/dev/vdb", **OURS, "TYPE": "xfs"}], "no disk has the label cw-data"),
        (
            [{"path": "/dev/vdb", **OURS}, {"path": "/dev/vdc", **OURS}],
            "2 disks have the label cw-data (/dev/vdb, /dev/vdc)",
        ),
    ],
)
def test_nothing_is_written_where_not_exactly_one_disk_is_ours(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, disks: list[dict[str, str]], said: str
) -> None:
    def refuse(*words: str) -> Any:
        raise AssertionError(f"it ran {words}")

    monkeypatch.setattr(program, "disks", lambda: disks)
    monkeypatch.setattr(program, "run", refuse)
    monkeypatch.setattr(program, "write", refuse)

    assert program.mount_data(IMAGE).startswith(said)


@pytest.fixture
def told(program: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, Path]:
    """Where user data and what the image says lie."""
    user, image = tmp_path / "user-data.txt", tmp_path / "join.json"
    monkeypatch.setattr(program, "JOIN", str(image))
    monkeypatch.setattr(program, "USER_DATA", (str(user), str(image)))
    return user, image


def test_user_data_speaks_before_the_image(program: ModuleType, told: tuple[Path, Path]) -> None:
    user, image = told
    image.write_text('{"controller": "10.0.0.1:8765", "controller_key": "k"}')
    without_a_token = program.told()
    user.write_text("#cloud-config\npackages: []\n")
    other_user_data = program.told()
    user.write_text('{"token": "i.s"}')
    its_token = program.told()
    user.write_text('{"controller": "10.0.0.2:8765", "token": "i.s"}')

    assert without_a_token == other_user_data == {}
    assert its_token == {"controller": "10.0.0.1:8765", "token": "i.s", "controller_key": "k"}
    assert program.told()["controller"] == "10.0.0.2:8765"


def test_a_secret_of_an_earlier_version_is_not_shown_to_anybody(
    program: ModuleType, told: tuple[Path, Path]
) -> None:
    told[0].write_text('{"controller": "10.0.0.1:8765", "secret": "of all"}')

    assert program.told() == {}
    assert "earlier version" in program.nothing_told()


def test_a_token_that_was_used_is_on_no_disk_and_what_is_not_ours_stays(
    program: ModuleType, told: tuple[Path, Path]
) -> None:
    user, image = told
    user.write_text('{"controller": "a:1", "token": "i.s"}')
    image.write_text('{"controller": "a:1", "controller_key": "k", "token": "i.s", "machines": []}')
    program.forget_token()

    assert not user.exists()
    assert program.json_of(str(image)) == {"controller": "a:1", "controller_key": "k"}
    user.write_text("#cloud-config\n")
    program.forget_token()
    assert user.exists()


def test_a_boot_that_was_cut_off_after_it_had_its_name_still_forgets_its_token(
    program: ModuleType, told: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told[0].write_text('{"controller": "a:1", "token": "i.s"}')
    monkeypatch.setattr(program, "CONFIG", str(tmp_path))
    monkeypatch.setattr(program, "STATE", str(tmp_path / "state.json"))
    monkeypatch.setattr(program, "machine", lambda: "one")
    (tmp_path / "image.json").write_text('{"image": {"id": "i"}}')
    (tmp_path / "state.json").write_text('{"machine": "one", "name": "te1"}')

    assert program.main() == 0
    assert not told[0].exists()


def test_what_another_machine_noted_counts_for_nothing(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(program, "STATE", str(tmp_path / "state.json"))
    monkeypatch.setattr(program, "machine", lambda: "one")
    program.note(name="te1")
    monkeypatch.setattr(program, "machine", lambda: "two")

    program.note(data="mounted")

    assert program.json_of(program.STATE) == {"machine": "two", "data": "mounted"}


@pytest.mark.attack("network")
def test_whoever_answers_in_the_controllers_place_says_one_printable_line(
    program: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    record_refusal: RecordRefusal,
) -> None:
    monkeypatch.setattr(program, "STATE", str(tmp_path / "state.json"))

    program.note(
        joined="waits for a:1: 403 \x1b]0;owned\x07\x1b[2J\x9b31m\r\nname: te1\u2028\u202e" + "x" * 9999
    )

    said = capsys.readouterr().out
    record_refusal(said)
    assert said.count("\n") == 1
    assert said.removesuffix("\n").isprintable()
    assert len(said) < 1100
    assert program.json_of(program.STATE)["joined"].isprintable()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of `nobody`, beside a file that only root can read."""
    user, home = pwd.getpwnam("nobody"), tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    for path in (tmp_path, *tmp_path.parents):
        if path.owner() == "root" and str(path).startswith("/tmp/"):
            path.chmod(path.stat().st_mode | 0o011)
    for path in (home, home / ".ssh"):
        os.chown(path, user.pw_uid, user.pw_gid)
    (tmp_path / "secret").write_text("root's own secret\n")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "roots").mkdir()
    monkeypatch.setattr(os.path, "expanduser", lambda path: str(home))
    return home


def spare_the_host_name(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine keeps its own."""
    write = program.write
    monkeypatch.setattr(program, "run", lambda *words: None)
    monkeypatch.setattr(
        program, "write", lambda path, *rest: None if path == "/etc/hostname" else write(path, *rest)
    )


ANSWER = {"name": "te1", "authorized_key": "our key", "user": "nobody"}
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@NEEDS_ROOT
@pytest.mark.parametrize("trap", ["key", "folder", "fifo", "roots"])
def test_the_key_goes_through_nothing_that_a_user_left_in_the_image(
    trap: str, home: Path, program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, secret = home / ".ssh" / "authorized_keys", home.parent / "secret"
    if trap == "key":
        key.symlink_to(secret)
    elif trap == "folder":
        key.parent.rmdir()
        key.parent.symlink_to(home.parent / "roots")
    elif trap == "fifo":
        os.mkfifo(key)
    else:
        secret.rename(key)
    spare_the_host_name(program, monkeypatch)

    with pytest.raises(OSError, match=r"\.ssh"):
        program.take(ANSWER)

    assert list((home.parent / "roots").iterdir()) == []
    assert os.geteuid() == 0


@NEEDS_ROOT
def test_the_key_goes_into_the_users_own_file(
    home: Path, program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare_the_host_name(program, monkeypatch)
    (home / ".ssh").rmdir()

    program.take(ANSWER)
    program.take(ANSWER)

    key = home / ".ssh" / "authorized_keys"
    assert key.read_text() == "our key\n"
    assert [(path.owner(), path.stat().st_mode & 0o777) for path in (key, key.parent)] == [
        ("nobody", 0o600),
        ("nobody", 0o700),
    ]


@NEEDS_ROOT
@pytest.mark.parametrize(
    ("line", "is_known"),
    [("# our key", False), ("# of before:\x0cour key", False), ('from="10.0.0.0/8" our key', True)],
)
def test_a_line_that_counts_for_nothing_does_not_keep_the_key_out(
    home: Path, program: ModuleType, monkeypatch: pytest.MonkeyPatch, line: str, is_known: bool
) -> None:
    spare_the_host_name(program, monkeypatch)
    key = home / ".ssh" / "authorized_keys"
    key.write_text(line + "\n")
    os.chown(key, pwd.getpwnam("nobody").pw_uid, -1)

    program.take(ANSWER)

    assert key.read_text() == line + "\n" + ("" if is_known else "our key\n")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def without_end(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def link(path: Path) -> None:
    path.with_name("secret").write_text('{"controller": "x", "token": "y"}')
    path.symlink_to("secret")


def deep(path: Path) -> None:
    path.write_text("[" * 200_000)


TRAPS = [fifo, without_end, link, deep, Path.mkdir]


@pytest.mark.attack("user")
@pytest.mark.parametrize("trap", TRAPS)
def test_user_data_that_a_user_made_is_none(
    program: ModuleType, trap: Callable[[Path], None], tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    trap(tmp_path / "join.json")

    assert program.json_of(str(tmp_path / "join.json")) == {}
    record_refusal("read as empty")


@pytest.mark.attack("user")
@pytest.mark.parametrize("trap", TRAPS)
def test_the_next_file_with_a_secret_is_named_whatever_a_user_made_of_the_first(
    trap: Callable[[Path], None], tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    """Role runtime looks for what a first boot left: the user of jobs may write there."""
    variables = yaml.safe_load((SCRIPT.parents[2] / "runtime" / "vars" / "main.yml").read_text())
    first, second = tmp_path / "join.json", tmp_path / "left.json"
    trap(first)
    second.write_text('{"controller": "x", "token": "y"}')

    words = ["prlimit", f"--as={1 << 30}", *variables["runtime_join_secrets"][:3], first, second]
    named = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout

    record_refusal(f"named: {named.replace(str(tmp_path), '')}")
    assert named == f"{second}\n"
