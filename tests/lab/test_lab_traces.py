"""A lab leaves nothing behind, and whatever killed its commands, the next one works."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provision.commands.folders import user_cache
from provision.lab.image.build import image_of
from provision.lab.layout import bridge_of, folder_of
from provision.lab.lock import hold
from provision.lab.observe import keepers_in, observe
from tests.lab.conftest import provision
from tests.lab.traces import killed, shown, traces

NAME = "trace"
UP = ("lab", "up", "--name", NAME, "--subnet", "10.77.207.0/24", "--nodes", "2")
DOWN = ("lab", "down", "--name", NAME)
FOLDER = folder_of(NAME)


@pytest.fixture
def before(lab_machine: None) -> Iterator[set[str]]:
    """What was there before; the lab is gone again after the test."""
    with hold(f"the tests on lab {NAME}", wait_seconds=500):
        provision(*DOWN)
        yield traces(NAME)
        provision(*DOWN)


def states() -> list[str]:
    found = json.loads(provision("lab", "status", "--name", NAME, "--json").stdout)
    return [node["state"] for node in found["nodes"]]


def test_up_and_down_leave_nothing(before: set[str]) -> None:
    provision(*UP)
    during = traces(NAME)

    provision(*DOWN)

    assert len(during - before) > 10, "the comparison must see a lab that is up"
    assert traces(NAME) - before == set()


STEPS = [
    "make bridge",
    "start file server",
    "make files te2",
    "start te1",
    "start te2",
    "connect te1",
    "connect te2",
    "wait for sshd te1",
    "write inventory",
]


def some_long(*kept: str) -> list[Any]:
    """The gate takes these steps, `make long` the others: each is a lab."""
    return [pytest.param(step, marks=() if step in kept else pytest.mark.long) for step in STEPS]


@pytest.mark.parametrize("step", some_long("make bridge", "start te2", "connect te1"))
def test_down_after_a_killed_up_leaves_nothing(before: set[str], step: str) -> None:
    killed(UP, step)

    provision(*DOWN)

    assert traces(NAME) - before == set()


@pytest.mark.parametrize("step", some_long("start te1", "wait for sshd te1"))
def test_up_after_a_killed_up_works(before: set[str], step: str) -> None:
    killed(UP, step)

    provision(*UP)

    assert states() == ["running", "running"]
    assert provision("lab", "shell", "te2", "--name", NAME, "hostname").stdout == "debian\n"


def test_down_finds_a_lab_whose_files_are_all_gone(before: set[str]) -> None:
    provision(*UP)
    subprocess.run(["rm", "-rf", str(FOLDER)], check=True)

    provision(*DOWN)

    assert traces(NAME) - before == set()


def test_down_works_when_every_process_of_the_lab_was_killed(before: set[str]) -> None:
    provision(*UP)
    for pid in observe(FOLDER, bridge_of(NAME)).pids:
        os.kill(pid, signal.SIGKILL)

    provision(*DOWN)

    assert traces(NAME) - before == set()


def test_a_killed_keeper_takes_its_whole_node_with_it(before: set[str]) -> None:
    provision(*UP)
    os.kill(keepers_in(FOLDER)["te1"], signal.SIGKILL)
    deadline = time.monotonic() + 60

    while left := [trace for trace in traces(NAME) - before if is_alive_in(trace, "te1")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)

    assert states() == ["off", "running"]


def is_alive_in(trace: str, node: str) -> bool:
    """Whether a trace is a node's process, cable or disk; its files and its empty control group may stay."""
    return trace.startswith(("process", "link", "loop device", "mount")) and node in trace


def test_connections_that_ansible_keeps_open_end_with_the_lab(before: set[str]) -> None:
    provision(*UP)
    ansible = Path(sys.executable).parent / "ansible"
    shown(str(ansible), "cluster", "-i", str(FOLDER / "inventory"), "-m", "ansible.builtin.ping")
    kept = [trace for trace in traces(NAME) - before if "[mux]" in trace]

    provision(*DOWN)

    assert len(kept) == 2
    assert traces(NAME) - before == set()


def test_down_without_a_lab_is_no_error(before: set[str]) -> None:
    provision(*DOWN)

    assert traces(NAME) - before == set()


