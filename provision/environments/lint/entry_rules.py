"""What a lock holds twice, not at all, or for another machine."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from provision.environments.lint.entries import (
    CONDA,
    PIP,
    Fault,
    Floors,
    Group,
    Index,
    Package,
    dotted,
    error,
    numbers,
    warning,
)

_PYTHON_TAG = re.compile(r"(?:cp|py)(\d)(\d*)")
_MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)")
_OLD_TAGS = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
_MACHINES = {"linux-64": "x86_64", "linux-aarch64": "aarch64"}


def _same(group: Group) -> Iterator[list[Package]]:
    found: dict[tuple[str, str], list[Package]] = defaultdict(list)
    for one in group.packages:
        found[one.manager, one.name].append(one)
    return (ones for ones in found.values() if len(ones) > 1)


def _duplicate(group: Group) -> Iterator[Fault]:
    for ones in _same(group):
        seen = set()
        for one in ones:
            key = (one.version, one.build, one.marker, one.category)
            if key in seen and not (group.lock.conditional and one.source != "index"):
                yield one, f"{one.version or one.name} is there twice"
            seen.add(key)


def _two_pins(group: Group) -> Iterator[Fault]:
    for ones in _same(group):
        plain = [one for one in ones if not one.marker]
        versions = sorted({one.version for one in plain})
        if len(versions) > 1 and group.lock.format not in ("uv.lock", "pylock"):
            yield plain[-1], f"it is pinned to {' and to '.join(versions)}"


def _unpinned(group: Group) -> Iterator[Fault]:
    for one in group.lock.unpinned:
        yield one, f"it is no pin ({one.version or 'any version'}): another day gives another environment"


def _empty_platform(group: Group) -> Iterator[Fault]:
    held = {one.platform for one in group.lock.packages}
    for platform in group.lock.platforms:
        if platform not in held:
            yield None, f"it names the platform {platform} and holds no package for it"


def _content_hash(group: Group) -> Iterator[Fault]:
    hashed = group.lock.hashed_platforms
    if hashed is None:
        return
    for platform in group.lock.platforms:
        if platform not in hashed:
            yield None, f"no content_hash says from what {platform} was solved"


def _virtual(group: Group) -> Iterator[Fault]:
    if group.lock.records_virtual:
        return
    asking = [one for one in group.packages if "__cuda" in one.needs]
    if asking:
        yield (
            asking[0],
            "it was chosen by the virtual package __cuda, and nothing says which one the solver had",
        )


def _python(group: Group) -> tuple[int, ...]:
    conda = group.conda("python")
    return conda.release[:2] if conda else numbers(group.lock.python)[:2]


def _wheels(one: Package) -> list[tuple[str, str, str]]:
    """Tags of its wheels: Python, ABI, platform."""
    parts = [file.removesuffix(".whl").split("-") for file in one.files if file.endswith(".whl")]
    return [(words[-3], words[-2], words[-1]) for words in parts if len(words) >= 5]


def _fits(tag: tuple[str, str, str], python: tuple[int, ...]) -> bool:
    for name in tag[0].split("."):
        found = _PYTHON_TAG.fullmatch(name)
        if not found:
            return True
        asked = (int(found[1]), *([int(found[2])] if found[2] else []))
        newer = tag[1] in ("abi3", "none") and asked[0] == python[0] and asked <= python
        if asked == python[: len(asked)] or newer:
            return True
    return False


def _wheel_python(group: Group) -> Iterator[Fault]:
    python = _python(group)
    for one in group.packages if len(python) == 2 else ():
        tags = _wheels(one) if one.manager == PIP else []
        if tags and not any(_fits(tag, python) for tag in tags):
            yield one, f"{one.files[0]} is not for Python {dotted(python)}, which the conda layer has"


def _conda_python(group: Group) -> Iterator[Fault]:
    """By what it needs: a build string may name a Python and be for newer ones as well (abi3)."""
    python = _python(group)
    for one in group.packages if len(python) == 2 else ():
        found = re.match(r"=*(\d)\.(\d+)\.\*", one.needs.get("python_abi", ""))
        if one.manager == CONDA and found and (int(found[1]), int(found[2])) != python:
            yield one, f"it needs Python {found[1]}.{found[2]}, and Python {dotted(python)} is there"


def _wheel_pythons(group: Group) -> Iterator[Fault]:
    """Wheels of one lock without a conda layer, each a single file, for two Pythons."""
    if _python(group) or group.lock.conditional:
        return
    found: dict[str, Package] = {}
    for one in group.packages:
        tags = _wheels(one)
        if len(tags) == 1 and re.fullmatch(r"cp3\d+", tags[0][1]):
            found.setdefault(tags[0][1], one)
    if len(found) > 1:
        names = sorted(found)
        yield found[names[-1]], f"wheels are for {' and '.join(names)}"


def _wheel_platform(group: Group) -> Iterator[Fault]:
    if not group.platform.startswith("linux"):
        return
    for one in group.packages:
        tags = _wheels(one) if one.manager == PIP else []
        if tags and not any(tag[2] == "any" or "linux" in tag[2] for tag in tags):
            yield one, f"{one.files[0]} is not for {group.platform}"


def _glibc(group: Group) -> Iterator[Fault]:
    has = group.floors.glibc
    for one in group.packages if has else ():
        least = _least_glibc(one)
        if has and least and least > has:
            yield one, f"it needs glibc {dotted(least)}, and a node has {dotted(has)}"


def _least_glibc(one: Package) -> tuple[int, ...]:
    if one.manager == CONDA:
        found = re.search(r">=\s*([\d.]+)", one.needs.get("__glibc", ""))
        return numbers(found[1]) if found else ()
    tags = [tag[2] for tag in _wheels(one)]
    if not tags or any(_tag_glibc(tag) == () for tag in tags if "musl" not in tag and "linux" not in tag):
        return ()
    return min((least for tag in tags if (least := _tag_glibc(tag))), default=())


def _tag_glibc(tag: str) -> tuple[int, ...]:
    found = [(int(major), int(minor)) for major, minor in _MANYLINUX.findall(tag)]
    found += [least for name, least in _OLD_TAGS.items() if name in tag]
    return min(found, default=())


def _architecture(group: Group) -> Iterator[Fault]:
    floors: Floors = group.floors
    platforms = [one.partition(" ")[0] for one in group.lock.platforms if one.startswith("linux")]
    if floors.architecture and platforms:
        held = sorted({_MACHINES.get(one, one) for one in platforms})
        if floors.architecture not in held:
            yield None, f"it is for {', '.join(held)}, and a node has {floors.architecture}"


def _wheel_architecture(group: Group) -> Iterator[Fault]:
    wanted = group.floors.architecture
    for one in group.packages if wanted else ():
        tags = [tag[2] for tag in _wheels(one)] if one.manager == PIP else []
        if tags and not any(tag == "any" or wanted in tag for tag in tags):
            yield one, f"it has no wheel for {wanted}"


def _unverifiable_channel(group: Group) -> Iterator[Fault]:
    for index in group.lock.indexes:
        if index.url.startswith(("file:", "/", "./", "../")):
            yield (
                Index(url=index.url, line=index.line),
                "a source of it is a folder of the machine that locked",
            )


RULES = (
    error("duplicate", _duplicate, "Lock anew; two copies were merged into one file."),
    error("two-pins", _two_pins, "Keep one pin and lock anew: pip refuses both, and conda takes the last."),
    error(
        "unpinned",
        _unpinned,
        "Lock it: uv pip compile --generate-hashes writes name==version for all.",
        of_lock=True,
    ),
    error(
        "empty-platform", _empty_platform, "Lock that platform, or take it out of platforms.", of_lock=True
    ),
    warning("no-content-hash", _content_hash, "Lock anew with conda-lock, which writes it.", of_lock=True),
    warning(
        "virtual-packages-unrecorded",
        _virtual,
        "Keep virtual-packages.yml beside the lock and name it in custom_metadata (conda-lock --mdy FILE).",
    ),
    error(
        "wheel-python", _wheel_python, "Lock the wheels for the conda layer's Python, or take that Python."
    ),
    error("conda-python", _conda_python, "Lock anew: packages of two solutions were merged."),
    error("wheels-of-two-pythons", _wheel_pythons, "Lock all wheels for one Python."),
    error("wheel-platform", _wheel_platform, "Lock on, or for, the platform of the nodes."),
    error("glibc-floor", _glibc, "Take an older release or conda's build, or a newer system on that node."),
    error(
        "architecture",
        _architecture,
        "Lock for that platform too (conda-lock: --platform linux-aarch64).",
        of_lock=True,
    ),
    error("wheel-architecture", _wheel_architecture, "Take a release that has such a wheel, or build one."),
    warning(
        "local-source",
        _unverifiable_channel,
        "Serve that folder as an index, or name a public one.",
        of_lock=True,
    ),
)
