"""What users do to hide from the look into an image, to end it, or to fill the memory beside it."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.conftest import RecordRefusal
from tests.unit.playbooks.trees import Tree, archive

OF_USERS = {
    "home/ann/.ssh/authorized_keys": "ssh-ed25519 A",
    "data/home/bob/.ssh/authorized_keys": "ssh-ed25519 A",
    "srv/app/.env": "DB_PASSWORD=hunter2\n",
    "opt/app/key.pem": "-----BEGIN PRIVATE KEY-----\n",
    "data/x/key.pem": "-----BEGIN PRIVATE KEY-----\n",
    "data/x/a\nb/.netrc": "machine x login y password z\n",
}
NAMES = json.dumps(
    [f"../../../{path.removeprefix('data/')}" for path in OF_USERS] + ["../key.pem", *OF_USERS]
)


@pytest.mark.attack("user")
@pytest.mark.parametrize(
    "record",
    [
        "data/home/eve/p/conda-meta/p.json",
        "data/x/y/z/conda-meta/p.json",
        "home/eve/p/conda-meta/p.json",
        "srv/eve/p/conda-meta/p.json",
    ],
)
def test_no_record_hides_what_lies_outside_its_folder(
    record: str, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    found = Tree(tmp_path, {**OF_USERS, record: f'{{"files": {NAMES}}}'}).run("scan")

    for one in found:
        record_refusal(f"/{one['path']}: {one['found']}")
    assert {one["path"] for one in found} == set(OF_USERS)


@pytest.mark.attack("user")
@pytest.mark.parametrize("foreign", ["srv/env", "srv/env/conda-meta", "srv/env/conda-meta/p.json"])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another user")
def test_a_record_counts_where_root_alone_can_write_it(
    foreign: str, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    secret, record = {"srv/env/key.pem": "-----BEGIN PRIVATE KEY-----\n"}, '{"files": ["key.pem"]}'
    tree = Tree(tmp_path, {**secret, "srv/env/conda-meta/p.json": record})
    of_root = tree.run("scan")
    os.chown(tree.place(foreign), 4321, 4321)
    of_user = tree.run("scan")
    os.chown(tree.place(foreign), 0, 0)
    tree.place(foreign).chmod(0o777)
    of_everybody = tree.run("scan")

    assert of_root == []
    for found in (of_user, of_everybody):
        assert [one["path"] for one in found] == list(secret)
        record_refusal(found[0]["found"])


def test_no_record_of_roots_hides_what_lies_where_a_rule_names_the_place(tmp_path: Path) -> None:
    files = {"data/.ssh/authorized_keys": "ssh-ed25519 A", "data/conda-meta/p.json": '{"files": ["%s"]}'}
    files["data/conda-meta/p.json"] %= ".ssh/authorized_keys"

    assert [one["path"] for one in Tree(tmp_path, files).run("scan")] == ["data/.ssh/authorized_keys"]


@pytest.mark.attack("user")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("conda-meta/p.json", '{"files": 5}'),
        ("conda-meta/p.json", '{"files": [1, null, {}]}'),
        ("conda-meta/p.json", "[" * 100_000),
        (".clusterwright/record.json", '{"entries": 5}'),
        ("x-1.dist-info/RECORD", f'"{"z" * 200_000}"\n'),
    ],
)
def test_a_record_that_is_none_claims_nothing(
    name: str, text: str, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    files = {"srv/env/key.pem": "-----BEGIN PRIVATE KEY-----\n", "srv/env/conda-meta/q.json": "{}"}

    (found,) = Tree(tmp_path, {**files, f"srv/env/{name}": text}).run("scan")

    record_refusal(f"/{found['path']}: {found['found']}")
    assert found["path"] == "srv/env/key.pem"


@pytest.mark.attack("user")
@pytest.mark.parametrize(("name", "depth", "is_named"), [("d" * 240, 20, True), ("d", 1500, False)])
def test_a_deep_folder_ends_no_scan_and_hides_nothing(
    name: str, depth: int, is_named: bool, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    tree = Tree(tmp_path, {"home/ann/x": ""})
    folder = os.open(tree.place("home/ann"), os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=folder)
        outer, folder = folder, os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(outer)
    with os.fdopen(os.open("key", os.O_WRONLY | os.O_CREAT, dir_fd=folder), "w") as stream:
        stream.write("-----BEGIN PRIVATE KEY-----\n")
    os.close(folder)

    (found,) = tree.run("scan")

    subprocess.run(["rm", "-rf", tree.place("home/ann")], check=True)
    record_refusal(f"/{found['path'][:40]}...: {found['found']}")
    assert (found["rule"], found["mended"]) == ("unread" if is_named else "private-key", False)


@pytest.mark.attack("left behind")
def test_authorised_keys_are_found_wherever_sshd_looks_for_them(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    """What the node's own sshd goes on reading while the disks are copied is not emptied, but refused."""
    key = "ssh-ed25519 AAAA eve\n"
    emptied = ["home/ann/.ssh/authorized_keys.bak", "etc/ssh/authorized_keys/root"]
    refused = [
        "home/dept/ann/.ssh/authorized_keys",
        "srv/home/bob/.ssh/authorized_keys2",
        "data/u/.ssh/authorized_keys",
        "data/home/ann/.ssh/authorized_keys",
        "data/.ssh/authorized_keys",
        "etc/keys/ann/allowed",
        "home/ann/.config/keys",
        "root/.logins",
    ]
    keys = [*emptied, *refused]
    configured = {
        "etc/ssh/sshd_config": "AuthorizedKeysFile .ssh/authorized_keys /etc/keys/%u/allowed # x\n",
        "etc/ssh/sshd_config.d/a.conf": 'Match User x\n authorizedkeysfile "%h/.config/keys" none .logins\n',
        "home/bob/.logins": "no key\n",
    }
    tree = Tree(tmp_path, {**dict.fromkeys(keys, key), **configured})
    found = tree.run("scan")

    tree.run("clean")

    for one in found:
        record_refusal(f"/{one['path']}: {one['found']}")
    assert {(one["rule"], one["path"], one["mended"]) for one in found} == {
        *(("authorised-key", path, True) for path in emptied),
        *(("key-elsewhere", path, False) for path in refused),
    }
    assert tree.files() == {**dict.fromkeys(emptied, ""), **dict.fromkeys(refused, key), **configured}


