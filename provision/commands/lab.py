"""`provision lab`: a cluster of real, small machines on this one."""

from __future__ import annotations

import typer

app = typer.Typer(help="A cluster of real, small machines on this one.", no_args_is_help=True)
