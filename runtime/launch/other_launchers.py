"""Command lines of DeepSpeed's launcher and torchrun: what zerorun reads as they do, and what it has not.

Options are those of DeepSpeed 0.19.8 (launcher/runner.py) and of torchrun in torch 2.13 (distributed/run.py).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from runtime import entry
from runtime.errors import BadInput

_OWN_SSH = "zerorun reaches nodes by ssh as it is configured there"
_OWN_MEETING = "zerorun starts the ranks of all nodes, and where they meet, from one node"
_AGAIN = "a job that failed is not started again by itself"

# Found and fix of what they have and zerorun has not.
ELSEWHERE = {
    "--autotuning": (
        "there is no autotuner here",
        "`python -m runtime estimate` says what fits; write the values into the configuration.",
    ),
    "--bind-core-list": ("ranks are not bound to cores", "Start `numactl` or `taskset` with --no-python."),
    "--bind-cores-to-rank": (
        "ranks are not bound to cores, but given their share of threads (OMP_NUM_THREADS)",
        "Start `numactl` or `taskset` with --no-python.",
    ),
    "--launcher-args": (_OWN_SSH, "Write what ssh needs into its configuration, or give --ssh-config."),
    "--ssh-port": (_OWN_SSH, "Write `Port` into its configuration (site.yml does), or give --ssh-config."),
    "--no-ssh": (
        _OWN_MEETING,
        "Where that may not be, start torchrun on every node: the runtime reads its variables.",
    ),
    "--node-rank": (_OWN_MEETING, "Run it once, on any node of the hostfile, without --node-rank."),
    "--save-pid": (
        "zerorun writes no file of its process",
        "job.json in the job's folder tells how it went.",
    ),
    "--venv-script": (
        "no script is run before the program",
        "Give the interpreter with --python, and variables with --env or --env-file.",
    ),
    "--elastic-training": (_AGAIN, "Start it again from its last checkpoint, on the nodes that are left."),
    "--min-elastic-nodes": (_AGAIN, "Leave it out: --nnodes says how many nodes take part."),
    "--max-elastic-nodes": (_AGAIN, "Leave it out: --nnodes says how many nodes take part."),
    "--max-restarts": (_AGAIN, "Leave it out, and start the job again from its last checkpoint."),
    "--rdzv-backend": (_OWN_MEETING, "Leave it out."),
    "--rdzv-endpoint": (_OWN_MEETING, "Leave it out, or give --master-addr and --master-port."),
    "--rdzv-id": (_OWN_MEETING, "Leave it out, or give --job-id."),
    "--rdzv-conf": (_OWN_MEETING, "Leave it out."),
    "--standalone": (
        "the nodes are those of the hostfile",
        "For this machine alone name it in --include, or give a --hostfile with `localhost slots=N`.",
    ),
    "--redirects": (
        "each rank's output goes to a file in any case",
        "Leave it out; --log-dir says where to.",
    ),
    "--local-ranks-filter": ("whose output is shown --tee says", "Give --tee all, or ranks with commas."),
}
_NAMED_BYTES = 1 << 20
_LOCAL_RANK = re.compile(r"""["'](--local[_-]rank)["']""")
_ALL_SLOTS = ("auto", "gpu", "-1")


class Command(entry.Command):
    """A program whose options may be written with underscores, and which knows those of other launchers."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.token_normalize_func = _hyphens
        try:
            return super().parse_args(ctx, args)
        except Exception as e:  # Typer's own NoSuchOption has no public name
            name = _hyphens(str(getattr(e, "option_name", "")))
            if name not in ELSEWHERE:
                raise
            found, fix = ELSEWHERE[name]
            raise BadInput(f"start a job with {name}", found=found, fix=fix) from e


def _hyphens(option: str) -> str:
    return option.replace("_", "-")


def count(text: str, *, option: str) -> int | None:
    """How many nodes or slots an option asks for; None for all, also in the words of other launchers.

    Raises:
        BadInput: it is no number; a range of nodes (torchrun's 1:4) is none.
    """
    if text in ("", *_ALL_SLOTS):
        return None
    if not re.fullmatch("[0-9]{1,6}", text):
        raise BadInput(
            f"start a job with {option} {text}",
            found="it is no number"
            if ":" not in text
            else "it is a range, and a job has the nodes it began with",
            fix="Give one number, or leave it out for all.",
        )
    return int(text)


def check_launcher(name: str) -> None:
    """Of DeepSpeed's --launcher, what means the same here.

    Raises:
        BadInput: another launcher than ssh is asked for.
    """
    if name.lower() not in ("", "ssh", "pdsh"):
        raise BadInput(
            f"start a job by --launcher {name}",
            found="zerorun starts ranks over ssh itself",
            fix="Leave it out; or start the script under mpirun or srun, whose variables the runtime reads.",
        )


def local_rank_option(program: Path) -> str:
    """How a script names the option by which DeepSpeed's launcher tells a rank its number; empty if not."""
    try:
        with program.open(errors="replace") as file:
            named = _LOCAL_RANK.findall(file.read(_NAMED_BYTES))
    except OSError:  # the look at all nodes says so
        return ""
    return "--local_rank" if "--local_rank" in named else named[0] if named else ""
