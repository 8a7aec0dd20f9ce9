"""`provision`: actions from the controller. Each noun is a module of `provision.commands`."""

from __future__ import annotations

import sys

import typer

from provision import __version__
from provision.commands import audit, bundle, demo, doctor, env, image, lab, node, restore, smoke, status
from provision.entry import Group, run

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
