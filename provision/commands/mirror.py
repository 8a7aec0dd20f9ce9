"""`provision lab mirror`: what the lab's nodes install from."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from provision.commands.folders import ENVIRONMENTS, user_cache
from provision.edges.terminal import Console
from provision.lab.layout import mirror_name
from provision.lab.mirror import build
from provision.lab.mirror.parts import Part, Workshop

_CHECKOUT = Path(__file__).parents[2]
_ROLE = _CHECKOUT / "playbooks" / "roles" / "base_packages" / "defaults" / "main.yml"
_ENVIRONMENT = "llm"  # cluster_environment_name, by default
_out = Console()
_progress = Console(stderr=True)


def make(
    miniconda: Annotated[
        str,
        typer.Option(envvar="CLUSTERWRIGHT_MINICONDA", help="Address of the real Miniconda installer."),
    ] = "",
    miniconda_sha256: Annotated[
        str, typer.Option(envvar="CLUSTERWRIGHT_MINICONDA_SHA256", help="Its sha256.")
    ] = "",
    channel: Annotated[
        str, typer.Option(envvar="CLUSTERWRIGHT_CHANNEL", help="Address of the real conda channel.")
    ] = "",
    environment: Annotated[
        list[str] | None,
        typer.Option(
            help="An environment (a folder of envs/) that nodes are to get; again for more.",
            show_default="llm",
        ),
    ] = None,
    release: Annotated[
        str,
        typer.Option(help="Debian's or Ubuntu's code name, as of `lab up`.", show_default="this machine's"),
    ] = "",
    check: Annotated[bool, typer.Option("--check", help="Say what would be made, and make nothing.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print mirror.json, or the parts with --check.")
    ] = False,
) -> None:
    """Make what the nodes install from: Debian packages, wheels, a conda channel, a Miniconda installer.

    Without the addresses of the real ones, or where these do not answer, Miniconda and the channel are
    stand-ins made of real parts. What is there already stays, other environments with it; an unchanged mirror
    takes a second.
    """
    started = time.monotonic()
    wanted = build.Wanted(
        environments=ENVIRONMENTS,
        names=environment or [_ENVIRONMENT],
        debian_packages=yaml.safe_load(_ROLE.read_text())["base_packages_names"],
        newer_than=_newest_image(user_cache()),
        miniconda=miniconda,
        miniconda_sha256=miniconda_sha256,
        channel=channel,
    )
    with _reporting() as report:
        workshop = Workshop(
            root=user_cache() / mirror_name(release),
            environment=os.environ,
            report=report,
            check=check,
            release=release,
        )
        mirror = build.build(workshop, wanted)
    if as_json:
        contents = {part.name: part.made is not None for part in mirror.parts} if check else mirror.contents
        typer.echo(json.dumps(contents, indent=2))
        return
    _show(mirror, check=check, seconds=time.monotonic() - started)


def _newest_image(cache: Path) -> float:
    """When the youngest base image of a lab was made (seconds since 1970); 0 where there is none."""
    return max((path.stat().st_mtime for path in (cache / "base").glob("*/root")), default=0.0)


@contextmanager
def _reporting() -> Iterator[Callable[[str], None]]:
    if not _progress.is_terminal:
        yield lambda text: _progress.print(f"mirror: {text}", highlight=False, markup=False)
        return
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=_progress,
        transient=True,
    ) as progress:
        task = progress.add_task("the mirror")
        yield lambda text: progress.update(task, description=escape(text))


def _show(mirror: build.Mirror, *, check: bool, seconds: float) -> None:
    table = Table("part", "kind", "state", box=None, pad_edge=False)
    for part in mirror.parts:
        table.add_row(part.name, part.kind, _state(part, check=check))
    _out.print(table)
    if mirror.folder is not None:
        _out.print(f"{mirror.folder} in {seconds:.1f} s", highlight=False, soft_wrap=True)


def _state(part: Part, *, check: bool) -> str:
    if part.made is None:
        return "there"
    return "would be made" if check else f"made in {part.made:.1f} s"
