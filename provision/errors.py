"""Errors that a person can act on.

ProvisionError (exit 1)
├── BadInput (exit 2)            what was asked cannot be: an option, a file, an inventory
├── MissingRequirement (exit 3)  this machine lacks a program, a right or a kernel feature
├── CommandFailed (exit 1)       a program ran and did not succeed, or ran out of time
└── Busy (exit 5)                another process holds what this one needs
"""

from __future__ import annotations


class ProvisionError(Exception):
    """Says what was asked, what was found and what to do; `provision` prints the three and exits.

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


class BadInput(ProvisionError):
    """An option, a file or an inventory cannot be used as it is."""

    exit_code = 2


class MissingRequirement(ProvisionError):
    """This machine lacks something that the command needs."""

    exit_code = 3


class CommandFailed(ProvisionError):
    """A program ended with a non-zero status or ran out of time."""


class Busy(ProvisionError):
    """Another process holds the lock."""

    exit_code = 5
