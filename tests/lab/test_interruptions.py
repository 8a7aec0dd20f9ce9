"""Cut off anywhere, by a node's loss or the controller's, site.yml and a restore end well when run again."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provision.lab import record
from provision.lab.layout import folder_of
from tests.chapters import plays_of
from tests.lab.conftest import ROOT, LabUnderTest, changed, made, playbook, provision

pytestmark = pytest.mark.long
POINTS = range(10)
TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(.*)\]", re.MULTILINE)
PLAYS = [play["name"] for play in plays_of(ROOT / "playbooks" / "restore.yml")][2:]
Strike = Callable[[subprocess.Popen[bytes]], None]


@pytest.fixture(scope="module")
def cut_lab(mirror: None, lab_machine: None) -> Iterator[LabUnderTest]:
    yield from made("cut", "10.77.217.0/24", 2)


@pytest.fixture(scope="module")
def whole_seconds(cut_lab: LabUnderTest) -> float:
    """What a run from nothing takes, so that the points are anywhere in it."""
    started = time.monotonic()
    playbook(cut_lab)
    return time.monotonic() - started


def begin(log: Path, *words: str | Path) -> subprocess.Popen[bytes]:
    """Starts a command in a process group of its own; what it says goes to a file."""
    with log.open("w") as out:
        return subprocess.Popen(
            [Path(sys.executable).parent / words[0], *words[1:]],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1"},
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def kill(process: subprocess.Popen[bytes]) -> None:
    """As a cut of power at the controller, for all that it runs."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)


def cut_off(lab: LabUnderTest, after_seconds: float, strike: Strike, log: Path) -> str:
    """Starts site.yml on blank nodes and strikes; the task that ran then."""
    lab.reset()
    process = begin(log, "ansible-playbook", "playbooks/site.yml", "-i", lab.inventory)
    try:
        time.sleep(after_seconds)
        tasks = TASK.findall(log.read_text())
        strike(process)
        process.wait(timeout=900)
    finally:
        if process.poll() is None:
            kill(process)
    assert process.returncode != 0
    return str(tasks[-1]) if tasks else "nothing yet"


def converges(lab: LabUnderTest, what: str) -> None:
    """The next run ends with a proven cluster and the one after it changes nothing."""
    started = time.monotonic()
    playbook(lab)
    seconds = time.monotonic() - started
    assert json.loads(lab.out("te1", "cat /etc/clusterwright/smoke.json"))["verdict"] == "pass"
    assert changed(playbook(lab)) == dict.fromkeys(lab.nodes, 0)
    print(f"{what}: the second run took {seconds:.0f} s, the third changed nothing")


@pytest.mark.parametrize("point", POINTS)
def test_a_node_lost_in_the_middle(
    point: int, cut_lab: LabUnderTest, whole_seconds: float, tmp_path: Path
) -> None:
    chance = random.Random(f"node {point}")
    lost, after = chance.choice(cut_lab.nodes), chance.uniform(0.02, 0.98) * whole_seconds
    try:
        task = cut_off(cut_lab, after, lambda _: cut_lab.power_off(lost), tmp_path / "log")
    finally:
        cut_lab.power_on(lost)

    converges(cut_lab, f"{lost} lost after {after:.0f} s of {whole_seconds:.0f}, in {task}")


@pytest.mark.parametrize("point", POINTS)
def test_the_controller_killed_in_the_middle(
    point: int, cut_lab: LabUnderTest, whole_seconds: float, tmp_path: Path
) -> None:
    after = random.Random(f"controller {point}").uniform(0.02, 0.98) * whole_seconds
    task = cut_off(cut_lab, after, kill, tmp_path / "log")

    converges(cut_lab, f"controller killed after {after:.0f} s of {whole_seconds:.0f}, in {task}")


@pytest.fixture(scope="module")
def image(
    cut_lab: LabUnderTest, whole_seconds: float, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A folder with an image of te1, and one with the keys of the controller that made it."""
    folder = tmp_path_factory.mktemp("baked")
    words = ("-i", str(cut_lab.inventory), "--output", str(folder / "image"))
    provision("image", "bake", "te1", *words, timeout_seconds=550)
    (folder / "keys").mkdir()
    for name in ("join_key", "join_key.pub", "controller_key", "controller_key.pub"):
        shutil.copy(cut_lab.lab.folder / "secrets" / name, folder / "keys")
    return folder / "image", folder / "keys"


@pytest.fixture(scope="module")
def machines(image: tuple[Path, Path]) -> Iterator[LabUnderTest]:
    """Two machines made from the image, on which each test begins anew."""
    provision("lab", "down", "--name", "recut")
    up = ("up", "--name", "recut", "--subnet", "10.77.218.0/24", "--nodes", "2", "--image", str(image[0]))
    provision("lab", *up, timeout_seconds=300)
    found = record.load(folder_of("recut"))
    assert found is not None
    yield LabUnderTest(lab=found)
    provision("lab", "down", "--name", "recut")


@pytest.mark.parametrize("at", ["waiting at", " calls from ", *PLAYS])
def test_a_restore_that_is_cut_off_is_started_again(
    at: str, machines: LabUnderTest, image: tuple[Path, Path], tmp_path: Path
) -> None:
    """Killed as soon as it says this; the machines do not call a second time once they have a name."""
    secrets = machines.lab.folder / "secrets"
    secrets.mkdir(exist_ok=True, mode=0o700)
    shutil.copytree(image[1], secrets, dirs_exist_ok=True)
    words = ("restore", "-i", str(machines.inventory), "--user-data", str(machines.lab.user_data))
    provision(*words)
    machines.reset()
    first = begin(tmp_path / "log", "provision", "restore", "-i", machines.inventory)
    try:
        deadline = time.monotonic() + 300
        while at not in (tmp_path / "log").read_text():
            assert first.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        kill(first)

    again = provision("restore", "-i", str(machines.inventory), "--timeout", "60", timeout_seconds=300)

    assert "restored and tested: te1, te2" in again.stdout
    assert json.loads(machines.out("te1", "cat /etc/clusterwright/smoke.json"))["verdict"] == "pass"
    tokens = (secrets / "join_tokens.json").read_text()
    assert [token["nodes"] for token in json.loads(tokens)["tokens"]] == [["te1"], ["te2"]]
    assert [token["secret"] for token in json.loads(tokens)["tokens"]] == ["", ""]
