"""The program that looks for one machine's traces in an image, on trees of a few files."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import io
import json
import lzma
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.images.programs import secret_kinds
from tests.conftest import RecordRefusal
from tests.unit.playbooks.trees import Tree, archive

ROOT = Path(__file__).parents[3]
ROLES = ROOT / "playbooks" / "roles"
SCRIPT = ROLES / "image_cleanup" / "files" / "image_tree.py"
DIGEST = ROLES / "conda_env" / "files" / "environment_digest.py"
CASES = ROOT / "tests" / "cases" / "image"
SPOILT: dict[str, dict[str, Any]] = yaml.safe_load((CASES / "spoilt.yml").read_text())
SECRET_CASES: dict[str, dict[str, Any]] = yaml.safe_load((CASES / "secrets.yml").read_text())
CLEAN: dict[str, str] = yaml.safe_load((CASES / "clean.yml").read_text())["files"]


@pytest.mark.parametrize("name", SPOILT)
def test_what_spoils_an_image_is_named(name: str, tmp_path: Path) -> None:
    case = SPOILT[name]

    found = Tree(tmp_path, {**CLEAN, **case["files"]}).run("scan")

    assert case["finding"] in [[one["rule"], one["path"]] for one in found]
    assert {one["mended"] for one in found} == {"cleaned" in case}
    assert {one["path"] for one in found} == set(case["files"])


@pytest.mark.parametrize("name", SPOILT)
def test_cleaning_mends_it_or_leaves_it_to_a_person(name: str, tmp_path: Path) -> None:
    case = SPOILT[name]
    tree = Tree(tmp_path, case["files"])

    tree.run("clean")

    assert tree.files() == case.get("cleaned", case["files"])
    assert bool(tree.run("scan")) == ("cleaned" not in case)


def test_what_an_image_may_hold_is_not_named_and_not_touched(tmp_path: Path) -> None:
    tree = Tree(tmp_path, CLEAN)

    tree.run("clean")

    assert tree.run("scan") == []
    assert tree.files() == CLEAN


def test_every_rule_has_a_case_that_breaks_it() -> None:
    rules = set(re.findall(r'^    \(\s*"([a-z-]+)",', SCRIPT.read_text(), re.MULTILINE))
    table = json.loads(secret_kinds())
    rules |= {one["kind"] for part in table.values() for one in part} | {
        "set-secret",
        "swap",
        "key-elsewhere",
        "data-disk",
    }

    broken = {case["finding"][0] for case in SPOILT.values()}
    assert broken | {case["kind"] for case in SECRET_CASES.values()} == rules


def test_what_makes_the_machine_itself_is_kept_and_an_older_archive_is_not_replaced(tmp_path: Path) -> None:
    files = {
        "etc/machine-id": "b08d",
        "root/.ssh/authorized_keys": "ssh-ed25519 A",
        "data/.netrc": "x",
        "tmp/y": "y",
        "var/log/z": "z",
    }
    tree, keep = Tree(tmp_path, files), tmp_path / "kept.tar"

    tree.run("clean", "--keep", keep)
    first = keep.read_bytes()
    tree.run("clean", "--keep", keep)

    with tarfile.open(keep) as archive:
        assert archive.getnames() == ["data/.netrc", "etc/machine-id", "root/.ssh/authorized_keys"]
    assert keep.read_bytes() == first
    assert keep.stat().st_mode & 0o777 == 0o600


def test_an_image_without_a_manifest_is_none(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {})
    tree.place("etc/clusterwright/image.json").unlink()

    assert tree.run("scan") == [
        {
            "rule": "manifest",
            "path": "etc/clusterwright/image.json",
            "found": "there is none",
            "mended": False,
        }
    ]


def with_environment(folder: Path, **image: str) -> tuple[Tree, Path, str]:
    tree = Tree(folder, {"data/miniconda3/envs/llm/lib/module.py": "a = 1\n"}, image)
    prefix = tree.place("data/miniconda3/envs/llm")
    words = [sys.executable, DIGEST, "--prefix", prefix, "--record", "--built-from", "locks"]
    recorded = subprocess.run(words, capture_output=True, text=True, check=True)
    return tree, prefix, json.loads(recorded.stdout)["digest"]


def test_an_environment_with_one_changed_file_is_named_with_that_file(tmp_path: Path) -> None:
    tree, prefix, _ = with_environment(tmp_path)
    before = tree.run("scan", "--digest-script", DIGEST)
    (prefix / "lib" / "module.py").write_text("a = 2\n")

    after = tree.run("scan", "--digest-script", DIGEST)

    assert before == []
    assert [(one["rule"], one["found"]) for one in after] == [("environment", "changed lib/module.py")]


@pytest.mark.parametrize("prefix", ["/srv/scratch/conda/envs/llm", "/srv/scratch/llm", "/opt/[llm]"])
def test_an_environment_of_another_place_is_held_against_its_record_too(prefix: str, tmp_path: Path) -> None:
    name = prefix.replace("/srv/scratch/", "data/").lstrip("/")
    files = {
        f"{name}/module.py": "a = 1\n",
        "etc/clusterwright/environment.json": f'{{"prefix": "{prefix}"}}',
    }
    tree = Tree(tmp_path, files, {"data_path": "/srv/scratch"})
    words = [sys.executable, DIGEST, "--prefix", tree.place(name), "--record", "--built-from", "locks"]
    subprocess.run(words, capture_output=True, check=True)
    before = tree.run("scan", "--digest-script", DIGEST)
    (tree.place(name) / "module.py").write_text("a = 2\n")

    after = tree.run("scan", "--digest-script", DIGEST)

    assert before == []
    assert [(one["path"], one["found"]) for one in after] == [(name, "changed module.py")]


def test_the_data_disk_of_another_place_is_taken_out_of_fstab_too(tmp_path: Path) -> None:
    kept = "UUID=1-2 / ext4 defaults 0 1\nUUID=5-6 /data ext4 noatime 0 2\n"
    disk = "UUID=3-4 /srv/scratch ext4 noatime,nofail 0 2\n"
    tree = Tree(tmp_path, {"etc/fstab": kept + disk}, {"data_path": "/srv/scratch"})
    before = tree.run("scan")

    tree.run("clean")

    assert [one["rule"] for one in before] == ["data-disk"]
    assert tree.files() == {"etc/fstab": kept}


@pytest.mark.attack("file")
def test_a_program_of_an_environment_that_runs_as_its_owner_is_named(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    tree, prefix, _ = with_environment(tmp_path)
    (prefix / "lib" / "module.py").chmod(0o4644)

    (found,) = tree.run("scan", "--digest-script", DIGEST)

    record_refusal(found["found"])
    assert found["rule"] == "environment"
    assert found["found"].startswith("open lib/module.py (mode 4644")


def test_another_environment_than_the_manifests_is_named(tmp_path: Path) -> None:
    tree, _, _ = with_environment(tmp_path, environment_name="llm", environment="0123456789abcdef")

    (found,) = tree.run("scan", "--digest-script", DIGEST)

    assert "the manifest says 0123456789ab" in found["found"]


TOKEN = "hf_abcdefghijklmnopqrstuvwxyzABCDEF"


def zipped(name: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as members:
        members.writestr(name, "x")
    return packed.getvalue()


BYTES = {
    "@SWAP@": bytes(4086) + b"SWAPSPACE2",
    "@CORE@": b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x04\x00" + bytes(100),
    "@VIM@": b"b0VIM 9.0" + bytes(50) + b"-----BEGIN OPENSSH PRIVATE KEY-----\0",
    "@BYTES@": bytes(9) + b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n",
    "@DER@": bytes.fromhex("30820122020100300d06092a864886f70d0101010500"),
    "@TAR@": archive("./home/ann/notes.txt", f"{'long' * 40}/.netrc"),
    "@GZ@": gzip.compress(f"HF_TOKEN={TOKEN}\n".encode()),
    "@XZ@": lzma.compress(f"HF_TOKEN={TOKEN}\n".encode()),
    "@BZ2@": bz2.compress(f"HF_TOKEN={TOKEN}\n".encode()),
    "@TGZ@": gzip.compress(archive("ann/.netrc")),
    "@ZIP@": zipped("ann/.netrc"),
    "@RUN@": b":W&B\0\0\x08%" + TOKEN.encode() + b"\0",
    "@SQLITE@": b"SQLite format 3\0" + bytes(99) + b"\x03\x01W" + TOKEN.encode(),
    "@ZERO@": b"\0HF_TOKEN=" + TOKEN.encode(),
    "@UTF16@": "token hf_abcdefghijklmnopqrstuvwxyzABCDEF\r\n".encode("utf-16"),
}


def planted(folder: Path) -> Tree:
    """A tree with every secret in its place."""
    tree = Tree(folder, {**CLEAN, **{case["path"]: "" for case in SECRET_CASES.values()}})
    for case in SECRET_CASES.values():
        tree.place(case["path"]).write_bytes(BYTES.get(case["text"]) or case["text"].encode())
    return tree


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = planted(tmp_path_factory.mktemp("planted")).run("scan")
    return found


@pytest.mark.attack("left behind")
@pytest.mark.parametrize("name", SECRET_CASES)
def test_a_secret_is_found_wherever_it_lies(
    name: str, found: list[dict[str, Any]], record_refusal: RecordRefusal
) -> None:
    case = SECRET_CASES[name]

    of_path = {one["rule"]: one["mended"] for one in found if one["path"] == case["path"]}

    for one in found:
        if one["path"] == case["path"]:
            record_refusal(f"/{one['path']}: {one['rule']}: {one['found']}")
    assert case["kind"] in of_path
    assert set(of_path.values()) == {case["mended"]}


def test_nothing_but_the_secrets_is_found_and_none_is_told(found: list[dict[str, Any]]) -> None:
    told = json.dumps(found)

    assert {one["path"] for one in found} == {case["path"] for case in SECRET_CASES.values()}
    assert [text for text in ("a8Kq2Zx9", "hunter2", "s3cret", "glpat-", "hf_abc") if text in told] == []


def test_cleaning_takes_what_is_known_and_leaves_the_rest_to_a_person(tmp_path: Path) -> None:
    tree = planted(tmp_path)

    tree.run("clean", "--keep", tmp_path / "kept.tar")

    left = {case["path"] for case in SECRET_CASES.values() if tree.place(case["path"]).exists()}
    assert left == {case["path"] for case in SECRET_CASES.values() if not case["mended"]}


def test_what_the_image_may_hold_by_name_is_left_alone(tmp_path: Path) -> None:
    files = dict.fromkeys(("etc/ssl/demo.pem", "srv/a/b", "srv/ab"), "-----BEGIN PRIVATE KEY-----\nMIIE\n")
    tree = Tree(tmp_path, files, {"allowed": ["/etc/ssl/demo.pem", "srv/a"]})

    assert [one["path"] for one in tree.run("scan")] == ["srv/ab"]


def test_what_is_packed_and_no_secret_is_left_alone(tmp_path: Path) -> None:
    names = (
        "home/ann/log.gz",
        "home/ann/home.tgz",
        "data/model.pt",
        "data/cut.gz",
        "data/cut.xz",
        "data/bypass",
    )
    tree = Tree(tmp_path, dict.fromkeys(names, ""))
    packed = gzip.compress(b"loss 1.0\ntoken = tokenizer.encode(text)\n")
    texts = (
        packed,
        gzip.compress(archive("notes.txt")),
        zipped("archive/data.pkl"),
        packed[:20],
        b"\xfd7zXZ\0",
    )
    for name, text in zip(names, (*texts, b"forward_pass = compute_forward_2\n"), strict=True):
        tree.place(name).write_bytes(text)

    assert tree.run("scan") == []


@pytest.mark.attack("user")
def test_a_file_that_unpacks_to_itself_or_to_gigabytes_is_looked_at_once(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    tree = Tree(tmp_path, {"home/ann/zeros.gz": "", "home/ann/nested.gz": ""})
    tree.place("home/ann/zeros.gz").write_bytes(gzip.compress(bytes(1 << 28)))
    tree.place("home/ann/nested.gz").write_bytes(gzip.compress(gzip.compress(TOKEN.encode())))

    found = tree.begin("scan")

    record_refusal(f"status {found.returncode}: {found.stdout.strip()}")
    assert (found.returncode, json.loads(found.stdout)) == (0, [])


@pytest.mark.attack("left behind")
def test_a_secret_at_either_end_of_a_large_file_is_found(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    """As a file beyond 64 MiB, where what is read at once is a sixty-fourth of that."""
    tree, most = Tree(tmp_path, {"data/first.txt": "", "data/last.txt": ""}), "MOST_BYTES = 64 << 20"
    assert tree.program.count(most) == 1
    tree.program = tree.program.replace(most, "MOST_BYTES = 1 << 20")
    filling, token = b"word word\n" * (1 << 17), b"hf_abcdefghijklmnopqrstuvwxyzABCDEF\n"
    tree.place("data/first.txt").write_bytes(token + filling)
    tree.place("data/last.txt").write_bytes(filling + token)

    found = tree.run("scan")
    for one in found:
        record_refusal(f"/{one['path']}: {one['found']}")
    assert [one["path"] for one in found] == ["data/first.txt", "data/last.txt"]


@pytest.mark.attack("user")
def test_no_link_that_a_user_puts_there_meanwhile_is_kept_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_refusal: RecordRefusal
) -> None:
    """What is kept is put back as the user's own file."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    spec = importlib.util.spec_from_file_location("image_tree", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    place, real = tmp_path / "authorized_keys", os.stat
    place.write_text("ssh-ed25519 A\n")
    (tmp_path / "shadow").write_text("root's\n")

    def look(path: str, **words: Any) -> os.stat_result:
        status = real(path, **words)
        if path == place.name and not place.is_symlink():
            place.unlink()
            place.symlink_to(tmp_path / "shadow")
        return status

    monkeypatch.setattr(os, "stat", look)
    kept = {str(place): "home/ann/.ssh/authorized_keys"}
    with pytest.raises(SystemExit, match="symbolic links") as refusal:
        module.save(kept, str(tmp_path / "kept.tar"), [str(tmp_path)])

    record_refusal(refusal.value)
    assert not (tmp_path / "kept.tar").exists()


def test_links_are_kept_as_links(tmp_path: Path) -> None:
    tree, keep = Tree(tmp_path, {}), tmp_path / "kept.tar"
    place = tree.place("etc/ssh/ssh_host_rsa_key")
    place.parent.mkdir(parents=True)
    place.symlink_to("elsewhere")

    tree.run("clean", "--keep", keep)

    with tarfile.open(keep) as archive:
        assert [(one.name, one.linkname) for one in archive] == [("etc/ssh/ssh_host_rsa_key", "elsewhere")]
    assert not place.is_symlink()


@pytest.mark.attack("image")
def test_cleaning_follows_no_link_that_takes_a_files_place(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    tree = Tree(tmp_path, {"etc/passwd": "root:x:0:0\n", "home/ann/.ssh/x": ""})
    tree.place("home/ann/.ssh/authorized_keys").symlink_to(tree.place("etc/passwd"))
    tree.place("home/ann/.aws").symlink_to(tree.place("etc"))

    tree.run("clean")

    record_refusal(f"/etc/passwd holds {tree.files()['etc/passwd']!r}")
    assert tree.files()["etc/passwd"] == "root:x:0:0\n"
