"""Wheels are solved by uv itself, from an index of this machine that says when each file was published."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from provision.environments.locks import Lock, State, lock_wheels, locks_of
from provision.errors import BadInput, CommandFailed

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
