"""Command lines written for DeepSpeed's launcher and for torchrun."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from runtime.errors import BadInput
from runtime.launch.cli import app
from runtime.launch.other_launchers import ELSEWHERE, count, local_rank_option

HOSTFILE = "te1 slots=4\nte2 slots=4\nte3 slots=4\n"
WITHOUT_A_VALUE = {
    "--no-ssh",
    "--save-pid",
    "--bind-cores-to-rank",
    "--elastic-training",
    "--standalone",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "hostfile").write_text(HOSTFILE)
    (tmp_path / "train.py").write_text("print()\n")
    (tmp_path / "theirs.py").write_text('parser.add_argument("--local_rank", type=int, default=-1)\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def started(*words: str) -> dict[str, Any]:
    """The options of the first node's order, and the nodes."""
    told = CliRunner().invoke(app, ["--dry-run", *words], catch_exceptions=False)
    assert told.exit_code == 0, told.output
    text = "".join(line for line in told.output.splitlines(keepends=True) if not line.startswith("#"))
    orders, decoder = [], json.JSONDecoder()
    while text.strip():
        order, end = decoder.raw_decode(text.lstrip())
        orders.append(order)
        text = text.lstrip()[end:]
    return orders[0] | {"nodes": {order["host"]: order["nproc"] for order in orders}}


@pytest.mark.parametrize(
    ("words", "nodes"),
    [
        ("--hostfile=hostfile train.py", {"te1": 4, "te2": 4, "te3": 4}),
        ("-H hostfile --num_nodes=2 --num_gpus=4 train.py --deepspeed_config ds.json", {"te1": 4, "te2": 4}),
        ("-H hostfile --num_nodes 1 --num_gpus 2 train.py", {"te1": 2}),
        ("-H hostfile --num_nodes -1 --num_accelerators -1 train.py", {"te1": 4, "te2": 4, "te3": 4}),
        ("-H hostfile --include te1:0,1@te3 train.py", {"te1": 2, "te3": 4}),
        ("-H hostfile -i te2 train.py", {"te2": 4}),
        ("-H hostfile -e te1@te2:0 train.py", {"te2": 3, "te3": 4}),
        ("-H hostfile --nnodes=2 --nproc_per_node=gpu train.py", {"te1": 4, "te2": 4}),
        ("-H hostfile --nnodes 2 --nproc-per-node 1 train.py", {"te1": 1, "te2": 1}),
        ("-H hostfile --launcher pdsh --force_multi --no_ssh_check train.py", {"te1": 4, "te2": 4, "te3": 4}),
    ],
)
def test_nodes_and_slots_are_chosen_in_the_words_of_any_of_them(
    folder: Path, words: str, nodes: dict[str, int]
) -> None:
    assert started(*words.split())["nodes"] == nodes


def test_where_ranks_meet_and_leave_their_logs_and_what_they_run(folder: Path) -> None:
    words = "-H hostfile --master_addr=te1 --master_port=29501 --enable_each_rank_log=logs --no_python"

    order = started(*words.split(), "./run.sh", "--num_gpus", "9", "a_b")

    assert (order["master_addr"], order["master_port"]) == ("te1", 29501)
    assert order["job_path"] == str(folder / "logs")
    assert (order["kind"], order["words"]) == ("program", ["./run.sh", "--num_gpus", "9", "a_b"])


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("train.py", ""),
        ("theirs.py", "--local_rank"),
        ("--no_local_rank theirs.py", ""),
        ("--local_rank train.py", "--local_rank"),
        ("--local-rank -m package.train", "--local_rank"),
        ("-m theirs", ""),
    ],
)
def test_a_script_that_names_it_is_told_its_local_rank(folder: Path, words: str, option: str) -> None:
    assert started("-H", "hostfile", *words.split())["local_rank_option"] == option


def test_the_spelling_is_the_script_s(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("p.add_argument('--local-rank', type=int)\n")
    first = local_rank_option(script)
    script.write_text("p.add_argument('--local-rank', '--local_rank', type=int)\n")

    assert (first, local_rank_option(script)) == ("--local-rank", "--local_rank")
    assert local_rank_option(tmp_path / "none.py") == ""


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize("spelt", [str, lambda name: "--" + name[2:].replace("-", "_")])
def test_what_is_not_here_is_said_with_the_way_that_is(folder: Path, name: str, spelt: Any) -> None:
    given = [] if name in WITHOUT_A_VALUE else ["1"]
    with pytest.raises(BadInput, match=f"start a job with {name}") as refused:
        CliRunner().invoke(app, [spelt(name), *given, "train.py"], catch_exceptions=False)

    assert refused.value.found
    assert refused.value.fix.endswith(".")


def test_an_option_of_nobody_is_told_as_ever(folder: Path) -> None:
    told = CliRunner().invoke(app, ["--num_gpu", "2", "train.py"])

    assert told.exit_code == 2
    assert "No such option" in told.output
    assert "--num-gpus" in told.output


@pytest.mark.parametrize("text", ["1:4", "two", "-2", "1.5", "cpu"])
def test_a_count_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--nnodes"):
        count(text, option="--nnodes")


@pytest.mark.parametrize("name", ["openmpi", "slurm", "MVAPICH"])
def test_another_launcher_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(BadInput, match=f"--launcher {name}"):
        CliRunner().invoke(app, ["--launcher", name, "train.py"], catch_exceptions=False)


def test_deepspeed_is_answered_on_every_rank_if_that_is_asked_for(folder: Path) -> None:
    asked = started("-H", "hostfile", "--as-deepspeed", "train.py")
    plain = started("-H", "hostfile", "train.py")

    assert asked["environment"] == {"CLUSTERWRIGHT_AS_DEEPSPEED": "1"}
    assert plain["environment"] == {}


def test_a_variable_asks_for_it_in_every_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERWRIGHT_AS_DEEPSPEED", "instead")

    asked = started("-H", "hostfile", "train.py")

    assert asked["environment"] == {"CLUSTERWRIGHT_AS_DEEPSPEED": "instead"}


def test_it_is_refused_where_deepspeed_is_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "deepspeed").mkdir()
    (folder / "deepspeed" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(folder))

    with pytest.raises(BadInput, match="DeepSpeed itself is installed"):
        CliRunner().invoke(
            app, ["--dry-run", "-H", "hostfile", "--as-deepspeed", "train.py"], catch_exceptions=False
        )
