"""Runs many commands of `provision`, each forked from a process that has imported it and Ansible.

`python -m tests.unit.provision.many_sites < CASES`: a JSON list of lists of words; prints a list of status
and output. The process that `provision` asks for Ansible's reading is forked as well, and is else what it is.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

import fabric  # noqa: F401  imported once for all
import paramiko  # noqa: F401
from ansible.parsing.vault import VaultSecretsContext

from provision.cli import main as provision
from provision.edges import process
from provision.edges.process import Finished
from provision.inventory import as_ansible, site

_READER = ("-m", "provision.inventory.as_ansible")
_real_run = process.run


def forked(act: Callable[[], int]) -> tuple[int, str, str]:
    """What a function returned and printed, in a process of its own."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            _be(act, out.fileno(), err.fileno())
        _, status = os.waitpid(child, 0)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    return os.waitstatus_to_exitcode(status), texts[0], texts[1]


def _be(act: Callable[[], int], out: int, err: int) -> NoReturn:
    status = 70
    try:
        for number, opened in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
            os.dup2(opened, number)
        status = act()
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run(argv: Sequence[Any], **options: Any) -> Finished:
    words = tuple(map(str, argv))
    if words[1:3] != _READER:
        return _real_run(argv, **options)
    status, out, err = forked(lambda: as_ansible.main(words[3:]))
    return Finished(argv=words, returncode=status, stdout=out, stderr=err, seconds=0.0)


def command(words: Sequence[str]) -> tuple[int, str]:
    """One command of a person, its streams as one text."""

    def act() -> int:
        site.process.run = run  # type: ignore[attr-defined]
        sys.argv = ["provision", *words]
        provision()
        return 0

    status, out, err = forked(act)
    return status, out + err


def load_plugins() -> None:
    """Ansible loads them when a first site is read; each fork has them then."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        hosts = Path(folder) / "hosts.yml"
        hosts.write_text("cluster: {hosts: {te1: {ansible_become: true}}}\n")
        as_ansible.main([str(hosts)])
    VaultSecretsContext._current = None  # Ansible refuses a second site in one process


if __name__ == "__main__":
    load_plugins()
    cases: list[list[str]] = json.load(sys.stdin)
    print(json.dumps([command(words) for words in cases]))
