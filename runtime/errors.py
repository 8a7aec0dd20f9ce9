"""Errors that a person can act on, on the nodes' side.

RuntimeFault (exit 1)
├── BadInput (exit 2)      what was asked cannot be: an option, a hostfile, an environment variable
├── NodesNotReady (exit 1) a node cannot take part: unreachable, other versions, a port taken
├── JobFailed (exit 1)     a job started and did not end well; the first cause is named
├── GroupFailed (exit 1)   the process group could not be formed
├── OffloadFailed (exit 1)  states could not be kept on a disk, or not be read from it
└── CheckpointFailed (exit 1) a checkpoint could not be saved whole, or none could be loaded
"""

from __future__ import annotations


class RuntimeFault(Exception):
    """Says what was asked, what was found and what to do; the command lines print the three and exit.

    Args:
        asked: what the person or the program wanted, without a full stop.
        found: what was there instead.
        fix: the next thing to do, a command where there is one.
    """

    exit_code = 1

    def __init__(self, asked: str, *, found: str, fix: str) -> None:
        super().__init__(f"{asked}: {found}. {fix}")
        self.asked = asked
        self.found = found
        self.fix = fix


class BadInput(RuntimeFault):
    """An option, a file or a variable cannot be used as it is."""

    exit_code = 2


class NodesNotReady(RuntimeFault):
    """One or more nodes cannot take part in a job."""


class JobFailed(RuntimeFault):
    """A job did not end well."""


class GroupFailed(RuntimeFault):
    """The ranks could not form a process group."""


class OffloadFailed(RuntimeFault):
    """A disk that holds optimizer states is full, or cannot be read or written."""


class CheckpointFailed(RuntimeFault):
    """A checkpoint could not be saved whole, or there is none that is whole."""
