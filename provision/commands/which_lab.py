"""Which lab a command means."""

from __future__ import annotations

from typing import Annotated

import typer

from provision.errors import BadInput
from provision.lab.layout import Lab, folder_of
from provision.lab.record import load

Name = Annotated[str, typer.Option("--name", help="Which lab; several can live side by side.")]


def existing(name: str) -> Lab:
    """The lab called `name`.

    Raises:
        BadInput: there is none.
    """
    found = load(folder_of(name))
    if found is None:
        raise BadInput(
            f"find lab {name}",
            found="there is no such lab on this machine",
            fix=f"Make it: provision lab up --name {name}",
        )
    return found
