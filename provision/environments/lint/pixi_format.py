"""Reads pixi.lock. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from provision.environments.lint.conda_formats import file_of
from provision.environments.lint.entries import CONDA, PIP, Index, LockFile, Package, canonical
from provision.environments.lint.shapes import entries_of, mapping_of, text_of


def pixi_lock(path: str, tree: Mapping[str, Any]) -> LockFile:
    """The packages of each environment and platform. Raises ValueError where it is no pixi.lock."""
    records = {_key(entry): entry for entry in entries_of(tree, "packages")}
    channels: list[str] = []
    packages: list[Package] = []
    environments = mapping_of(tree.get("environments", {}), "environments")
    for name, environment in environments.items():
        held = mapping_of(environment, "an environment")
        for channel in entries_of(held, "channels"):
            channels.append(text_of(channel.get("url", ""), "channel"))
        for platform in mapping_of(held.get("packages") or {}, "packages"):
            group = str(platform) if name == "default" else f"{platform} of {name}"
            packages += _of_platform(entries_of(held["packages"], platform), group, records)
    return LockFile(
        path=path,
        format="pixi.lock",
        packages=tuple(packages),
        indexes=tuple(Index(url=one) for one in dict.fromkeys(channels)),
        platforms=tuple(dict.fromkeys(one.platform for one in packages)),
    )


def _key(entry: Mapping[str, Any]) -> tuple[str, str]:
    for manager, key in ((CONDA, "conda"), (PIP, "pypi")):
        if key in entry:
            return manager, text_of(entry[key], key)
    return text_of(entry.get("kind", ""), "kind"), text_of(entry.get("url", ""), "url")


def _of_platform(
    wanted: list[Mapping[str, Any]], group: str, records: Mapping[tuple[str, str], Mapping[str, Any]]
) -> Iterator[Package]:
    for one in wanted:
        manager, url = _key(one)
        record = records.get((manager, url), {})
        file = file_of(url)
        parts = file.rsplit("-", 2) if manager == CONDA else file.split("-")
        name = text_of(record.get("name") or parts[0], "name")
        version = text_of(record.get("version") or (parts[1] if len(parts) > 1 else ""), "version")
        depends = [str(need) for need in record.get("depends") or ()] if manager == CONDA else []
        hashes = [f"{kind}:{record[kind]}" for kind in ("sha256", "md5") if record.get(kind)]
        source = "git" if url.startswith("git+") else "index" if "://" in url else "path"
        yield Package(
            name=name if manager == CONDA else canonical(name),
            version=version,
            manager=manager,
            platform=group,
            url=url,
            source="path" if url.startswith("file:") else source,
            files=(file,),
            hashes=tuple(hashes),
            needs={need.partition(" ")[0]: need.partition(" ")[2] for need in depends},
        )
