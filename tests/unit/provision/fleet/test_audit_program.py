"""What the audit's program reads of this machine, and what it makes of a link."""

from __future__ import annotations

import importlib.util
import os
import pwd
from pathlib import Path
from types import ModuleType

import pytest

from provision.fleet import audit_program
from provision.fleet.audit import answer_of
from tests.conftest import RecordRefusal


@pytest.fixture
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit_program", audit_program.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_line_of_a_users_keys_is_told_with_its_number_and_a_link_is_not_followed(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "one" / ".ssh" / "authorized_keys"
    keys.parent.mkdir(parents=True)
    keys.write_bytes(b"# a comment\n\nssh-rsa A\x0c\r\nssh-rsa B")
    link = tmp_path / "two" / ".ssh" / "authorized_keys"
    link.parent.mkdir(parents=True)
    link.symlink_to("/etc/passwd")
    users = [
        pwd.struct_passwd((name, "x", os.geteuid(), os.getegid(), "", str(tmp_path / name), "/bin/sh"))
        for name in ("one", "two", "three")
    ]
    monkeypatch.setattr(program.pwd, "getpwall", lambda: users)

    found = program._keys(".ssh/authorized_keys %h/.ssh/authorized_keys")

    assert found == [
        {"user": "one", "path": str(keys), "number": 3, "line": "ssh-rsa A\x0c"},
        {"user": "one", "path": str(keys), "number": 4, "line": "ssh-rsa B"},
        {"user": "two", "path": str(link), "number": 0, "line": ""},
    ]


def test_a_setuid_file_of_a_package_is_packaged_under_both_names(program: ModuleType) -> None:
    packaged = program._packaged()

    assert program._MERGED.sub("", "/usr/bin/passwd") in packaged
    assert program._MERGED.sub("", "/bin/su") in packaged
    assert program._MERGED.sub("", "/usr/local/bin/passwd") not in packaged


def test_a_listener_of_this_machine_is_told_with_its_program(program: ModuleType) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        (found,) = [one for one in program._listeners(set()) if one["port"] == port]

    assert (found["protocol"], found["address"]) == ("tcp", "127.0.0.1")
    assert found["exe"] == os.readlink("/proc/self/exe")
    assert found["packaged"] is False


def test_modes_are_those_on_the_disk(program: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("x")
    (tmp_path / "key").chmod(0o644)

    (found,) = program._modes([str(tmp_path / "*"), str(tmp_path / "absent")])

    assert (found["path"], found["mode"]) == (str(tmp_path / "key"), 0o644)


@pytest.mark.attack("node")
@pytest.mark.parametrize(
    "said", ["", "{}", "[]", "5", '{"own_keys": []}', '{"own_keys": {"a": []}}', "[" * 100_000]
)
def test_an_answer_that_is_none_is_refused(said: str, record_refusal: RecordRefusal) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        answer_of(said)
    record_refusal(refusal.value)
