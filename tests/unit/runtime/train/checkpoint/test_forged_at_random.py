"""Mutated manifests and lists of shards: refused or read, in bounded memory, nothing outside opened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import RecordRefusal
from tests.unit.runtime.train.checkpoint.forged import written

ROOT = Path(__file__).parents[5]
MOST_KIBIBYTES = 32 * 1024
# In a process of its own, whose every open is seen and whose memory is its own.
PROGRAM = """
import hashlib, json, os, random, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from runtime.train.checkpoint.listing import METADATA, read_table
from runtime.train.checkpoint.manifest import Manifest, record_of
from runtime.train.checkpoint.folder import find, verify
from runtime.train.checkpoint.table import to_json
from tests.unit.runtime.train.checkpoint.mutate import mutated, mutated_json

folder, count = Path(sys.argv[2]), int(sys.argv[3])
dice = random.Random(int(sys.argv[4]))
manifest_file, list_file = folder / "manifest.json", folder / METADATA
manifest = json.loads(manifest_file.read_text())
manifest.pop("sha256")
pickled = list_file.read_bytes()
table = to_json(read_table(folder, Manifest.from_json(manifest_file.read_text())))

def sign(body):
    body = {key: value for key, value in body.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({**body, "sha256": digest})

strays = []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if not path.startswith(str(folder.parent)) and not path.endswith((".py", ".pyc", ".so")):
            strays.append(path)
    elif event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.remove", "os.rename"):
        strays.append(event)
sys.addaudithook(watch)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

refused = read = 0
first = ""
[verdict] = verify(find(folder))
assert not verdict.faults, verdict
before = peak()
for number in range(count):
    kind = number % 4
    if kind == 0:
        body = mutated_json(dice, manifest)
        manifest_file.write_text(sign(body) if isinstance(body, dict) else json.dumps(body))
    elif kind == 1:
        manifest_file.write_bytes(mutated(dice, sign(manifest).encode()))
    else:
        if kind == 2:
            content = mutated(dice, pickled)
        else:
            content = dice.choice([lambda: mutated(dice, table), lambda: json.dumps(mutated_json(
                dice, json.loads(table))).encode()])()
        list_file.write_bytes(content)
        files = {**manifest["files"], METADATA: {
            "size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "rank": 0}}
        manifest_file.write_text(sign({**manifest, "files": files}))
    [verdict] = verify(find(folder))
    refused += bool(verdict.faults)
    read += not verdict.faults
    first = first or "".join(verdict.faults[:1])
    list_file.write_bytes(pickled)
grown = peak() - before
print(json.dumps({"refused": refused, "read": read, "first": first, "grown": grown, "strays": strays[:5]}))
"""


def forge(tmp_path: Path, count: int, seed: int) -> dict[str, object]:
    folder = written(tmp_path / "checkpoints")
    (tmp_path / "canary").write_text("x")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT), str(folder), str(count), str(seed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    values: dict[str, object] = json.loads(ended.stdout)
    return values


def check(found: dict[str, object], count: int) -> None:
    assert found["strays"] == []
    assert isinstance(found["grown"], int)
    assert found["grown"] < MOST_KIBIBYTES
    assert isinstance(found["refused"], int)
    assert found["refused"] > count // 2


@pytest.mark.attack("file")
def test_five_thousand_forged_checkpoints_are_refused_or_read(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    found = forge(tmp_path, 5000, seed=1)

    record_refusal(
        f"{found['refused']} refused, {found['read']} read as what they are, the first: {found['first']}"
    )
    check(found, 5000)


@pytest.mark.long
def test_a_hundred_thousand_forged_checkpoints_are_refused_or_read(tmp_path: Path) -> None:
    check(forge(tmp_path, 100_000, seed=2), 100_000)
