"""`python -m runtime checkpoint`: verify, list, prune, export, import."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from runtime.errors import BadInput
from runtime.terminal import Console
from runtime.train.checkpoint.folder import Entry, Verdict, find, plan_prune, read_latest
from runtime.train.checkpoint.folder import prune as prune_entries
from runtime.train.checkpoint.folder import verify as verify_entries

app = typer.Typer(help="Look after checkpoints, without a job.", no_args_is_help=True)
_FOLDER = typer.Argument(help="The folder that was passed to save_checkpoint, or one checkpoint in it.")
_JSON = typer.Option(False, "--json", help="As JSON.")


class Type(StrEnum):
    """Types of exported weights."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


@app.command()
def verify(folder: Path = _FOLDER, as_json: bool = _JSON) -> None:
    """Read every byte and compare it with the manifests; exit 1 when a checkpoint is damaged."""
    found = find(folder)
    verdicts = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=len(found))
        for verdict in verify_entries(found):
            verdicts.append(verdict)
            progress.advance(task)
    _show(verdicts, as_json=as_json, verb="whole")
    raise typer.Exit(1 if any(verdict.faults for verdict in verdicts) else 0)


@app.command("list")
def list_(folder: Path = _FOLDER, as_json: bool = _JSON) -> None:
    """List checkpoints, newest first, without reading their contents."""
    _show(list(verify_entries(find(folder), read=False)), as_json=as_json, verb="listed")


@app.command()
def prune(
    folder: Path = _FOLDER,
    keep_last: int = typer.Option(..., min=1, help="Newest checkpoints that stay."),
    keep_every: int = typer.Option(None, min=1, help="Those of steps divisible by this stay as well."),
    check: bool = typer.Option(False, "--check", help="Say what would go, and remove nothing."),
) -> None:
    """Remove old checkpoints; the one that `latest` names and damaged ones always stay."""
    going = plan_prune(folder, keep_last=keep_last, keep_every=keep_every)
    for entry in going:
        typer.echo(f"{'would remove' if check else 'removing'} {entry.path}")
    if not check:
        prune_entries(going)


@app.command()
def export(
    folder: Path = _FOLDER,
    target: Path = typer.Argument(help="A new folder."),
    dtype: Type = typer.Option(Type.fp32, help="Type of the floating weights."),
    file_gigabytes: float = typer.Option(5.0, min=0.001, help="Largest file, in GB of 10^9 bytes."),
) -> None:
    """Write whole weights as safetensors, one tensor in memory at a time."""
    import torch

    from runtime.train.checkpoint.export import export as write

    types = {Type.fp32: None, Type.bf16: torch.bfloat16, Type.fp16: torch.float16}
    entry = _chosen(folder)
    with _bytes_progress() as progress:
        task = progress.add_task("exporting", total=None)
        files = write(
            entry,
            target,
            dtype=types[dtype],
            file_bytes=int(file_gigabytes * 1e9),
            on_progress=lambda written, total: progress.update(task, completed=written, total=total),
        )
    for file in files:
        typer.echo(f"{file}  {file.stat().st_size} bytes")


@app.command("import")
def import_(
    source: Path = typer.Argument(help="The folder passed to DeepSpeed's save_checkpoint, or one in it."),
    folder: Path = typer.Argument(help="Where load_checkpoint will find it."),
) -> None:
    """Bring a checkpoint of DeepSpeed's ZeRO-1, 2 or 3 into this format, without DeepSpeed.

    Masters, moments, steps, schedule, loss scale and the script's state; the data begins anew.
    """
    from runtime.train.checkpoint.deepspeed.convert import import_checkpoint

    with Console(stderr=True).status(f"importing {source}"):
        made = import_checkpoint(source, folder)
    [verdict] = verify_entries(find(made), read=False)
    typer.echo(f"{made}  step {verdict.step}  {verdict.size} bytes")


def _bytes_progress() -> Progress:
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True), transient=True)


def _chosen(folder: Path) -> Entry:
    """The checkpoint that the path is, or the one that `latest` names."""
    found = find(folder)
    wanted = read_latest(folder)
    chosen = found[0] if len(found) == 1 else next((e for e in found if e.tag == wanted), None)
    if chosen is None:
        raise BadInput(
            f"export from {folder}",
            found=f"{len(found)} checkpoints, and `latest` names none of them",
            fix="Name one of them.",
        )
    return chosen


def _show(verdicts: list[Verdict], *, as_json: bool, verb: str) -> None:
    if as_json:
        typer.echo(json.dumps([asdict(verdict) for verdict in verdicts], indent=2))
        return
    for verdict in verdicts:
        saved = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(verdict.saved_at)) if verdict.size else "?"
        account = "; ".join(verdict.faults) if verdict.faults else verb
        latest = "  (latest)" if verdict.is_latest else ""
        typer.echo(
            f"{verdict.tag}  step {verdict.step}  {verdict.ranks} ranks  {verdict.size} bytes  {saved}  "
            f"{'DAMAGED: ' if verdict.faults else ''}{account}{latest}"
        )
