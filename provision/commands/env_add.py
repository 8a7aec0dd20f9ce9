"""`provision env add`: an environment out of what people have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from provision.commands.folders import ENVIRONMENTS
from provision.edges.terminal import Console
from provision.environments.brought import read_brought
from provision.environments.index import Index
from provision.environments.made import files_of, write_environment
from provision.errors import BadInput
from provision.printable import one_line

_out = Console()


def add(
    name: Annotated[str, typer.Argument(help="The environment: a new folder of envs/.")],
    source: Annotated[
        Path,
        typer.Option("--from", metavar="FILE", help="An environment.yml of conda, or requirements of pip."),
    ],
    environments: Annotated[Path, typer.Option(help="The folder of environments.")] = ENVIRONMENTS,
    check: Annotated[bool, typer.Option("--check", help="Say what it would be, and write nothing.")] = False,
) -> None:
    """Make an environment from an environment.yml or requirements: wheels where there are some.

    What was not taken is listed with the reason, in its wheels.in as well. No folder is overwritten.
    """
    index = Index(os.environ)
    brought = read_brought(source, has_wheel=index.has)
    files = files_of(name, brought, environments=environments, source=one_line(source.name))
    if not check:
        try:
            write_environment(environments / name, files)
        except OSError as e:
            found = e.strerror or "it cannot be written"
            raise BadInput(f"write {environments / name}", found=found, fix="Name another folder.") from e
    for line in brought.wheels:
        _say(f"taken      {line}")
    for line, why in brought.left:
        _say(f"not taken  {line}: {why}")
    if not index.answers:
        _say("No index answered: whether each has a wheel, `provision env lock` will say.")
    verb = "would be" if check else "is"
    _say(f"{environments / name} {verb} made of {', '.join(files)}. Then: provision env lock {name}")


def _say(line: str) -> None:
    _out.print(line, highlight=False, markup=False, soft_wrap=True)
