"""`python -m runtime`: the tools of a node. Each noun is a module of `runtime.commands`."""

from __future__ import annotations

import sys

import typer

from runtime.commands import bench, checkpoint, config, estimate, flight, smoke
from runtime.errors import RuntimeFault
from runtime.terminal import printable

app = typer.Typer(
    name="runtime",
    help="Tools of a node: prove the cluster, explain a configuration, estimate memory, keep checkpoints.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("smoke")(smoke.smoke)
app.command("estimate")(estimate.estimate)
app.command("flight")(flight.flight)
app.add_typer(bench.app, name="bench")
app.add_typer(config.app, name="config")
app.add_typer(checkpoint.app, name="checkpoint")


@app.callback()
def _root() -> None:
    pass


def main() -> None:
    """Prints a RuntimeFault as three lines and exits with its code."""
    try:
        app()
    except RuntimeFault as e:
        typer.secho(printable(f"error: cannot {e.asked}"), fg="red", bold=True, err=True)
        typer.echo(printable(f"found: {e.found}"), err=True)
        typer.echo(printable(f"fix:   {e.fix}"), err=True)
        sys.exit(e.exit_code)


if __name__ == "__main__":
    main()
