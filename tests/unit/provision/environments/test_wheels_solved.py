"""Wheels are solved by uv itself, from an index of this machine that says when each file was published."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from provision.environments.locks import Lock, State, lock_wheels, locks_of
from provision.environments.sources import fetched
from provision.environments.wheel_lock import apart
from provision.errors import BadInput, CommandFailed, ProvisionError

OLD, NEW = "2026-01-01T00:00:00Z", "2026-12-01T00:00:00Z"
ENVIRONMENT_YML = "name: mine\n"


class Quiet(SimpleHTTPRequestHandler):
    """Pages of an index as PEP 691 has them."""

    def guess_type(self, path: str | os.PathLike[str]) -> str:
        return (
            "application/vnd.pypi.simple.v1+json" if str(path).endswith("index.html") else "application/zip"
        )

    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index that a test adds wheels to; `address` is that of its folder of projects."""

    folder: Path
    address: str

    def add(self, name: str, version: str, *, needs: str = "", time: str = OLD, at: str = "simple") -> None:
        project = self.folder / at / name
        project.mkdir(parents=True, exist_ok=True)
        file = f"{name}-{version}-py3-none-any.whl"
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        about += f"Requires-Dist: {needs}\n" if needs else ""
        with zipfile.ZipFile(project / file, "w") as wheel:
            wheel.writestr(zipfile.ZipInfo(f"{name}-{version}.dist-info/METADATA"), about)
            wheel.writestr(zipfile.ZipInfo(f"{name}-{version}.dist-info/RECORD"), "")
        page = project / "index.html"
        files = json.loads(page.read_text())["files"] if page.exists() else []
        sha256 = hashlib.sha256((project / file).read_bytes()).hexdigest()
        files.append({"filename": file, "url": file, "hashes": {"sha256": sha256}, "upload-time": time})
        files[-1] = {key: value for key, value in files[-1].items() if value}
        page.write_text(json.dumps({"meta": {"api-version": "1.1"}, "name": name, "files": files}))

    def add_archive(self, name: str, version: str, *, needs: str = "", builds_with: str = "") -> None:
        """Sources alone; a setup.py in them fails where it is run."""
        project = self.folder / "simple" / name
        project.mkdir(parents=True, exist_ok=True)
        file = f"{name}-{version}.tar.gz"
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        about += "".join(f"Requires-Dist: {one}\n" for one in needs.split("|") if one)
        texts = {"PKG-INFO": about, "setup.py": "raise SystemExit('it was run')\n"}
        if builds_with:
            texts["pyproject.toml"] = f"[build-system]\nrequires = ['{builds_with}']\n"
        with tarfile.open(project / file, "w:gz") as archive:
            for path, text in texts.items():
                member = tarfile.TarInfo(f"{name}-{version}/{path}")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        sha256 = hashlib.sha256((project / file).read_bytes()).hexdigest()
        files = [{"filename": file, "url": file, "hashes": {"sha256": sha256}, "upload-time": OLD}]
        page = {"meta": {"api-version": "1.1"}, "name": name, "files": files}
        (project / "index.html").write_text(json.dumps(page))

    def environment(self, cache: Path) -> Mapping[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return {**kept, "UV_DEFAULT_INDEX": f"{self.address}/simple", "UV_CACHE_DIR": str(cache)}


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    folder = tmp_path / "index"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Index(folder=folder, address=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


def lock_of(folder: Path, **texts: str) -> Lock:
    folder.mkdir()
    (folder / "environment.yml").write_text(ENVIRONMENT_YML)
    for kind, text in texts.items():
        (folder / f"wheels-{kind}.in").write_text(text)
    _, [wheels] = locks_of(folder)
    return wheels


def names(lock: Lock) -> list[str]:
    return re.findall(r"^\S+==\S+", lock.path.read_text(), re.MULTILINE)


def test_the_same_inputs_give_the_same_bytes_whatever_was_published_since(
    index: Index, tmp_path: Path
) -> None:
    index.add("tool", "1", needs="part")
    index.add("part", "1")
    text = "# solved until: 2026-06-01T00:00:00Z\ntool\n"
    first, second = (lock_of(tmp_path / name, cpu=text) for name in ("first", "second"))

    lock_wheels(first, python="3.11", environment=index.environment(tmp_path / "c1"))
    index.add("part", "2", time=NEW)
    index.add("tool", "2", time=NEW)
    chosen = {"UV_RESOLUTION": "lowest", "UV_EXCLUDE_NEWER": NEW}
    lock_wheels(second, python="3.11", environment={**index.environment(tmp_path / "c2"), **chosen})

    assert first.path.read_bytes() == second.path.read_bytes()
    assert names(first) == ["part==1", "tool==1"]
    assert first.path.read_text().splitlines()[1] == (
        "# for: cp311-manylinux_2_35_x86_64, published until 2026-06-01T00:00:00Z"
    )


def test_without_that_line_the_newest_is_taken(index: Index, tmp_path: Path) -> None:
    index.add("tool", "1")
    index.add("tool", "2", time=NEW)
    lock = lock_of(tmp_path / "mine", cpu="tool\n")

    lock_wheels(lock, python="3.11", environment=index.environment(tmp_path / "cache"))

    assert names(lock) == ["tool==2"]


def test_a_changed_input_makes_a_lock_stale_also_where_another_environment_holds_it(
    index: Index, tmp_path: Path
) -> None:
    index.add("tool", "1")
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "wheels.in").write_text("tool\n")
    lock = lock_of(tmp_path / "mine", cpu="-r ../torch/wheels.in\n")
    lock_wheels(lock, python="3.11", environment=index.environment(tmp_path / "cache"))
    before = lock.state

    (tmp_path / "torch" / "wheels.in").write_text("tool\ntool>=1\n")

    assert (before, lock.state) == (State.CURRENT, State.STALE)


def test_what_an_environment_leaves_out_is_not_there_whoever_asks_for_it(
    index: Index, tmp_path: Path
) -> None:
    index.add("tool", "1", needs="part")
    index.add("part", "1")
    lock = lock_of(tmp_path / "mine", cpu="# leaves out: part\ntool\n")

    lock_wheels(lock, python="3.11", environment=index.environment(tmp_path / "cache"))

    assert names(lock) == ["tool==1"]


def test_a_build_that_only_one_index_has_is_taken_from_there_and_the_rest_from_the_usual_one(
    index: Index, tmp_path: Path
) -> None:
    index.add("part", "2")
    index.add("part", "1", at="whl/cu118")  # that index has others' packages as well, and older ones
    index.add("torch", "2.7.1+cu118", needs="part", at="whl/cu118")
    lock = lock_of(tmp_path / "mine", cuda118="# index: cu118\ntorch==2.7.1+cu118\n")
    environment = index.environment(tmp_path / "cache")

    with pytest.raises(CommandFailed, match="PyTorch's own index with --torch-index"):
        lock_wheels(lock, python="3.11", environment=environment)
    lock_wheels(lock, python="3.11", environment=environment, torch_index=f"{index.address}/whl/")

    assert names(lock) == ["part==2", "torch==2.7.1+cu118"]


def test_an_index_that_does_not_say_when_its_files_were_published_is_named_with_a_way_on(
    index: Index, tmp_path: Path
) -> None:
    index.add("tool", "1", time="")
    lock = lock_of(tmp_path / "mine", cpu="# solved until: 2026-06-01T00:00:00Z\ntool\n")

    with pytest.raises(CommandFailed, match="nor what an index does not date"):
        lock_wheels(lock, python="3.11", environment=index.environment(tmp_path / "cache"))


def test_an_input_that_is_not_there_is_said_before_anything_is_solved(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no"):
        lock_of(tmp_path / "mine", cpu="-r nothing.in\n")


def test_what_is_named_as_built_from_source_is_locked_with_what_it_asks_for_and_nothing_of_it_is_run(
    index: Index, tmp_path: Path
) -> None:
    index.add_archive("shallow", "1", needs="part>=1|other; extra == 'all'", builds_with="setuptools>=60")
    index.add("part", "1")
    index.add("setuptools", "70")
    index.add("tool", "1", needs="shallow")
    lock = lock_of(tmp_path / "mine", cpu="# built from source: shallow==1\ntool\n")

    lock_wheels(lock, python="3.11", environment=index.environment(tmp_path / "cache"))

    text = lock.path.read_text()
    wheels, sources = apart(text)
    assert "# built from source: shallow" in text.splitlines()
    assert names(lock) == ["part==1", "setuptools==70", "shallow==1", "tool==1"]
    assert re.findall(r"^\S+==\S+", wheels, re.MULTILINE) == ["part==1", "setuptools==70", "tool==1"]
    archive = (index.folder / "simple" / "shallow" / "shallow-1.tar.gz").read_bytes()
    assert sources == f"shallow==1 \\\n    --hash=sha256:{hashlib.sha256(archive).hexdigest()}\n"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("shallow", "not one version of a package"),
        ("shallow>=1", "not one version of a package"),
        ("shallow==1.*", "not one version of a package"),
        ("--index-url=http://x", "no requirement"),
        ("shallow==2", "no version of shallow==2"),
        ("absent==1", "not found"),
    ],
)
def test_what_is_built_from_source_is_one_version_that_the_index_has(
    index: Index, tmp_path: Path, said: str, why: str
) -> None:
    index.add_archive("shallow", "1")
    lock = lock_of(tmp_path / "mine", cpu=f"# built from source: {said}\n")

    with pytest.raises(ProvisionError, match=why):
        lock_wheels(lock, python="3.11", environment=index.environment(tmp_path / "cache"))


