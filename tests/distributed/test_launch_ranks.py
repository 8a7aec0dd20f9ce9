"""A node starts its ranks by itself: what they are told, their store, and what looks after them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distributed.launching import Launcher, nodes, script

Launch = Callable[..., Launcher]
pytestmark = pytest.mark.distributed


@pytest.mark.parametrize(
    ("victim", "said"),
    [
        ("runtime.launch.rank", "did not end well"),
        ("runtime.launch.store", "the store at which the ranks meet was ended by SIGKILL"),
    ],
)
def test_what_looks_after_the_ranks_killed_by_a_signal_is_never_a_success(
    launch: Launch, tmp_path: Path, victim: str, said: str
) -> None:
    program = script(tmp_path, "import time; print('up', flush=True); time.sleep(300)")
    launcher = launch(tmp_path, *nodes(tmp_path, 1, 1), program)

    launcher.wait_for("-u train.py", 2)
    os.kill(launcher.wait_for(victim, 1)[0], signal.SIGKILL)
    ended = launcher.wait()

    assert ended.returncode == 1
    assert said in ended.stderr
    assert launcher.leaves_nothing()


def test_a_rank_has_what_torchrun_would_tell_it(launch: Launch, tmp_path: Path) -> None:
    # Each to a file of its own: lines of two ranks that are longer than a pipe takes at once become one.
    program = script(
        tmp_path,
        "import json, os, pathlib\n"
        f"place = pathlib.Path({str(tmp_path)!r}, 'told.' + os.environ['RANK'])\n"
        "place.write_text(json.dumps(dict(os.environ)))",
    )
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0")
    subprocess.run((*torchrun, program), cwd=tmp_path, capture_output=True, timeout=120, check=True)
    theirs = told_in(tmp_path)

    assert launch(tmp_path, *nodes(tmp_path, 2), program).wait().returncode == 0
    ours = told_in(tmp_path)

    own = {"MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"}
    assert theirs.keys() == ours.keys() == {"0", "1"}
    for rank, told in theirs.items():
        assert own < told.keys() <= ours[rank].keys()
        assert {name: ours[rank][name] for name in told.keys() - own} == {
            name: told[name] for name in told.keys() - own
        }


def told_in(folder: Path) -> dict[str, dict[str, str]]:
    """By rank, the variables that a launcher sets; where a rank's errors would go, only torchrun asks."""
    told = {}
    for path in folder.glob("told.*"):
        environ = json.loads(path.read_text())
        path.unlink()
        told[environ["RANK"]] = {
            name: value
            for name, value in environ.items()
            if re.fullmatch(
                r"(TORCHELASTIC|MASTER)_\w+|TORCH_NCCL_ASYNC_\w+|(\w+_)?(RANK|WORLD_SIZE)|ROLE_NAME", name
            )
            and name not in {"TORCHELASTIC_ERROR_FILE", "TORCHELASTIC_SIGNALS_TO_HANDLE"}
        }
    return told


def test_ranks_find_their_store_when_the_first_one_has_gone(launch: Launch, tmp_path: Path) -> None:
    program = script(
        tmp_path,
        "import os, time, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "if dist.get_rank() == 0: os._exit(0)\n"
        "time.sleep(2)\n"
        "dist.distributed_c10d._get_default_store().set('late', 'yes')\n"
        "print('stored', flush=True)\n"
        "os._exit(0)\n",
    )

    ended = launch(tmp_path, *nodes(tmp_path, 1, 1), "--tee", "all", program).wait()

    assert (ended.returncode, "stored" in ended.stdout) == (0, True), ended.stderr


def test_ranks_import_deepspeed_where_the_job_says_so(launch: Launch, tmp_path: Path) -> None:
    program = script(tmp_path, "import deepspeed, os; print(deepspeed.__version__, os.environ['RANK'])")

    ended = launch(tmp_path, *nodes(tmp_path, 1, 1), "--as-deepspeed", program).wait()

    assert ended.returncode == 0
    assert ended.stdout == "0.19.8+clusterwright 0\n"
