"""From the command line and back: every end is words and a status, none a traceback of what a user did.

An interrupt is 130. `Aborted.`, Typer's word for it, is never said of anything else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from provision.errors import BadInput, ProvisionError
from provision.printable import printable

_INTERRUPTED = 130  # 128 + SIGINT, as a shell has it


class Group(TyperGroup):
    """Commands below a program's name."""

    def invoke(self, ctx: Any) -> Any:
        return _ended(lambda: super(Group, self).invoke(ctx))


class Command(TyperCommand):
    """A program that is one command."""

    def invoke(self, ctx: Any) -> Any:
        return _ended(lambda: super(Command, self).invoke(ctx))


def _ended(invoke: Callable[[], Any]) -> Any:
    """Names what Typer calls an abort, and flushes while a broken pipe is still expected."""
    try:
        result = invoke()
        sys.stdout.flush()
    except KeyboardInterrupt as e:
        typer.echo("interrupted", err=True)
        raise typer.Exit(_INTERRUPTED) from e
    except EOFError as e:
        raise ProvisionError(
            "read to the end", found=str(e) or "an input ended early", fix="Run it again."
        ) from e
    return result


def run(app: typer.Typer) -> int:
    """Runs a program; prints its own errors, and the system's, as three lines. Returns their status."""
    try:
        app()
    except ProvisionError as e:
        return _told(e)
    except OSError as e:
        name = f"use {e.filename}" if e.filename else "finish the command"
        return _told(
            BadInput(name, found=e.strerror or str(e), fix="Correct that path, its rights or its disk.")
        )
    return 0


def _told(error: ProvisionError) -> int:
    typer.secho(printable(f"error: cannot {error.asked}"), fg="red", bold=True, err=True)
    typer.echo(printable(f"found: {error.found}"), err=True)
    typer.echo(printable(f"fix:   {error.fix}"), err=True)
    return error.exit_code
