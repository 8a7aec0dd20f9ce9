"""Debian packages as an apt repository lists them: stanzas, indices, which ones. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate

# Beside what the roles install: what a role or a person on a bare node may need at once.
ALWAYS = (
    "ca-certificates",
    "chrony",
    "e2fsprogs",
    "iputils-ping",
    "nftables",
    "python3-apt",
    "sudo",
    "util-linux",
    "wireguard-go",
    "wireguard-tools",
)
POOL = "pool"
KEY = "key.asc"
# dpkg's names, by those of `uname -m`.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

_INSTALLED = re.compile(r"^Inst (\S+) \((\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deb:
    """A Debian package: its stanza of a Packages file, field by field."""

    fields: Mapping[str, str]

    @property
    def cached_name(self) -> str:
        """Its file's name in apt's folder of archives."""
        version = self.fields["Version"].replace(":", "%3a")
        return f"{self.fields['Package']}_{version}_{self.fields['Architecture']}.deb"

    @property
    def file_name(self) -> str:
        """Its file's name in a pool: without the version's epoch, so that no address needs an escape."""
        return self.fields["Filename"].rpartition("/")[2]


def parse_stanzas(text: str) -> list[Deb]:
    """The packages that `apt-cache show` prints; continued lines stay with their field."""
    return [Deb(fields=_fields(stanza)) for stanza in text.strip().split("\n\n") if stanza.strip()]


def _fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1].isspace():
            fields[name] += f"\n{line}"
        else:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


def wanted_versions(simulated: str) -> list[str]:
    """name:architecture=version of each package that `apt-get install --simulate` would install."""
    return sorted(f"{name}={version}" for name, version in _INSTALLED.findall(simulated))


def packages_text(debs: Iterable[Deb], *, pool: str) -> str:
    """The Packages file over files in the folder `pool` below the index."""
    stanzas = [
        {**deb.fields, "Filename": f"{pool}/{deb.file_name}"}
        for deb in sorted(debs, key=lambda deb: deb.file_name)
    ]
    return "\n".join("".join(f"{name}: {value}\n" for name, value in fields.items()) for fields in stanzas)


def release_text(indices: Mapping[str, bytes], *, architectures: Sequence[str], seconds: float) -> str:
    """The Release file: the sha256 and size of each index file.

    Args:
        seconds: the time that it states, since 1970.
    """
    lines = [
        "Origin: Clusterwright",
        "Label: Clusterwright",
        f"Date: {formatdate(seconds, usegmt=True)}",
        f"Architectures: {' '.join(architectures)}",
        "SHA256:",
    ]
    lines += [
        f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}" for name, content in indices.items()
    ]
    return "\n".join([*lines, ""])
