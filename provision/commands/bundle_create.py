"""`provision bundle create`: gathers what a site needs into one folder."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from provision.bundle.folder import Bundle
from provision.bundle.gather import WORK, Bench, gather, held, missing, planned, refuse_full
from provision.bundle.plan import Item, Model, Plan
from provision.bundle.wanted import VARIABLES, Wanted, wanted_of
from provision.commands.folders import user_cache
from provision.commands.model_source import source_of
from provision.edges.terminal import Console
from provision.environments import runtime_wheel
from provision.errors import BadInput
from provision.inventory.site import read_as_roles
from provision.store.models import refuse_bad_name

_CHECKOUT = Path(__file__).parents[2]
_MIB, _GIB = 1 << 20, 1 << 30
_out = Console(highlight=False)
_progress = Console(stderr=True, highlight=False)


def create(
    folder: Annotated[
        Path, typer.Argument(help="Where it is to lie: a new folder, or a bundle.", metavar="FOLDER")
    ],
    inventory: Annotated[
        Path, typer.Option("--inventory", "-i", help="The site, for example inventory/mine.")
    ],
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="A kind of the environment, as cuda130; again for more.", show_default="what the site says"
        ),
    ] = None,
    release: Annotated[
        str,
        typer.Option(
            help="Debian's or Ubuntu's code name on the nodes, as bookworm.", show_default="this machine's"
        ),
    ] = "",
    channel: Annotated[
        str,
        typer.Option(
            envvar="CLUSTERWRIGHT_CHANNEL",
            help="Address of the conda channel, where the site says its name alone.",
        ),
    ] = "",
    package: Annotated[
        list[str] | None, typer.Option(help="A Debian package beside those of the roles; again for more.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A folder of this machine, or OWNER/NAME of a hub; again for more."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Say what would be fetched and how large it is, and write nothing."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Gather all that a site installs: Debian packages, Miniconda, conda packages, wheels, models.

    It is made for one inventory, from the places that this names. Run again after a cut it fetches what is
    not there yet, and after a change what is new. The digest that it tells is what the site believes: keep it
    apart from the folder. Exit status: 0 it is complete, 1 something cannot be had, 2 bad input.
    """
    nodes = read_as_roles(inventory, VARIABLES, environment=os.environ)
    wanted = wanted_of(nodes, kinds=kind or (), channel=channel, release=release, more=package or ())
    models = [_model(one) for one in model or ()]
    if check:
        with tempfile.TemporaryDirectory(prefix="clusterwright-") as state, _bar("checking", 0) as bench:
            plan = planned(wanted, models, Path(state), bench)
            lacking = missing(plan, folder, bench)
        _tell_plan(plan, lacking, as_json)
        refuse_full(folder, lacking)
        return
    with held(folder):
        with _bar("finding", 0) as bench:
            plan = planned(wanted, models, folder / WORK / "apt", bench)
            lacking = missing(plan, folder, bench)
        if not as_json:
            _tell_plan(plan, lacking, as_json)
        refuse_full(folder, lacking)
        bundle = _gathered(wanted, plan, lacking, folder)
    _tell(bundle, lacking, as_json)


def _gathered(wanted: Wanted, plan: Plan, lacking: Sequence[Item], folder: Path) -> Bundle:
    runtime = runtime_wheel.build(_CHECKOUT, cache=user_cache() / "wheel", environment=os.environ)
    with _bar("fetching", sum(item.size or 0 for item in lacking)) as bench:
        return gather(wanted, plan, lacking, folder.absolute(), runtime.path, bench)


def _model(model: str) -> Model:
    name = refuse_bad_name(Path(model).resolve().name)
    token = os.environ.get("HF_TOKEN", "")
    source = source_of(model, "main", token=token, cache=user_cache() / "models", progress=_progress)
    if links := [link.path for link in source.manifest.links]:
        fix = "Put the file itself in its place: a bundle holds no links."
        raise BadInput(f"take the model {name}", found=f"{links[0]} is a link", fix=fix)
    files = {file.path: (file.sha256, file.size) for file in source.manifest.files}
    return Model(name=name, folder=source.folder, files=files)


@contextmanager
def _bar(what: str, total: int) -> Iterator[Bench]:
    """What is being done, and how much has come."""
    if not _progress.is_terminal:
        told = ""

        def tell(text: str) -> None:
            nonlocal told
            if text.split("/")[0].split(" ")[0] != told:
                told = text.split("/")[0].split(" ")[0]
                _progress.print(f"{what}: {text}", markup=False, soft_wrap=True)

        yield Bench(environment=os.environ, report=tell)
        return
    columns = (
        TextColumn("{task.description}"),
        *((BarColumn(), DownloadColumn(), TransferSpeedColumn()) if total else ()),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=_progress, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield Bench(
            environment=os.environ,
            report=lambda text: progress.update(task, description=f"{what}: {escape(text)[:60]}"),
            on_bytes=lambda count: progress.advance(task, count),
        )


def _tell_plan(plan: Plan, lacking: Sequence[Item], as_json: bool) -> None:
    whole, to_fetch = plan.sums(), Plan(items=lacking).sums()
    if as_json:
        parts = {
            part: {
                **dict(zip(("files", "bytes", "of_unknown_size"), whole[part], strict=True)),
                "to_fetch": dict(
                    zip(("files", "bytes", "of_unknown_size"), to_fetch.get(part, (0, 0, 0)), strict=True)
                ),
            }
            for part in whole
        }
        typer.echo(json.dumps({"parts": parts, "fetched": [item.path for item in lacking]}, indent=2))
        return
    table = Table("part", "files", "size", "to fetch", box=None, pad_edge=False)
    for part, (files, count, unknown) in whole.items():
        ask = to_fetch.get(part, (0, 0, 0))
        table.add_row(part, str(files), _size(count, unknown), f"{ask[0]} files, {_size(ask[1], ask[2])}")
    _out.print(table)
    count, unknown = (sum(row[n] for row in to_fetch.values()) for n in (1, 2))
    _say(f"{_size(count, unknown)} to fetch, {_size(sum(row[1] for row in whole.values()), 0)} in all")


def _tell(bundle: Bundle, lacking: Sequence[Item], as_json: bool) -> None:
    if as_json:
        told = {
            "folder": str(bundle.folder),
            "digest": bundle.digest,
            "made_for": dict(bundle.contents.made_for),
            "files": len(bundle.contents.files),
            "bytes": bundle.contents.bytes,
            "fetched": [item.path for item in lacking],
        }
        typer.echo(json.dumps(told, indent=2))
        return
    _say(f"{bundle.folder}: {len(bundle.contents.files)} files, {_size(bundle.contents.bytes, 0)}")
    _say(f"digest {bundle.digest}")


def _size(count: int, unknown: int) -> str:
    size = f"{count / _GIB:.2f} GiB" if count >= _GIB else f"{count / _MIB:.1f} MiB"
    return f"{size} and {unknown} files of unknown size" if unknown else size


def _say(line: str) -> None:
    _out.print(line, markup=False, soft_wrap=True)