def test_up_of_a_running_lab_restarts_nothing_and_starts_what_is_missing(before: set[str]) -> None:
    provision(*UP)
    first = keepers_in(FOLDER)
    provision(*UP)
    second = keepers_in(FOLDER)
    provision("lab", "power", "off", "te2", "--name", NAME)

    provision("lab", "up", "--name", NAME, "--nodes", "3")
    third = keepers_in(FOLDER)

    assert second == first
    assert third["te1"] == first["te1"]
    assert set(third) == {"te1", "te2", "te3"}
    assert states() == ["running"] * 3


def test_a_second_command_on_a_lab_is_refused_and_told_the_first_ones_process(before: set[str]) -> None:
    changes = [UP, DOWN, (*UP[:1], "reset", "--name", NAME), (*UP[:1], "power", "off", "te1", "--name", NAME)]
    provision(*UP)

    with hold(f"lab {NAME}"):
        refused = [provision(*words, check=False) for words in changes]

    assert [each.returncode for each in refused] == [5, 5, 5, 5]
    assert all(f"process {os.getpid()} is at it" in each.stderr for each in refused)
    assert states() == ["running", "running"]


def test_of_two_ups_at_once_none_harms_the_other(before: set[str]) -> None:
    words = [sys.executable, "-m", "provision.cli", *UP]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, **quiet) as first, subprocess.Popen(words, **quiet) as second:
        codes = {first.wait(), second.wait()}

    assert 0 in codes
    assert codes <= {0, 5}
    assert states() == ["running", "running"]


def test_an_existing_lab_is_not_made_into_another_one(before: set[str]) -> None:
    provision(*UP)

    refused = [
        provision("lab", "up", "--name", NAME, *words, check=False)
        for words in (["--nodes", "1"], ["--subnet", "10.77.208.0/24"], ["--disk-size", "1G"])
    ]

    assert [each.returncode for each in refused] == [2, 2, 2]
    assert all(f"provision lab down --name {NAME}" in each.stderr for each in refused)
    assert states() == ["running", "running"]


def test_a_network_that_is_in_use_is_refused_before_anything_is_made(before: set[str]) -> None:
    provision(*UP)

    refused = provision("lab", "up", "--name", "trace2", "--subnet", "10.77.207.64/26", check=False)

    assert refused.returncode == 2
    assert "on cwtrace" in refused.stderr
    assert not folder_of("trace2").exists()


def test_a_firewall_between_the_nodes_is_named(before: set[str]) -> None:
    rule = "add table bridge trace; add chain bridge trace f { type filter hook forward priority 0; };"
    rule += ' add rule bridge trace f iifname "cwtrace-te1" tcp dport 22 drop'
    nft = ["chroot", str(image_of(user_cache())), "nft"]  # this machine may have none
    provision(*UP)
    provision(*DOWN)
    subprocess.run([*nft, rule], check=True)

    try:
        refused = provision(*UP, check=False)
    finally:
        subprocess.run([*nft, "delete table bridge trace"], check=True)

    assert refused.returncode == 1
    assert "cannot reach 10.77.207.12:22 from te1" in refused.stderr
    assert "cwtrace" in refused.stderr


def test_a_plan_is_shown_and_nothing_is_done(before: set[str]) -> None:
    planned = provision(*UP, "--check")

    assert "start" in planned.stdout
    assert "te2" in planned.stdout
    assert traces(NAME) - before == set()


def test_a_killed_build_of_the_image_leaves_no_process_and_no_image(before: set[str], tmp_path: Path) -> None:
    words = [sys.executable, "-m", "provision.cli", *UP]
    cache = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=cache) as command:
        assert command.stderr is not None
        next(line for line in command.stderr if "extracting archives" in line)
        command.kill()
    deadline = time.monotonic() + 10

    while any(f"{tmp_path}" in words_of(entry) for entry in Path("/proc").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.05)

    assert not list(tmp_path.glob("clusterwright/base/*/root"))
    assert len(list(tmp_path.glob("clusterwright/base/*/root.partial"))) == 1
    assert "build image" in provision(*UP, "--check", env=cache).stdout


def words_of(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def test_a_machine_without_the_programs_is_told_what_is_missing(lab_machine: None) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "provision.cli", *UP], capture_output=True, text=True, env={"PATH": "/nowhere"}
    )

    assert refused.returncode == 3
    assert "the package mmdebstrap" in refused.stderr
    assert "the package systemd-container" in refused.stderr
    assert "provision lab requirements --install" in refused.stderr
