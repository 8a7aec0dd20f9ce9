"""Commands and options are frozen in tests/cases/cli.txt: a change to them is a change that someone reviews.

Write the file anew with `python -m tests.architecture.test_cli_frozen > tests/cases/cli.txt`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from provision.cli import app as provision_app
from runtime.cli import app as runtime_app
from runtime.launch.cli import app as zerorun_app

CASES = Path(__file__).parents[1] / "cases" / "cli.txt"


def lines_of(command: Any, path: str) -> Iterator[str]:
    for parameter in command.params:
        names = "/".join((*parameter.opts, *parameter.secondary_opts))
        yield f"{path}  {names if parameter.param_type_name == 'option' else names.upper()}"
    children = getattr(command, "commands", {})
    if not children:
        yield path
    for name in sorted(children):
        yield from lines_of(children[name], f"{path} {name}")


def surface() -> str:
    doors = {"provision": provision_app, "python -m runtime": runtime_app, "zerorun": zerorun_app}
    return "\n".join(
        line for name, app in doors.items() for line in lines_of(typer.main.get_command(app), name)
    )


def test_commands_and_options_are_those_of_the_reviewed_file() -> None:
    assert surface().splitlines() == CASES.read_text().splitlines()


if __name__ == "__main__":
    print(surface())