def test_an_archive_that_says_nothing_of_what_it_asks_for_in_words_of_packages_is_refused(
    index: Index, tmp_path: Path
) -> None:
    index.add_archive("shallow", "1", needs="part @@ 1")
    lock = lock_of(tmp_path / "mine", cpu="# built from source: shallow==1\n")

    with pytest.raises(BadInput, match=r"what shallow-1\.tar\.gz asks for cannot be read"):
        lock_wheels(lock, python="3.11", environment=index.environment(tmp_path / "cache"))


def test_sources_that_nobody_named_are_refused_and_not_run(index: Index, tmp_path: Path) -> None:
    index.add_archive("shallow", "1")
    lock = lock_of(tmp_path / "mine", cpu="shallow\n")

    with pytest.raises(CommandFailed, match="# built from source: NAME==VERSION") as refused:
        lock_wheels(lock, python="3.11", environment=index.environment(tmp_path / "cache"))

    assert "shallow" in str(refused.value)
    assert "it was run" not in str(refused.value)


def test_the_mirror_fetches_an_archive_by_the_sha256_of_its_lock_and_no_other(
    index: Index, tmp_path: Path
) -> None:
    index.add_archive("shallow", "1")
    archive = index.folder / "simple" / "shallow" / "shallow-1.tar.gz"
    environment = index.environment(tmp_path / "cache")
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()

    target = fetched(("shallow==1", sha256), tmp_path, environment=environment)

    assert target.read_bytes() == archive.read_bytes()
    with pytest.raises(CommandFailed, match=f"it has sha256 {sha256}, not {'0' * 64}"):
        fetched(("shallow==1", "0" * 64), tmp_path, environment=environment)


def test_a_lock_without_sources_is_given_to_pip_as_it_is() -> None:
    text = "# anybody's\n--index-url https://x/simple\ntool==1 \\\n    --hash=sha256:aa\n    # via me\n"

    assert apart(text) == (text, "")
