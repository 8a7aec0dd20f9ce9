"""`provision`: actions from the controller. Each noun is a module of `provision.commands`."""

from __future__ import annotations

import sys

import typer

from provision import __version__
from provision.commands import bundle, demo, doctor, env, image, lab, node, restore, smoke, status
from provision.core.printable import printable
from provision.errors import ProvisionError

app = typer.Typer(
    name="provision",
    help="Turns an inventory of bare machines into a proven training cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(lab.app, name="lab")
app.add_typer(bundle.app, name="bundle")
app.add_typer(env.app, name="env")
app.add_typer(image.app, name="image")
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
    """Entry point of the console script: prints a ProvisionError as three lines and exits with its code."""
    try:
        app()
    except ProvisionError as e:
        typer.secho(printable(f"error: cannot {e.asked}"), fg="red", bold=True, err=True)
        typer.echo(printable(f"found: {e.found}"), err=True)
        typer.echo(printable(f"fix:   {e.fix}"), err=True)
        sys.exit(e.exit_code)


if __name__ == "__main__":
    main()