@pytest.mark.attack("user")
@pytest.mark.parametrize("where", ["size", "longer", "header"])
def test_an_archive_that_is_forged_ends_no_scan(
    where: str, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    packed = bytearray(archive(".netrc", "x"))
    tree = Tree(tmp_path, {"home/ann/x.tar": ""})
    if where == "header":
        packed[512 + 512 + 100 : 512 + 512 + 108] = b"zzzzzzzz"
    else:
        member = tarfile.TarInfo(".netrc")
        member.type, member.size = tarfile.GNUTYPE_LONGNAME if where == "longer" else b"0", 1 << 70
        packed[512:] = member.tobuf(tarfile.GNU_FORMAT)
    tree.place("home/ann/x.tar").write_bytes(packed)

    found = tree.run("scan")

    record_refusal(f"{found}")
    assert [one["rule"] for one in found] == ["hub-token"]


@pytest.mark.attack("user")
def test_a_name_of_many_endings_takes_no_longer(tmp_path: Path, record_refusal: RecordRefusal) -> None:
    names = [".bak~" * 50 + "x", "." + ".~1~" * 60 + "x", ".save" * 50 + "x", "~" * 250 + "x"]

    assert Tree(tmp_path, {f"home/ann/{name}": "x" for name in names}).run("scan") == []
    record_refusal("read")


@pytest.mark.attack("user")
@pytest.mark.parametrize(("sizes", "named"), [([1 << 40], 0), ([15 << 20] * 18, 17)])
def test_what_is_kept_fills_no_memory(
    sizes: list[int], named: int, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    names = [f"home/u{number:02}/.viminfo" for number in range(len(sizes))]
    tree, keep = Tree(tmp_path, dict.fromkeys(names, "x")), tmp_path / "kept.tar"
    for name, size in zip(names, sizes, strict=True):
        os.truncate(tree.place(name), size)

    refused = tree.begin("clean", "--keep", keep)

    record_refusal(refused.stderr.strip())
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"/{names[named]} cannot be kept (it has {sizes[named]} bytes")
    assert "Take it away" in refused.stderr
    assert all(tree.place(name).stat().st_size == size for name, size in zip(names, sizes, strict=True))
    assert list(tmp_path.glob("kept.tar*")) == []


@pytest.mark.attack("user")
@pytest.mark.parametrize("text", ["token", "sk-", "-eyJ", "://a:", "password ", "a.eyJ.", "curl -u "])
def test_no_text_begins_so_many_matches_that_the_look_ends_late(
    text: str, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    tree = Tree(tmp_path, {"home/ann/x": text * ((1 << 18) // len(text))})

    assert tree.run("scan") == []
    record_refusal("read to its end")
