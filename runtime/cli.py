"""`python -m runtime`: the tools of a node. Each noun is a module of `runtime.commands`."""

from __future__ import annotations

import sys

import typer

from runtime.commands import bench, certify, check, checkpoint, config, estimate, flight, smoke
from runtime.entry import Group, run

app = typer.Typer(
    cls=Group,
    name="runtime",
    help="Tools of a node: prove the cluster, explain a configuration, estimate memory, keep checkpoints.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("smoke")(smoke.smoke)
app.command("certify")(certify.certify)
app.command("check")(check.check)
app.command("estimate")(estimate.estimate)
app.command("flight")(flight.flight)
app.add_typer(bench.app, name="bench")
app.add_typer(config.app, name="config")
app.add_typer(checkpoint.app, name="checkpoint")


@app.callback()
def _root() -> None:
    pass


def main() -> None:
    """Runs the command that the command line names."""
    sys.exit(run(app))


if __name__ == "__main__":
    main()
