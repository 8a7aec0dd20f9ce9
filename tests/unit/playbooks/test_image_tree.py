"""The program that looks for one machine's traces in an image, on trees of a few files."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.fleet.image_files import secret_kinds, tree_program
from tests.conftest import RecordRefusal

ROOT = Path(__file__).parents[3]
ROLES = ROOT / "playbooks" / "roles"
SECRETS = ("--secrets", secret_kinds())
SCRIPT = ROLES / "image_cleanup" / "files" / "image_tree.py"
DIGEST = ROLES / "conda_env" / "files" / "environment_digest.py"
CASES = ROOT / "tests" / "cases" / "image"
SPOILT: dict[str, dict[str, Any]] = yaml.safe_load((CASES / "spoilt.yml").read_text())
SECRET_CASES: dict[str, dict[str, Any]] = yaml.safe_load((CASES / "secrets.yml").read_text())
CLEAN: dict[str, str] = yaml.safe_load((CASES / "clean.yml").read_text())["files"]


class Tree:
    """A system disk and a data disk."""

    def __init__(self, folder: Path, files: dict[str, str], image: dict[str, Any] | None = None) -> None:
        self.root, self.data = folder / "root", folder / "data disk"
        (self.root / "data").mkdir(parents=True)
        self.data.mkdir()
        manifest = json.dumps({"image": {"id": "te1-1", **(image or {})}})
        for path, text in {**files, "etc/clusterwright/image.json": manifest}.items():
            place = self.place(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)

    def place(self, path: str) -> Path:
        return self.data / path.removeprefix("data/") if path.startswith("data/") else self.root / path

    def run(self, action: str, *words: str | Path) -> Any:
        finished = subprocess.run(
            [sys.executable, "-I", "-", action, "--root", self.root, "--data", self.data, *SECRETS, *words],
            input=tree_program(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode in (0, 1), finished.stderr
        found = json.loads(finished.stdout)
        assert action == "clean" or finished.returncode == bool(found)
        return found

    def files(self) -> dict[str, str]:
        found = {str(path.relative_to(self.root)): path for path in self.root.rglob("*")}
        found |= {f"data/{path.relative_to(self.data)}": path for path in self.data.rglob("*")}
        del found["etc/clusterwright/image.json"]
        return {name: path.read_text() for name, path in sorted(found.items()) if path.is_file()}


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
    rules |= {one["kind"] for part in table.values() for one in part} | {"set-secret", "swap"}

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


BYTES = {
    "@SWAP@": bytes(4086) + b"SWAPSPACE2",
    "@CORE@": b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x04\x00" + bytes(100),
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


@pytest.mark.attack("left behind")
def test_a_secret_at_either_end_of_a_large_file_is_found(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    tree = Tree(tmp_path, {"data/first.txt": "", "data/last.txt": ""})
    filling, token = b"word word\n" * (1 << 23), b"hf_abcdefghijklmnopqrstuvwxyzABCDEF\n"
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
    kept = [{"place": str(place), "path": "home/ann/.ssh/authorized_keys"}]
    with pytest.raises(OSError, match="symbolic links") as refusal:
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
