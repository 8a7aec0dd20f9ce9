"""The mirror's apt repository: chosen packages with all that they depend on, signed here."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from provision.edges.process import run, stream
from provision.errors import CommandFailed
from provision.lab.image.build import sources_for
from provision.lab.mirror.parts import Kind, Part, Workshop, key_of

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
        "Label: Clusterwright lab mirror",
        f"Date: {formatdate(seconds, usegmt=True)}",
        f"Architectures: {' '.join(architectures)}",
        "SHA256:",
    ]
    lines += [
        f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}" for name, content in indices.items()
    ]
    return "\n".join([*lines, ""])


Report = Callable[[str], None]

# Beside what the roles install: what a role or a person on a bare node may need at once.
ALWAYS = (
    "ca-certificates",
    "e2fsprogs",
    "iputils-ping",
    "nftables",
    "python3-apt",
    "sudo",
    "util-linux",
    "wireguard-go",
    "wireguard-tools",
)
_LISTS_AGE_SECONDS = 24 * 3600
_POOL = "pool"
_SIGNER = "Clusterwright lab mirror"


def build_apt(workshop: Workshop, names: Sequence[str], *, newer_than: float) -> Part:
    """The repository of `names` and their dependencies, resolved for a machine that has nothing.

    Args:
        newer_than: a time since 1970 in seconds; older lists are fetched anew (a base image that is newer
            than the lists may hold versions that these do not know).
    """
    state = workshop.root / "apt"
    if _age(state) > min(_LISTS_AGE_SECONDS, time.time() - newer_than):
        if workshop.check:
            return workshop.ensure("apt", "unresolved", kind=Kind.REAL, make=lambda folder: None)
        _update(state, workshop.release, workshop.report)
    debs = _resolve(state, sorted({*names, *ALWAYS}), workshop.report)
    key = key_of([deb.fields["SHA256"] for deb in debs], "flat, signed")
    return workshop.ensure("apt", key, kind=Kind.REAL, make=lambda folder: _make(workshop, debs, folder))


def _options(state: Path) -> tuple[str, ...]:
    """apt on folders of its own: neither this machine's packages nor its locks take part."""
    return (
        *("-o", f"Dir::Etc::SourceList={state}/sources.list", "-o", "Dir::Etc::SourceParts=/dev/null"),
        *(
            "-o",
            f"Dir::State={state}",
            "-o",
            f"Dir::State::status={state}/status",
            "-o",
            f"Dir::Cache={state}",
        ),
        *("-o", "Debug::NoLocking=1", "-o", "Acquire::Languages=none", "-o", "APT::Install-Recommends=false"),
        *("-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"),
    )


def _stamp(state: Path) -> Path:
    return state / "updated"


def _age(state: Path) -> float:
    """Seconds since the lists were fetched."""
    stamp = _stamp(state)
    return time.time() - stamp.stat().st_mtime if stamp.exists() else float("inf")


def _update(state: Path, release: str, report: Report) -> None:
    for name in ("lists/partial", "archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    report("package lists")
    (state / "sources.list").write_text("\n".join([*sources_for(release), ""]))
    finished = run(["apt-get", *_options(state), "update"], timeout_seconds=300, check=False)
    if finished.returncode == 0:
        _stamp(state).touch()
    elif not _stamp(state).exists():
        raise CommandFailed(
            "fetch Debian's package lists",
            found=finished.stderr.strip(),
            fix="Check that `apt-get update` works on this machine.",
        )
    else:
        report("the package lists cannot be fetched; the last ones serve")


def _resolve(state: Path, names: Sequence[str], report: Report) -> list[Deb]:
    """The packages, as apt chooses them; its answer is kept as long as question and lists are the same."""
    answer = state / f"resolved-{key_of(names, _stamp(state).stat().st_mtime_ns)}"
    if not answer.exists():
        report("dependencies of the Debian packages")
        ask = ["apt-get", *_options(state), "install", "--simulate", "--yes", *names]
        versions = wanted_versions(run(ask, timeout_seconds=120).stdout)
        shown = run(["apt-cache", *_options(state), "show", *versions], timeout_seconds=120).stdout
        for old in state.glob("resolved-*"):
            old.unlink()
        answer.write_text(shown)
    return parse_stanzas(answer.read_text())


def _make(workshop: Workshop, debs: Sequence[Deb], folder: Path) -> None:
    state = workshop.root / "apt"
    _download(state, debs, workshop.report)
    pool = folder / _POOL
    pool.mkdir(exist_ok=True)
    for deb in debs:
        target = pool / deb.file_name
        target.unlink(missing_ok=True)
        os.link(state / "archives" / deb.cached_name, target)
    packages = packages_text(debs, pool=_POOL).encode()
    indices = {"Packages": packages, "Packages.gz": gzip.compress(packages, mtime=0)}
    for name, content in indices.items():
        (folder / name).write_bytes(content)
    architecture = run(["dpkg", "--print-architecture"], timeout_seconds=10).stdout.strip()
    release = release_text(indices, architectures=[architecture], seconds=time.time())
    (folder / "Release").write_text(release)
    sign(workshop.root / "signing", folder)


def _download(state: Path, debs: Sequence[Deb], report: Report) -> None:
    """apt keeps what it has, goes on with what it has begun, and checks each file's sha256."""
    versions = [f"{deb.fields['Package']}={deb.fields['Version']}" for deb in debs]
    report(f"{len(debs)} Debian packages")
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        if line.startswith("Get:"):
            report(f"Debian package {line.split(' ')[0].removeprefix('Get:')} of {len(debs)}")

    status = stream(
        ["apt-get", *_options(state), "install", "--download-only", "--yes", *versions],
        timeout_seconds=1800,
        on_line=on_line,
    )
    if status != 0:
        raise CommandFailed(
            "download the mirror's Debian packages",
            found="\n".join([f"apt-get ended with status {status}", *lines[-10:]]),
            fix="Run it again: what has come is kept.",
        )


def sign(home: Path, folder: Path) -> None:
    """Signs the Release file with a key that is made once and stays on this machine."""
    home.mkdir(mode=0o700, exist_ok=True)
    gpg = (
        "gpg",
        "--homedir",
        home,
        "--batch",
        "--yes",
        "--quiet",
        "--passphrase",
        "",
        "--pinentry-mode=loopback",
    )
    try:
        if not run([*gpg, "--list-secret-keys"], timeout_seconds=30).stdout:
            run([*gpg, "--quick-generate-key", _SIGNER, "ed25519", "sign", "never"], timeout_seconds=60)
        release = folder / "Release"
        run([*gpg, "--output", folder / "InRelease", "--clear-sign", release], timeout_seconds=30)
        run(
            [*gpg, "--output", folder / "Release.gpg", "--armor", "--detach-sign", release],
            timeout_seconds=30,
        )
        run([*gpg, "--output", folder / "key.asc", "--armor", "--export", _SIGNER], timeout_seconds=30)
    finally:
        run(["gpgconf", "--homedir", home, "--kill", "all"], timeout_seconds=30, check=False)
