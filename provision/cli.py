"""`provision`: actions from the controller. Each noun is a module of `provision.commands`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from provision import __version__
from provision.commands import (
    audit,
    bundle,
    demo,
    doctor,
    env,
    image,
    lab,
    model,
    node,
    restore,
    smoke,
    status,
)
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


app = typer.Typer(
    cls=Group,
    name="provision",
    help="Turns an inventory of bare machines into a proven training cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(lab.app, name="lab")
app.add_typer(bundle.app, name="bundle")
app.add_typer(env.app, name="env")
app.add_typer(image.app, name="image")
app.add_typer(model.app, name="model")
app.command("audit")(audit.audit)
app.command("demo")(demo.play)
app.command("doctor")(doctor.doctor)
app.add_typer(node.app, name="node")
app.command("restore")(restore.restore)
app.command("smoke")(smoke.smoke)
app.command("status")(status.status)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"clusterwright {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(app))


if __name__ == "__main__":
    main()
