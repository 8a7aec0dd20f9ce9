"""What people write of an environment's wheels, and what in it is for the solver.

A requirements file that includes others by `-r`. Four kinds of comments are read:

    # solved until: 2026-11-27T00:00:00Z    what was published later does not count
    # index: cu118                          the folder of PyTorch's own index that alone has this build
    # leaves out: torchvision torchaudio    packages that others ask for, and that are not to be there
    # built from source: deepspeed==0.19.8  packages that have no wheel, and that nodes may build
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from provision.errors import BadInput

_INCLUDED = re.compile(r"^-r\s+(\S+)\s*$", re.MULTILINE)
_UNTIL = re.compile(r"^# solved until: (\S+)$", re.MULTILINE)
_INDEX = re.compile(r"^# index: ([a-z0-9.]+)$", re.MULTILINE)
_FROM_SOURCE = re.compile(r"^# built from source: (.+)$", re.MULTILINE)
_LEFT_OUT = re.compile(r"^# leaves out: (.+)$", re.MULTILINE)


def included(source: Path) -> tuple[Path, ...]:
    """A requirements file and those that it includes, itself first, each once.

    Raises:
        BadInput: one of them is not there.
    """
    found: list[Path] = []
    left = [source]
    while left:
        path = left.pop(0)
        if not path.is_file():
            raise BadInput(
                f"read what {source} includes",
                found=f"there is no {path}",
                fix="Write it, or take its line out.",
            )
        if path not in found:
            found.append(path)
            left += [(path.parent / name).resolve() for name in _INCLUDED.findall(path.read_text("utf-8"))]
    return tuple(found)


def solved_until(texts: Sequence[str]) -> str:
    """The time up to which what was published counts; "" for no end. The first of the files that says one."""
    return next((found[1] for text in texts if (found := _UNTIL.search(text))), "")


def own_index(texts: Sequence[str]) -> str:
    """The folder of PyTorch's own index that alone has this build; "" where every index has it."""
    return next((found[1] for text in texts if (found := _INDEX.search(text))), "")


def left_out(texts: Sequence[str]) -> list[str]:
    """The packages that are not to be there, whoever asks for them."""
    return sorted({name for text in texts for names in _LEFT_OUT.findall(text) for name in names.split()})


def from_source(texts: Sequence[str]) -> list[str]:
    """The packages that are built from their archive of sources: NAME==VERSION, in a lock NAME alone."""
    return sorted({one for text in texts for ones in _FROM_SOURCE.findall(text) for one in ones.split()})


def local_builds(texts: Sequence[str]) -> list[str]:
    """The requirements that pin a local version, as torch==2.13.0+cpu."""
    lines = (line.partition("#")[0].strip() for text in texts for line in text.splitlines())
    return [line for line in lines if "+" in line]
