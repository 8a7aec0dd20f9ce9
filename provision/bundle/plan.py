"""What a bundle is made from: every file with its place, where it comes from, its sha256 and size. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from provision.bundle.deb import POOL, Deb
from provision.bundle.wanted import Wanted
from provision.environments.conda_layer import CondaLayer

# The parts of a bundle, as roles find them below its address.
APT, MINICONDA, CONDA, WHEELS, MODELS, ENVIRONMENTS, RUNTIME = (
    *("apt", "miniconda", "conda", "wheels", "models", "envs", "clusterwright"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A file that is fetched: its place in the bundle, its address, sha256 (hex), bytes (None: nobody says).

    `deb` is the package that it is; apt fetches those.
    """

    path: str
    address: str
    sha256: str
    size: int | None
    deb: Deb | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model of a folder of this machine: sha256 and bytes of each file, by its path there."""

    name: str
    folder: Path
    files: Mapping[str, tuple[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that is fetched for a bundle."""

    items: Sequence[Item]

    @property
    def debs(self) -> list[Deb]:
        return [item.deb for item in self.items if item.deb is not None]

    def sums(self) -> dict[str, tuple[int, int, int]]:
        """By part: files, bytes that are known, and files of which nobody says how large they are."""
        found: dict[str, tuple[int, int, int]] = {}
        for item in self.items:
            files, count, unknown = found.get(part := item.path.split("/")[0], (0, 0, 0))
            found[part] = (files + 1, count + (item.size or 0), unknown + (item.size is None))
        return found


def of_debs(debs: Sequence[Deb]) -> list[Item]:
    """Debian packages, of which the lists say all that counts."""
    return [
        Item(
            path=f"{APT}/{POOL}/{deb.file_name}",
            address="",
            sha256=deb.fields["SHA256"],
            size=int(deb.fields["Size"]),
            deb=deb,
        )
        for deb in debs
    ]


def of_conda(wanted: Wanted, layer: CondaLayer) -> list[Item]:
    """The installer, and the packages of the conda layer."""
    installer = wanted.installer.rpartition("/")[2]
    found = [(f"{MINICONDA}/{installer}", wanted.installer, wanted.installer_sha256)]
    found += [
        (f"{CONDA}/{package.path}", f"{wanted.channel}/{package.path}", package.sha256)
        for package in layer.packages
    ]
    return [Item(path=path, address=address, sha256=sha256, size=None) for path, address, sha256 in found]


def of_model(model: Model) -> list[Item]:
    """The files of a model."""
    return [
        Item(
            path=f"{MODELS}/{model.name}/{path}",
            address=(model.folder.absolute() / path).as_uri(),
            sha256=sha256,
            size=size,
        )
        for path, (sha256, size) in model.files.items()
    ]


def page_folder(environment: str) -> str:
    """Where the index of an environment's wheels lies, for pip."""
    return f"{WHEELS}/{environment}/simple"
