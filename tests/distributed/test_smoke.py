"""The smoke test on this machine: two or three gloo ranks over the loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.distributed.launching import Launcher, nodes

Launch = Callable[..., Launcher]
pytestmark = pytest.mark.distributed


def smoke(launch: Launch, folder: Path, *words: str) -> Launcher:
    return launch(folder, *words, "--json", str(folder / "smoke.json"), module="runtime smoke")


def result(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "smoke.json").read_text())
    return values


def test_healthy_ranks_pass_with_every_element_checked(launch: Launch, tmp_path: Path) -> None:
    launcher = smoke(
        launch, tmp_path, *nodes(tmp_path, 1, 2), "--sizes", "4,65536,4194304", "--timeout", "20"
    )

    ended = launcher.wait(90)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    values = result(tmp_path)
    assert (values["verdict"], values["backend"], values["world_size"]) == ("pass", "gloo", 3)
    assert all(operation["done"] and not operation["wrong_ranks"] for operation in values["operations"])
    assert [op["size"] for op in values["operations"] if op["step"] == "all-reduce"] == [4, 65536, 4194304]
    assert "PASS: 3 ranks on 2 nodes over gloo" in ended.stdout
    assert launcher.leaves_nothing()


def stop_in_the_middle(launcher: Launcher, folder: Path) -> float:
    """Stops rank 1 once it works on an operation; when that was."""
    (log,) = wait_for_log(folder, '"begin", "operation": 3')
    second = [pid for pid in launcher.processes("runtime smoke --sizes") if "RANK=1" in environment(pid)]
    assert len(second) == 1, log
    os.kill(second[0], signal.SIGSTOP)
    return time.monotonic()


def wait_for_log(folder: Path, text: str, timeout_seconds: float = 60) -> list[Path]:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        found = [log for log in folder.glob("*/logs/rank1.log") if text in log.read_text()]
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"no rank said {text}")


def environment(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")


@pytest.mark.measures
def test_a_stopped_rank_is_named_within_the_time_out_and_two_seconds(launch: Launch, tmp_path: Path) -> None:
    launcher = smoke(launch, tmp_path, *nodes(tmp_path, 1, 1), "--timeout", "8")

    stopped_at = stop_in_the_middle(launcher, tmp_path)
    ended = launcher.wait(40)
    seconds = time.monotonic() - stopped_at

    assert ended.returncode == 1
    (finding,) = result(tmp_path)["findings"]
    assert (finding["ranks"], finding["hosts"]) == ([1], ["127.0.0.2"])
    assert "rank 1 on 127.0.0.2 has said nothing" in finding["found"]
    assert "rank 1 on 127.0.0.2 has said nothing" in ended.stderr
    assert seconds < 8 + 2
    assert launcher.leaves_nothing()


def test_a_taken_port_fails_the_test_and_names_the_node(launch: Launch, tmp_path: Path) -> None:
    options = nodes(tmp_path, 1, 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(options[-1])))
        taken.listen()

        ended = smoke(launch, tmp_path, *options).wait(30)

    assert ended.returncode == 1
    assert f"127.0.0.1 (rank 0): port {options[-1]} is taken" in ended.stdout
    assert result(tmp_path)["verdict"] == "fail"


def test_an_interrupted_test_is_inconclusive(launch: Launch, tmp_path: Path) -> None:
    launcher = smoke(launch, tmp_path, *nodes(tmp_path, 1))
    launcher.wait_for("runtime.node", 1)

    launcher.send(signal.SIGINT)
    ended = launcher.wait(30)

    assert ended.returncode == 4
    assert result(tmp_path)["verdict"] == "inconclusive"
    assert launcher.leaves_nothing()


@pytest.mark.parametrize("words", [["--sizes", "5"], ["--sizes", "big"], ["--hostfile", "absent"]])
def test_bad_input_is_status_2(launch: Launch, tmp_path: Path, words: list[str]) -> None:
    assert smoke(launch, tmp_path, *words).wait(30).returncode == 2


def verdicts(values: dict[str, Any]) -> dict[str, str]:
    return {check["id"]: check["verdict"] for check in values["checks"]}


def test_quick_measures_every_pair_without_torch_and_writes_each_format(
    launch: Launch, tmp_path: Path
) -> None:
    files = {name: tmp_path / f"smoke.{name}" for name in ("junit", "prometheus", "html")}
    words = [word for name, path in files.items() for word in (f"--{name}", str(path))]

    ended = smoke(launch, tmp_path, *nodes(tmp_path, 1, 1, 1), "--quick", *words).wait(60)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    values = result(tmp_path)
    assert (values["verdict"], values["left_out"]) == ("pass", "--quick")
    assert {(pair["source"], pair["target"]) for pair in values["pairs"]} == {
        (f"127.0.0.{a}", f"127.0.0.{b}") for a in (1, 2, 3) for b in (1, 2, 3) if a != b
    }
    assert all(pair["bytes_per_s"] > 0 and not pair["error"] for pair in values["pairs"])
    assert verdicts(values)["collectives.progress"] == "skipped"
    assert verdicts(values)["sockets.bandwidth"] == "pass"
    assert "import" not in values["phases"]
    assert ElementTree.parse(files["junit"]).getroot()[0].attrib["failures"] == "0"
    assert 'clusterwright_smoke_verdict{verdict="pass"} 1.0\n' in files["prometheus"].read_text()
    assert "Delivered, MB/s" in files["html"].read_text()
    assert not list(tmp_path.glob("*.partial"))


def test_a_node_that_does_not_answer_fails_and_the_others_are_measured(
    launch: Launch, tmp_path: Path
) -> None:
    options = nodes(tmp_path, 1, 1)
    with (tmp_path / "hostfile").open("a") as hostfile:
        hostfile.write("no-such-node.invalid slots=1\n")

    ended = smoke(launch, tmp_path, *options, "--quick").wait(60)

    assert ended.returncode == 1, ended.stdout + ended.stderr
    values = result(tmp_path)
    failed = [(check["id"], check["where"]) for check in values["checks"] if check["verdict"] == "fail"]
    assert ("host.answers", "no-such-node.invalid") in failed
    assert {pair["source"] for pair in values["pairs"]} == {"127.0.0.1", "127.0.0.2"}
    assert all(check["fix"] for check in values["checks"] if check["verdict"] == "fail")


def test_an_interrupted_quick_test_is_inconclusive(launch: Launch, tmp_path: Path) -> None:
    launcher = smoke(launch, tmp_path, *nodes(tmp_path, 1, 1), "--quick")
    launcher.wait_for("runtime.node", 1)

    launcher.send(signal.SIGINT)

    assert launcher.wait(30).returncode == 4
    assert launcher.leaves_nothing()
