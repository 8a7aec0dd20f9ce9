"""Makes an image for containers with podman: whole and with the digest that was asked for, or not at all."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from provision.edges.fetch import fetch
from provision.edges.process import run, stream
from provision.environments.conda_layer import explicit_lines, parse
from provision.environments.oci import recipe
from provision.environments.oci.recipe import Limits, Wanted
from provision.environments.on_nodes import digest_program
from provision.environments.wheel_lock import apart
from provision.errors import BadInput, Busy, CommandFailed, MissingRequirement

_ROLE = Path(__file__).parents[3] / "playbooks" / "roles" / "conda_env"
_ASK_SECONDS, _FETCH_SECONDS, _BUILD_SECONDS = 60.0, 900.0, 5400.0
_INSTALL = "Install it: apt-get install podman uidmap (Debian 12, Ubuntu 22.04 and newer)."


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """From where it is installed: channel, index of wheels ("": pip's own), Miniconda's installer."""

    channel: str
    wheel_source: str
    installer: str
    installer_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A made image: name, id, bytes, and the digest of its environment."""

    tag: str
    id: str
    bytes: int
    digest: str


def require(wanted: Wanted) -> None:
    """Raises MissingRequirement where what makes images is not here or does not work, and says what to do."""
    asked = f"make an image of {wanted.name}"
    if shutil.which("podman") is None:
        raise MissingRequirement(asked, found="there is no podman on this machine", fix=_INSTALL)
    finished = run(["podman", "info"], timeout_seconds=_ASK_SECONDS, check=False)
    if finished.returncode != 0:
        said = "\n".join(finished.stderr.strip().splitlines()[-5:])
        fix = (
            "See that `podman info` works for this user; docs/containers.md says what it needs without root."
        )
        raise MissingRequirement(asked, found=f"podman does not work here: {said}", fix=fix)
    if not wanted.base and not _exists(recipe.root_tag(_release())) and shutil.which("mmdebstrap") is None:
        fix = "Install it: apt-get install mmdebstrap. Or name an image: --base debian:12"
        raise MissingRequirement(asked, found="there is no mmdebstrap to make its root with", fix=fix)


def make(wanted: Wanted, places: Places, *, checks: str, agreed: str, report: Callable[[str], None]) -> Image:
    """Builds the environment in a container, compares its digest, and makes an image of it.

    Args:
        checks: the text of the environment's checks.yml.
        agreed: the digest that nodes have of these locks at this place; "" where none is known.

    Raises:
        Busy: another process makes this image.
        CommandFailed: a step failed, or the digest is another one. No image and no container is left.
    """
    limits = _limits()
    _clear(wanted)
    root = wanted.base or _root(report)
    try:
        with tempfile.TemporaryDirectory(prefix="clusterwright-") as scratch:
            inputs = Path(scratch)
            inputs.chmod(0o755)  # a container without root reads it as another user
            _write_inputs(inputs, wanted, places, checks)
            words = recipe.build_words(wanted, root, inputs, _pip(places), limits)
            digest = _built(words, wanted, report)
        if digest != (agreed or digest):
            raise CommandFailed(
                f"make the image {wanted.tag}",
                found=f"its environment has the digest {digest}, and nodes have {agreed} of the same locks",
                fix="Nothing is left of it. Whether nodes are as built: provision env verify --full",
            )
        return _stored(wanted, digest, limits, report)
    finally:
        _remove(wanted)


def _remove(wanted: Wanted) -> None:
    words = ["podman", "rm", "--force", "--ignore", "--time", "0", wanted.container]
    run(words, timeout_seconds=300, check=False)


def _clear(wanted: Wanted) -> None:
    """Takes away what a build left that was killed."""
    words = ["podman", "container", "inspect", "--format", "{{.State.Running}}", wanted.container]
    found = run(words, timeout_seconds=_ASK_SECONDS, check=False)
    if found.returncode == 0 and found.stdout.strip() == "true":
        raise Busy(
            f"make the image {wanted.tag}",
            found=f"the container {wanted.container} is at it",
            fix=f"Wait for it, or: podman rm --force {wanted.container}",
        )
    _remove(wanted)


def _root(report: Callable[[str], None]) -> str:
    tag = recipe.root_tag(_release())
    if _exists(tag):
        return tag
    report("root of the image")
    with tempfile.TemporaryDirectory(prefix="clusterwright-", dir="/var/tmp") as scratch:
        target = Path(scratch) / "root.tar"
        lines: list[str] = []
        words = recipe.root_words(_release(), target, as_root=os.geteuid() == 0)
        status = stream(words, timeout_seconds=_BUILD_SECONDS, on_line=lines.append)
        if status != 0:
            raise CommandFailed(
                "make the root of an image",
                found="\n".join([f"mmdebstrap ended with status {status}", *lines[-10:]]),
                fix="Check that `apt-get update` works here, or name an image of yours with --base.",
            )
        run(["podman", "import", "--quiet", target, tag], timeout_seconds=_BUILD_SECONDS)
    return tag


def _write_inputs(folder: Path, wanted: Wanted, places: Places, checks: str) -> None:
    target = folder / "installer.sh"
    fetch(places.installer, target, sha256=places.installer_sha256, timeout_seconds=_FETCH_SECONDS)
    wheels, sources = apart(wanted.wheel_lock)
    texts = {
        "build.sh": recipe.SCRIPT,
        "conda.txt": explicit_lines(parse(wanted.conda_lock), channel=recipe.CHANNEL),
        "channel": places.channel,
        "wheels.txt": wheels,
        "sources.txt": sources,
        "variables.txt": recipe.variables_text(_role()),
        "checks.json": json.dumps(yaml.safe_load(checks)),
        "run_checks.py": (_ROLE / "files" / "run_checks.py").read_text(),
        "digest.py": digest_program(),
        "built_from": wanted.built_from,
    }
    for name, text in texts.items():
        (folder / name).write_text(text)


def _role() -> Mapping[str, object]:
    loaded: dict[str, object] = yaml.safe_load((_ROLE / "vars" / "main.yml").read_text())
    return loaded


def _pip(places: Places) -> list[str]:
    return recipe.pip_words(_role(), places.wheel_source)


def _built(words: list[str], wanted: Wanted, report: Callable[[str], None]) -> str:
    """Runs the steps, and returns the digest of what they made."""
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        if line.startswith("step: "):
            report(line.removeprefix("step: "))

    status = stream(words, timeout_seconds=_BUILD_SECONDS, on_line=on_line)
    if status != 0:
        steps = [line for line in lines if line.startswith("step: ")]
        where = f"in the {steps[-1]}" if steps else "before its first step"
        raise CommandFailed(
            f"build the environment {wanted.name} for an image",
            found="\n".join([f"podman ended with status {status} {where}", *lines[-12:]]),
            fix="Nothing is left of it. docs/containers.md says what podman needs.",
        )
    return _digest_in(lines[-1])


def _digest_in(text: str) -> str:
    return str(json.loads(text)["digest"])


def _stored(wanted: Wanted, digest: str, limits: Limits, report: Callable[[str], None]) -> Image:
    """The image, once what was stored has the digest; it gets its name last, and the one before goes."""
    report("the image")
    former = _ids(wanted.tag)
    commit = run(recipe.commit_words(wanted, digest), timeout_seconds=_BUILD_SECONDS)
    identity = commit.stdout.split()[-1]
    try:
        words = recipe.digest_words(wanted.prefix, identity, limits)
        finished = run(words, timeout_seconds=_BUILD_SECONDS, stdin=digest_program(), check=False)
        if finished.returncode != 0 or _digest_in(finished.stdout) != digest:
            said = finished.stderr.strip().splitlines()[-5:] or [finished.stdout[:500]]
            raise CommandFailed(
                f"make the image {wanted.tag}",
                found="\n".join(["what is stored is not what was built:", *said]),
                fix="The image is removed. See that the disk of podman's storage is sound, and run it again.",
            )
        run(["podman", "tag", identity, wanted.tag], timeout_seconds=_ASK_SECONDS)
    except BaseException:
        run(["podman", "rmi", identity], timeout_seconds=300, check=False)
        raise
    for one in former:
        run(["podman", "rmi", one], timeout_seconds=300, check=False)  # stays where a container uses it
    shown = run(["podman", "image", "inspect", identity], timeout_seconds=_ASK_SECONDS).stdout
    return Image(tag=wanted.tag, id=identity, bytes=int(json.loads(shown)[0]["Size"]), digest=digest)


def save(image: Image, target: Path) -> None:
    """Writes an image as an archive (OCI), whole or not at all.

    Raises:
        CommandFailed: it cannot be written.
        BadInput: something is there already.
    """
    asked = f"write {target}"
    if target.exists():
        raise BadInput(asked, found="it exists", fix="Name another file with --output.")
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    words = ("podman", "save", "--quiet", "--format", "oci-archive", "--output", str(partial), image.tag)
    try:
        run(words, timeout_seconds=_BUILD_SECONDS)
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)


def _exists(tag: str) -> bool:
    words = ["podman", "image", "exists", tag]
    return run(words, timeout_seconds=_ASK_SECONDS, check=False).returncode == 0


def _ids(tag: str) -> list[str]:
    """The image of that name, if there is one."""
    words = ["podman", "image", "inspect", "--format", "{{.Id}}", tag]
    return run(words, timeout_seconds=_ASK_SECONDS, check=False).stdout.split()


def _release() -> str:
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "stable")


def _limits() -> Limits:
    """This process's; podman raises its own number of processes to that of the kernel's table at most."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    most = int(Path("/proc/sys/kernel/pid_max").read_text())
    return Limits(files=_finite(files, 1 << 20), processes=min(_finite(processes, most), most))


def _finite(limit: int, most: int) -> int:
    return most if limit == resource.RLIM_INFINITY else min(limit, most)
