"""Gathers a bundle: finds what a site needs, fetches what is not there yet, writes indices and manifest.

What comes is proven before it gets its place, so that a run that was cut off is gone on with: the folder
`.work` in the bundle says that it is ours and not complete. The manifest is written last.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from provision.bundle.apt_sources import own_release, sources_for
from provision.bundle.conda_archive import write_channel
from provision.bundle.contents import MANIFEST, File, contents_of, text_of
from provision.bundle.deb import ALWAYS, ARCHITECTURES, KEY, POOL, Deb, parse_stanzas
from provision.bundle.debian import Apt, write_indices
from provision.bundle.folder import Bundle, read
from provision.bundle.plan import (
    APT,
    CONDA,
    ENVIRONMENTS,
    MINICONDA,
    RUNTIME,
    WHEELS,
    Item,
    Model,
    Plan,
    of_conda,
    of_debs,
    of_model,
    page_folder,
)
from provision.bundle.wanted import Wanted
from provision.bundle.wheel_index import pages
from provision.bundle.wheels import wheels_of
from provision.edges.fetch import fetch, sha256_of, sizes
from provision.edges.files import write_file
from provision.environments.conda_layer import parse as parse_layer
from provision.errors import BadInput, Busy, CommandFailed, ProvisionError
from provision.store.node.tree import Tree, kind_of

WORK = ".work"
_FETCH_SECONDS, _HEAD_SECONDS = 900.0, 20.0
_THREADS = 4
# For indices, the manifest and what the file system itself takes.
_MARGIN_BYTES = 64 << 20
_GIB = 1 << 30
_INDICES = ("Packages", "Packages.gz", "Release", "InRelease", "Release.gpg", KEY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What gathering may use. `report` gets what is being done, `on_bytes` how much came."""

    environment: Mapping[str, str]
    report: Callable[[str], None]
    on_bytes: Callable[[int], None] = lambda _: None


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds a bundle's folder for the making: it is made, and has nothing in it that is not a bundle's.

    Raises:
        BadInput: it is something else, or holds links or special files.
        Busy: another process makes it.
    """
    asked = f"make a bundle in {folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_others(folder, asked)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as e:
        fix = "Name a folder that you can write to."
        raise BadInput(asked, found=e.strerror or str(e), fix=fix) from e
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise Busy(asked, found="another process is at it", fix="Wait for it.") from e
        (folder / WORK).mkdir(exist_ok=True)
        yield
    finally:
        os.close(descriptor)


def _refuse_others(folder: Path, asked: str) -> None:
    names = {path.name for path in folder.iterdir()} - {"lost+found"}
    if names and not names & {WORK, MANIFEST}:
        fix = "Name an empty folder, a new one, or a bundle."
        raise BadInput(asked, found=f"it holds other things ({', '.join(sorted(names)[:3])})", fix=fix)
    with Tree(str(folder)) as tree:
        for path, status in tree.walk():
            if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
                fix = "Take it away: a bundle holds files and folders alone."
                raise BadInput(asked, found=f"{path} in it is {kind_of(status)}", fix=fix)


def planned(wanted: Wanted, models: Sequence[Model], state: Path, bench: Bench) -> Plan:
    """What a bundle is made from, with sizes as far as anybody says them.

    Args:
        state: a folder for apt's lists.

    Raises:
        BadInput: a lock is missing, or is none.
        CommandFailed: the sources do not answer, or lack something.
    """
    debs = _debs(wanted, state, bench)
    bench.report("wheels")
    wheels = {
        wheel.name: Item(
            path=f"{WHEELS}/{wanted.environment}/{wheel.name}",
            address=wheel.address,
            sha256=wheel.sha256,
            size=wheel.size,
        )
        for lock in wanted.wheel_locks
        for wheel in wheels_of(
            lock, architecture=wanted.architecture, source=wanted.wheel_source, environment=bench.environment
        )
    }
    fetched = [*of_conda(wanted, parse_layer(_text(wanted.conda_lock))), *wheels.values()]
    bench.report("sizes")
    asked = [item.address for item in fetched if item.size is None]
    known = sizes(asked, timeout_seconds=_HEAD_SECONDS)
    fetched = [replace(item, size=known.get(item.address, item.size)) for item in fetched]
    return Plan(items=[*of_debs(debs), *fetched, *(item for model in models for item in of_model(model))])


def _text(lock: Path) -> str:
    try:
        return lock.read_text()
    except OSError as e:
        fix = "Solve it: provision env lock NAME"
        raise BadInput(f"read the lock {lock}", found=e.strerror or str(e), fix=fix) from e


def _debs(wanted: Wanted, state: Path, bench: Bench) -> list[Deb]:
    apt = _apt(wanted, state, bench)
    if why_not := apt.update():
        fix = "See that this machine reaches the repository: base_packages_apt_source, else its own sources."
        raise CommandFailed("fetch the lists of Debian packages", found=why_not, fix=fix)
    found = {deb.file_name: deb for deb in parse_stanzas(apt.shown(sorted({*wanted.packages, *ALWAYS})))}
    known = 0
    for name in wanted.drivers:
        try:
            found |= {deb.file_name: deb for deb in parse_stanzas(apt.shown([name]))}
            known += 1
        except ProvisionError:
            continue  # the role takes the first set that is offered as a whole
    if wanted.drivers and not known:
        fix = "Name a repository that has it: nvidia_driver_apt_source."
        raise CommandFailed("find the NVIDIA driver", found="apt knows none of its packages", fix=fix)
    return list(found.values())


def _apt(wanted: Wanted, state: Path, bench: Bench) -> Apt:
    state.mkdir(parents=True, exist_ok=True)
    lines = []
    for source in wanted.apt_sources:
        key = (state / f"{source.name}.asc").absolute()
        key.write_text(f"{source.key}\n")
        lines.append(source.line(key))
    if not any(source.name == "base_packages" for source in wanted.apt_sources):
        lines += sources_for(wanted.release)
    architecture = ARCHITECTURES[wanted.architecture]
    return Apt(state=state.absolute(), sources=lines, report=bench.report, architecture=architecture)


def missing(plan: Plan, folder: Path, bench: Bench) -> list[Item]:
    """What of a plan does not lie in a folder with the right sha256; what has to be read for that is read."""

    def is_there(item: Item) -> bool:
        path = folder / item.path
        if not path.is_file() or item.size not in (None, path.stat().st_size):
            return False
        return sha256_of(path) == item.sha256

    bench.report("what is there already")
    with ThreadPoolExecutor(_THREADS) as pool:
        there = list(pool.map(is_there, plan.items))
    return [item for item, is_here in zip(plan.items, there, strict=True) if not is_here]


def refuse_full(folder: Path, lacking: Sequence[Item]) -> None:
    """Raises:
    BadInput: the disk has no room for what is not there yet.
    """
    needed = (sum(item.size or 0 for item in lacking) + _MARGIN_BYTES) / _GIB
    near = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(near).free / _GIB
    if free < needed:
        raise BadInput(
            f"make a bundle in {folder}",
            found=f"it needs {needed:.1f} GiB more, and {free:.1f} GiB are free there",
            fix="Name a folder on a larger disk, or make room.",
        )


def gather(
    wanted: Wanted, plan: Plan, lacking: Sequence[Item], folder: Path, runtime: Path, bench: Bench
) -> Bundle:
    """Fetches what is lacking in a folder that is `held`, and makes a bundle of it.

    Args:
        runtime: the wheel of this project.

    Raises:
        CommandFailed: something cannot be had, or is another one; what has come stays for the next run.
    """
    work = folder / WORK
    before = _set_aside_manifest(folder)
    for item in lacking:
        if item.deb is None:
            bench.report(item.path)
            _fetch(item, folder, bench)
    _fetch_debs(wanted, plan, lacking, folder, bench)
    bench.report("indices and manifest")
    files = {
        item.path: File(path=item.path, size=_size(folder, item.path), sha256=item.sha256)
        for item in plan.items
    }
    for path in _written(wanted, plan, folder, runtime, before):
        files[path] = File(path=path, size=_size(folder, path), sha256=sha256_of(folder / path))
    if before is not None:
        for file in before.contents.files:
            if file.path not in files:
                _remove(folder, file.path)
    text = text_of(contents_of(_made_for(wanted), files.values()))
    write_file(folder / MANIFEST, text.decode("ascii"))
    shutil.rmtree(work)
    return read(folder)


def _remove(folder: Path, path: str) -> None:
    """Takes away a file of a bundle before, and the folders that hold nothing without it."""
    (folder / path).unlink(missing_ok=True)
    for above in list((folder / path).parents)[: path.count("/")]:
        with suppress(OSError):
            above.rmdir()


def _made_for(wanted: Wanted) -> dict[str, str]:
    return {**wanted.made_for, "release": wanted.release or own_release()}


def _size(folder: Path, path: str) -> int:
    return (folder / path).stat().st_size


def _set_aside_manifest(folder: Path) -> Bundle | None:
    """Until it is complete again it is no bundle; what an earlier one claims may go."""
    aside = folder / WORK / "before"
    if (folder / MANIFEST).exists():
        aside.mkdir(exist_ok=True)
        (folder / MANIFEST).replace(aside / MANIFEST)
    try:
        return replace(read(aside), folder=folder)
    except BadInput:
        return None


def _fetch(item: Item, folder: Path, bench: Bench) -> None:
    """Proven beside its place, so that what lies in one is whole."""
    arriving = folder / WORK / "arriving" / item.sha256
    arriving.parent.mkdir(exist_ok=True)
    fetch(
        item.address,
        arriving,
        sha256=item.sha256,
        timeout_seconds=_FETCH_SECONDS,
        on_bytes=bench.on_bytes,
    )
    _place(arriving, folder / item.path)


def _place(arriving: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    arriving.replace(target)
    target.chmod(0o644)


def _fetch_debs(wanted: Wanted, plan: Plan, lacking: Sequence[Item], folder: Path, bench: Bench) -> None:
    """apt fetches; what the pool has already is laid before it."""
    if not any(item.deb for item in lacking):
        return
    apt = _apt(wanted, folder / WORK / "apt", bench)
    gone = {item.path for item in lacking}
    for item in plan.items:
        if item.deb is not None and item.path not in gone and not apt.archive(item.deb).exists():
            _link_or_copy(folder / item.path, apt.archive(item.deb))
    apt.download([item.deb for item in lacking if item.deb is not None])
    for item in lacking:
        if item.deb is None:
            continue
        if sha256_of(apt.archive(item.deb)) != item.sha256:
            found = f"{item.deb.file_name} has another sha256 than the lists say"
            raise CommandFailed("fetch Debian packages", found=found, fix="Run it again.")
        target = folder / item.path
        target.parent.mkdir(parents=True, exist_ok=True)
        apt.archive(item.deb).replace(target)
        bench.on_bytes(item.size or 0)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a disk of files without second names, as exFAT
        shutil.copyfile(source, target)


def _written(wanted: Wanted, plan: Plan, folder: Path, runtime: Path, before: Bundle | None) -> list[str]:
    """Writes what makes the files usable: indices for apt, conda and pip, the locks, our wheel."""
    written = _repository(wanted, plan, folder, before)
    layer = parse_layer(_text(wanted.conda_lock))
    write_channel(folder / CONDA, subdirs=(layer.platform, "noarch"))
    written += [f"{CONDA}/{subdir}/repodata.json" for subdir in (layer.platform, "noarch")]
    texts = {
        f"{MINICONDA}/SHA256SUMS": f"{wanted.installer_sha256}  {wanted.installer.rpartition('/')[2]}\n",
        **{
            f"{ENVIRONMENTS}/{wanted.environment}/{path.name}": _text(path)
            for path in (wanted.conda_lock, *wanted.wheel_locks, *wanted.others)
        },
    }
    at = f"{WHEELS}/{wanted.environment}/"
    wheels = {item.path.removeprefix(at): item.sha256 for item in plan.items if item.path.startswith(at)}
    for name, text in pages(wheels, files="../..").items():
        texts[f"{page_folder(wanted.environment)}/{name}"] = text
    for path, text in texts.items():
        write_file(folder / path, text)
    ours = f"{RUNTIME}/{runtime.name}"
    (folder / RUNTIME).mkdir(exist_ok=True)
    shutil.copyfile(runtime, folder / ours)
    return [*written, *texts, ours]


def _repository(wanted: Wanted, plan: Plan, folder: Path, before: Bundle | None) -> list[str]:
    """The indices of apt, signed with a key of which nothing but the public half stays."""
    indices = [f"{APT}/{name}" for name in _INDICES]
    pool = {item.path: item.sha256 for item in plan.items if item.deb is not None}
    known = {file.path: file.sha256 for file in before.contents.files} if before else {}
    was = {path: sha256 for path, sha256 in known.items() if path.startswith(f"{APT}/{POOL}/")}
    if was == pool and all(known.get(path) == _sha256_if_there(folder / path) for path in indices):
        return indices
    with tempfile.TemporaryDirectory(prefix="clusterwright-") as signing:
        write_indices(
            plan.debs,
            folder / APT,
            architecture=ARCHITECTURES[wanted.architecture],
            signing=Path(signing),
            seconds=time.time(),
        )
    return indices


def _sha256_if_there(path: Path) -> str:
    return sha256_of(path) if path.is_file() else ""
