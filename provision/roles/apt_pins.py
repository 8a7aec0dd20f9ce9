"""The versions to which a machine's owner has pinned packages: apt_preferences(5). Pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

FOLDER = "/etc/apt/preferences"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A stanza that pins packages, by their names or by patterns of them, to a version or a pattern of it."""

    path: str
    packages: tuple[str, ...]
    version: str

    def forbids(self, package: str, version: str) -> bool:
        return any(fnmatch.fnmatchcase(package, pattern) for pattern in self.packages) and not (
            fnmatch.fnmatchcase(version, self.version)
        )

    def __str__(self) -> str:
        return f"{self.path} pins {' '.join(self.packages)} to version {self.version}"


def version_pins(files: Mapping[str, str]) -> Iterator[Pin]:
    """Of all preferences among these files, by path; pins of all packages or of sources are none of them."""
    for path, text in files.items():
        for stanza in re.split(r"\n\s*\n", text) if path.startswith(FOLDER) else []:
            fields = dict(re.findall(r"(?m)^(Package|Pin):[ \t]*(.+?)[ \t]*$", stanza))
            kind, _, version = fields.get("Pin", "").partition(" ")
            packages = tuple(fields.get("Package", "").split())
            if kind == "version" and packages and packages != ("*",):
                yield Pin(path=path, packages=packages, version=version.strip())
