"""`python -m runtime.as_deepspeed [--instead] [-m] SCRIPT ARGS...`: a script of DeepSpeed's, unchanged.

Python that the script starts answers `import deepspeed` in the same way. `--path` prints the folder with
which PYTHONPATH does it: `PYTHONPATH=$(python -m runtime.as_deepspeed --path) torchrun train.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.as_deepspeed.finder import INSTEAD, START, VARIABLE, for_children, refuse_beside_real
from runtime.errors import BadInput

_USAGE = "python -m runtime.as_deepspeed [--instead] [-m] SCRIPT ARGS..., or --path"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line asks for."""

    words: tuple[str, ...]
    is_module: bool = False
    instead: bool = False
    shows_path: bool = False


def parse(arguments: Sequence[str]) -> Wanted:
    """Our options come before the script's name; what follows is the script's.

    Raises:
        BadInput: there is no script.
    """
    rest = list(arguments)
    options = set()
    while rest and rest[0] in ("--instead", "-m", "--module", "--path", "-u"):
        options.add(rest.pop(0))
    if not rest and "--path" not in options:
        raise BadInput("run a script with deepspeed's names", found="no script", fix=f"Write {_USAGE}.")
    return Wanted(
        words=tuple(rest),
        is_module=bool({"-m", "--module"} & options),
        instead="--instead" in options,
        shows_path="--path" in options,
    )


def main(arguments: Sequence[str]) -> None:
    """Becomes the Python that runs the script, with PYTHONPATH set."""
    try:
        wanted = parse(arguments)
        if wanted.shows_path:
            sys.stdout.write(f"{START}\n")
            return
        refuse_beside_real({VARIABLE: INSTEAD} if wanted.instead else os.environ)
        if sys.flags.ignore_environment:
            raise BadInput(
                "answer `import deepspeed` from this runtime",
                found="Python was told to pass over PYTHONPATH (-E or -I)",
                fix="Start it without.",
            )
        if not wanted.is_module and not Path(wanted.words[0]).exists():
            raise BadInput(
                f"run {wanted.words[0]}", found="there is no such file here", fix="Name a script of Python's."
            )
    except BadInput as e:
        sys.stderr.write(f"error: cannot {e.asked}\nfound: {e.found}\nfix:   {e.fix}\n")
        sys.exit(e.exit_code)
    environment = {**os.environ, **for_children(os.environ, instead=wanted.instead)}
    module = ("-m",) if wanted.is_module else ()
    os.execve(sys.executable, [sys.executable, *_flags(sys.orig_argv), *module, *wanted.words], environment)


def _flags(argv: Sequence[str]) -> list[str]:
    """What this Python was told before `-m`, such as -u."""
    return list(argv[1 : argv.index("-m")]) if "-m" in argv else []


if __name__ == "__main__":
    main(sys.argv[1:])
