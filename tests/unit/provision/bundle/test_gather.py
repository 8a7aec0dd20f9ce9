"""A bundle without Debian packages, gathered from a server that breaks off."""

from __future__ import annotations

import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import zstandard

from provision.bundle.folder import differences
from provision.bundle.gather import WORK, Bench, gather, held, missing, refuse_full
from provision.bundle.plan import Item, Model, Plan, of_conda, of_model
from provision.bundle.wanted import Wanted
from provision.environments.conda_layer import parse
from provision.errors import BadInput, Busy, CommandFailed


def conda_package() -> bytes:
    info = io.BytesIO()
    with tarfile.open(fileobj=info, mode="w") as archive:
        text = json.dumps({"name": "python", "version": "3.11"}).encode()
        member = tarfile.TarInfo("info/index.json")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as package:
        package.writestr("info-python.tar.zst", zstandard.ZstdCompressor().compress(info.getvalue()))
    return whole.getvalue()


class Site:
    """What lies at its address; `broken` paths are cut off in the middle, `asked` are those that came."""

    def __init__(self) -> None:
        self.files = {
            "/m/Miniconda3.sh": b"#!/bin/sh\n" * 50,
            "/c/linux-64/python-3.11-0.conda": conda_package(),
            "/w/a-1-py3-none-any.whl": b"wheel" * 1000,
        }
        self.broken: set[str] = set()
        self.asked: list[str] = []


@pytest.fixture
def site() -> Iterator[tuple[Site, str]]:
    found = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            content = found.files[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if self.path in found.broken else content)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def work(site: tuple[Site, str], tmp_path: Path) -> tuple[Wanted, Plan, Path, Path]:
    found, address = site
    hashes = {path: sha256(content).hexdigest() for path, content in found.files.items()}
    texts = {
        "conda.lock": "# platform: linux-64\n# channel: c\n# environment: x\n"
        f"linux-64/python-3.11-0.conda#sha256:{hashes['/c/linux-64/python-3.11-0.conda']}\n",
        "wheels-cpu.lock": "a==1\n",
        "checks.yml": "---\n",
        "ours.whl": "ours",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    wanted = Wanted(
        cluster="te",
        environment="llm",
        kinds=["cpu"],
        architecture="x86_64",
        release="bookworm",
        packages=[],
        drivers=[],
        apt_sources=[],
        installer=f"{address}/m/Miniconda3.sh",
        installer_sha256=hashes["/m/Miniconda3.sh"],
        channel=f"{address}/c",
        conda_lock=tmp_path / "conda.lock",
        wheel_locks=[tmp_path / "wheels-cpu.lock"],
        wheel_source="",
        others=[tmp_path / "checks.yml"],
    )
    wheel = Item(
        path="wheels/llm/a-1-py3-none-any.whl",
        address=f"{address}/w/a-1-py3-none-any.whl",
        sha256=hashes["/w/a-1-py3-none-any.whl"],
        size=5000,
    )
    model = Model(
        name="tiny", folder=tmp_path / "model", files={"config.json": (sha256(b"{}").hexdigest(), 2)}
    )
    plan = Plan(items=[*of_conda(wanted, parse(texts["conda.lock"])), wheel, *of_model(model)])
    return wanted, plan, tmp_path / "bundle", tmp_path / "ours.whl"


BENCH = Bench(environment={}, report=lambda _: None)


def made(work: tuple[Wanted, Plan, Path, Path]) -> tuple[list[str], str]:
    """What was lacking, and the digest of the bundle."""
    wanted, plan, folder, ours = work
    with held(folder):
        lacking = missing(plan, folder, BENCH)
        bundle = gather(wanted, plan, lacking, folder, ours, BENCH)
    assert differences(bundle) == []
    return [item.path for item in lacking], bundle.digest


def test_after_a_cut_what_is_there_is_not_fetched_again(
    site: tuple[Site, str], work: tuple[Wanted, Plan, Path, Path]
) -> None:
    found, _ = site
    found.broken = {"/w/a-1-py3-none-any.whl"}
    with pytest.raises(CommandFailed):
        made(work)
    assert not (work[2] / "bundle.json").exists()
    assert not (work[2] / "wheels").exists()
    found.broken, found.asked = set(), []

    lacking, digest = made(work)

    assert found.asked == ["/w/a-1-py3-none-any.whl"]
    assert lacking == ["wheels/llm/a-1-py3-none-any.whl", "models/tiny/config.json"]
    assert made(work) == ([], digest)
    assert sorted(path.name for path in work[2].iterdir()) == [
        *("apt", "bundle.json", "clusterwright", "conda", "envs", "miniconda", "models", "wheels"),
    ]


def test_what_was_spoilt_is_fetched_again_and_what_is_wanted_no_more_goes(
    site: tuple[Site, str], work: tuple[Wanted, Plan, Path, Path]
) -> None:
    wanted, plan, folder, ours = work
    made(work)
    (folder / "wheels" / "llm" / "a-1-py3-none-any.whl").write_bytes(b"wheeL" * 1000)
    (folder / "mine").write_text("a person's")
    fewer = Plan(items=[item for item in plan.items if not item.path.startswith("models/")])

    with held(folder):
        lacking = missing(fewer, folder, BENCH)
        bundle = gather(wanted, fewer, lacking, folder, ours, BENCH)

    assert [item.path for item in lacking] == ["wheels/llm/a-1-py3-none-any.whl"]
    assert not (folder / "models").exists()
    # Nobody's record claims it, so it stays, and is named.
    assert [(one.path, one.what) for one in differences(bundle)] == [
        ("mine", "a file that the manifest does not name")
    ]


def test_another_file_than_the_lock_names_gets_no_place(
    site: tuple[Site, str], work: tuple[Wanted, Plan, Path, Path]
) -> None:
    site[0].files["/m/Miniconda3.sh"] = b"#!/bin/sh\n" * 49 + b"rm -rf / \n"

    with pytest.raises(CommandFailed, match="it has sha256"):
        made(work)

    assert not (work[2] / "miniconda").exists()


def test_a_folder_with_other_things_with_links_or_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo").touch()
    with pytest.raises(BadInput, match=r"other things \(photo\)"), held(tmp_path):
        pass
    folder = tmp_path / "bundle"
    with held(folder), pytest.raises(Busy), held(folder):
        pass
    (folder / "apt").symlink_to("/etc")
    with pytest.raises(BadInput, match="apt in it is a link"), held(folder):
        pass
    assert sorted(path.name for path in folder.iterdir()) == [WORK, "apt"]


def test_a_disk_without_room_is_said_before_anything_is_fetched(
    tmp_path: Path, work: tuple[Wanted, Plan, Path, Path]
) -> None:
    huge = [replace(work[1].items[0], size=1 << 50)]

    with pytest.raises(BadInput, match="GiB are free there"):
        refuse_full(tmp_path / "not" / "there", huge)
