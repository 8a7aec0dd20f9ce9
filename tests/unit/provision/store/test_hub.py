"""A model of a hub, with the real client library against a hub on the loopback that breaks off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.store.hub import is_repository
from tests.unit.provision.store.hub_server import COMMIT, Hub, serving

MIB = 1 << 20
TOKEN = "hf_" + "s" * 34
# In a process of its own: the library reads HF_ENDPOINT when it is imported, and keeps its connections open.
FETCH = """
import json, sys
from pathlib import Path
from provision.errors import ProvisionError
from provision.store import hub
from provision.store.source import folder_source
hub._AGAIN_SECONDS = 0.05
repository, revision, cache, token = json.loads(sys.stdin.read())
try:
    got = hub.fetched(repository, revision, Path(cache), token=token)
    source = folder_source(got.folder, "model", leave_out=(".cache",))
    hub.refuse_changed(got, source.manifest, repository)
    print(json.dumps({"commit": got.commit, "files": [f.path for f in source.manifest.files]}))
except ProvisionError as e:
    print(json.dumps({"kind": type(e).__name__, "found": e.found, "fix": e.fix}))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    files = {
        "model-1.safetensors": os.urandom(6 * MIB),
        "model-2.safetensors": os.urandom(3 * MIB),
        "config.json": b"{}",
        "more/tokenizer.json": b'{"a": 1}',
    }
    with serving(Hub(files=files)) as found:
        yield found


def fetch(
    hub: Hub, folder: Path, *, token: str = "", revision: str = "main", repository: str = "", shadow: str = ""
) -> tuple[dict[str, Any], str]:
    """What came of it, and all that was printed."""
    words = json.dumps([repository or hub.repository, revision, str(folder / "cache"), token])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    path = os.pathsep.join(filter(None, (shadow, str(Path(__file__).parents[4]))))
    ended = subprocess.run(
        [sys.executable, "-c", FETCH],
        input=words,
        env={**kept, "HF_ENDPOINT": hub.address, "HF_HOME": str(folder / "home"), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ended.stdout.splitlines()[-1]), ended.stdout + ended.stderr


def test_a_revision_is_pinned_to_its_commit_and_whole(hub: Hub, tmp_path: Path) -> None:
    found, _ = fetch(hub, tmp_path)

    assert found == {"commit": COMMIT, "files": sorted(hub.files)}
    resolved = [path for path, _ in hub.asked if "/resolve/" in path]
    assert resolved
    assert all(f"/resolve/{COMMIT}/" in path for path in resolved)


def test_a_download_that_breaks_off_goes_on_where_it_ended(hub: Hub, tmp_path: Path) -> None:
    """The library keeps what came in pieces of 10 MiB, so that less than one is lost with each cut."""
    hub.files["model-1.safetensors"] = os.urandom(64 * MIB)
    hub.cut_after, hub.cuts = 21 * MIB, 3

    found, _ = fetch(hub, tmp_path)

    assert found["files"] == sorted(hub.files)
    assert hub.cuts == 0
    assert hub.sent <= 1.05 * sum(map(len, hub.files.values()))


def test_a_second_run_downloads_nothing(hub: Hub, tmp_path: Path) -> None:
    fetch(hub, tmp_path)
    before = hub.sent

    fetch(hub, tmp_path)

    assert hub.sent == before


@pytest.mark.parametrize("name", ["model-2.safetensors", "config.json"])
def test_a_file_that_is_not_what_the_hub_lists_is_refused_and_fetched_again(
    hub: Hub, tmp_path: Path, name: str
) -> None:
    hub.spoilt[name] = bytes(len(hub.files[name]))

    refused, _ = fetch(hub, tmp_path)
    hub.spoilt.clear()
    found, _ = fetch(hub, tmp_path)

    assert refused["kind"] == "CommandFailed"
    assert name in refused["found"]
    assert found["files"] == sorted(hub.files)


def test_a_token_opens_a_private_repository_and_is_printed_nowhere(hub: Hub, tmp_path: Path) -> None:
    hub.token = TOKEN

    found, printed = fetch(hub, tmp_path, token=TOKEN)

    assert found["commit"] == COMMIT
    assert TOKEN not in printed
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert kept == []


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"token": ""}, "set HF_TOKEN"),
        ({"token": "hf_wrong"}, "of somebody who may read it"),
        ({"token": TOKEN, "revision": "none"}, "Correct its name and revision"),
        ({"token": TOKEN, "repository": "tiny/none"}, "Correct its name and revision"),
    ],
)
def test_what_the_hub_refuses_is_said_in_words(
    hub: Hub, tmp_path: Path, other: dict[str, Any], words: str
) -> None:
    hub.token = TOKEN

    refused, printed = fetch(hub, tmp_path, **other)

    assert refused["kind"] == "BadInput"
    assert words in refused["fix"]
    assert "Traceback" not in printed
    assert TOKEN not in printed


def test_a_hub_that_is_not_reached_is_named(hub: Hub, tmp_path: Path) -> None:
    hub.address = "http://127.0.0.1:9"

    refused, _ = fetch(hub, tmp_path)

    assert refused["kind"] == "CommandFailed"
    assert "HF_ENDPOINT" in refused["fix"]


def test_without_the_library_it_says_how_to_install_it(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "huggingface_hub.py").write_text("raise ImportError('none')\n")

    refused, _ = fetch(hub, tmp_path, shadow=str(tmp_path / "shadow"))

    assert refused["kind"] == "MissingRequirement"
    assert "huggingface_hub>=1" in refused["fix"]


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("Qwen/Qwen2-0.5B", True),
        ("gpt2", False),
        ("./model", False),
        ("../a", False),
        ("a/b/c", False),
        ("/a", False),
    ],
)
def test_a_repository_is_owner_and_name(text: str, is_one: bool) -> None:
    assert is_repository(text) is is_one
