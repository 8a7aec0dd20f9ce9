"""Asks the index of Python packages, through uv, whether it has a package of a name."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from provision.edges.process import run
from provision.environments.sources import uv_on
from provision.errors import CommandFailed, MissingRequirement

_SECONDS = 30.0
_MISSING = ("was not found in the package registry", "there are no versions of", "not found in the provided")


class Index:
    """One that does not answer is asked once."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._uv = uv_on(environment)
        self.answers = self._uv is not None

    def has(self, name: str) -> bool | None:
        """Whether it has one; None where it does not answer."""
        if not self.answers:
            return None
        with tempfile.TemporaryDirectory(prefix="clusterwright-") as scratch:
            source = Path(scratch) / "one.in"
            source.write_text(f"{name}\n")
            words = [str(self._uv), "pip", "compile", str(source), "--no-deps", "--no-config", "--quiet"]
            try:
                asked = run(words, timeout_seconds=_SECONDS, env=self._environment, check=False)
            except (CommandFailed, MissingRequirement):
                self.answers = False
                return None
        if asked.returncode == 0:
            return True
        if any(word in " ".join(asked.stderr.split()) for word in _MISSING):
            return False
        self.answers = False
        return None
