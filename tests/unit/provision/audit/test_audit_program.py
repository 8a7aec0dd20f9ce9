"""What the audit's program reads of this machine, and what it makes of a link."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from provision.audit import audit_program
from provision.audit.findings import Expected
from provision.audit.look import _judged, answer_of
from provision.nodes.node_record import _proof
from tests.conftest import RecordRefusal

_FIELDS = [field.name for field in fields(Expected)]


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


def test_a_key_behind_the_first_megabyte_is_told_and_a_file_beyond_the_limit_is_named(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = []
    for name in ("padded", "large", "folder"):
        keys = tmp_path / name / ".ssh" / "authorized_keys"
        keys.parent.mkdir(parents=True)
        users.append(pwd.struct_passwd((name, "x", 0, 0, "", str(tmp_path / name), "/bin/sh")))
    (tmp_path / "padded/.ssh/authorized_keys").write_text(("#" * 99 + "\n") * 10_600 + "ssh-rsa EVIL\n")
    (tmp_path / "large/.ssh/authorized_keys").touch()
    os.truncate(tmp_path / "large/.ssh/authorized_keys", 3 << 30)
    (tmp_path / "folder/.ssh/authorized_keys").mkdir()
    monkeypatch.setattr(program.pwd, "getpwall", lambda: users)

    found = program._keys(".ssh/authorized_keys")

    assert [(one["user"], one["number"], one["line"]) for one in found] == [
        ("padded", 10_601, "ssh-rsa EVIL"),
        ("large", 0, "large"),
    ]


def test_what_lets_in_under_a_match_is_told_with_its_place(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the name of a link, and after an included file, which ends its own Match."""
    monkeypatch.setattr(program, "_SSHD_CONFIG", str(tmp_path / "sshd_config"))
    (tmp_path / "sshd_config.d").mkdir()
    (tmp_path / "elsewhere").write_text(
        "Match User root\n  AuthorizedKeysFile /var/cache/.k\nPermitRootLogin no\n"
    )
    (tmp_path / "sshd_config.d" / "90-x.conf").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "sshd_config").write_text(
        "Include sshd_config.d/*.conf\nPermitRootLogin yes\n#Match all\nmatch=Address 192.0.2.1\n"
        "X11Forwarding yes\npasswordauthentication yes\n"
    )

    found = program._matches(str(tmp_path / "sshd_config"))

    assert [(Path(one["path"]).name, one["number"], one["match"], one["setting"]) for one in found] == [
        ("90-x.conf", "2", "User root", "AuthorizedKeysFile /var/cache/.k"),
        ("sshd_config", "6", "Address 192.0.2.1", "passwordauthentication yes"),
    ]


MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - overlay overlay rw
28 27 0:25 / /run rw,nosuid,nodev - tmpfs tmpfs rw
29 27 254:1 / /data rw,relatime shared:2 - xfs /dev/vdb rw
30 27 254:1 / /also rw,relatime - xfs /dev/vdb rw
31 27 0:30 / /srv/a\\040part rw - tmpfs x rw
32 27 7:1 / /snap/core20/1 ro,nodev - squashfs /dev/loop1 ro
33 27 0:40 / /home rw - nfs4 server:/home rw
34 27 0:41 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw
"""


def test_programs_are_looked_for_on_every_disk_of_the_machine(program: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)

    assert program._local_mounts(str(tmp_path / "mountinfo")) == ["/", "/data", "/srv/a part"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives such rights")
def test_a_program_with_a_users_or_with_capabilities_is_told(program: ModuleType, tmp_path: Path) -> None:
    for name in ("plain", "shell", "group", "able"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "shell").chmod(0o4755)
    (tmp_path / "group").chmod(0o2755)
    # cap_setuid and, of the second 32, cap_bpf; version 2
    os.setxattr(
        tmp_path / "able", "security.capability", struct.pack("<5I", 0x02000001, 1 << 7, 0, 1 << 7, 0)
    )

    found = program._setuid({str(tmp_path / "shell")}, [str(tmp_path)])

    assert [(Path(one["path"]).name, one["mode"], one["capabilities"], one["packaged"]) for one in found] == [
        ("able", 0, 1 << 7 | 1 << 39, False),
        ("group", 0o2000, 0, False),
        ("shell", 0o4000, 0, True),
    ]


@pytest.mark.attack("user")
def test_what_one_user_leaves_in_his_home_neither_fills_the_memory_nor_silences_the_node(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_refusal: RecordRefusal
) -> None:
    keys = tmp_path / ".ssh"
    keys.mkdir()
    for number in range(500):
        with (keys / f"{number}.pub").open("wb") as file:
            file.truncate(1 << 20)  # of holes: a word of a MiB, and nothing on the disk
    (keys / "authorized_keys").write_bytes(b"a\n" * (1 << 18))
    (keys / "authorized_keys2").write_bytes(b"\1" * (1 << 20))
    user = pwd.struct_passwd(("one", "x", os.geteuid(), os.getegid(), "", str(tmp_path), "/bin/sh"))
    monkeypatch.setattr(program.pwd, "getpwall", lambda: [user])

    own = program._own_keys()
    found = program._keys(".ssh/authorized_keys .ssh/authorized_keys2")
    said = len(json.dumps([own, found]))

    record_refusal(f"{len(found)} lines of keys, {said >> 20} MiB said, of which the controller hears 16")
    assert not [path for path in own if path.startswith(str(tmp_path))]
    assert found[0] == {"user": "one", "path": str(keys / "authorized_keys"), "number": 0, "line": "large"}
    assert said < 8 << 20


@pytest.mark.attack("node")
def test_a_node_whose_answer_is_nested_is_named_and_ends_nothing(record_refusal: RecordRefusal) -> None:
    """It is read where few calls stand on the stack, and shown where many do."""

    def asked(depth: int) -> Any:
        nested = "[" * depth + "]" * depth
        own = '"sshd": {"authorizedkeyscommand": "none", "trustedusercakeys": "none"}, "own_keys": {}'
        text = f'"keys": [{{"path": {nested}, "number": 1, "line": "", "user": ""}}]'
        try:
            return answer_of(f'{{{own}, "matches": [], {text}}}')
        except ValueError:
            return asked(depth - 5)

    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(asked, 1200).result()
    certificate = {"issued": told["keys"][0]["path"], "expires": "2026-01-01T00:00:00+00:00", "nodes": []}

    def below(calls: int, shown: Callable[[], Any]) -> Any:
        return below(calls - 1, shown) if calls else shown()

    expected = Expected(**dict.fromkeys(_FIELDS, frozenset()))  # type: ignore[arg-type]
    found = below(100, lambda: _judged("te3", told, expected, {}))

    record_refusal(found[0])
    assert found[0].why.startswith("it was not audited: it does not answer as asked (RecursionError")
    assert below(100, lambda: _proof(certificate, datetime.now(UTC))) is None
