"""An apt repository of chosen packages with all that they depend on, resolved by apt and signed here."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from provision.bundle.deb import KEY, POOL, Deb, packages_text, release_text, wanted_versions
from provision.edges.process import run, stream
from provision.errors import CommandFailed

Report = Callable[[str], None]
_SIGNER = "Clusterwright"


@dataclass(frozen=True, slots=True, kw_only=True)
class Apt:
    """apt on folders of its own below `state`: neither this machine's packages nor its locks take part.

    `sources` are the lines of a sources.list; `architecture` is dpkg's name of the nodes' processors, "" this
    machine's own.
    """

    state: Path
    sources: Sequence[str]
    report: Report
    architecture: str = ""

    @property
    def options(self) -> tuple[str, ...]:
        settings = {
            "Dir::Etc::SourceList": f"{self.state}/sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State": str(self.state),
            "Dir::State::status": f"{self.state}/status",
            "Dir::Cache": str(self.state),
            "Debug::NoLocking": "1",
            "Acquire::Languages": "none",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Acquire::Retries": "3",
            **({"APT::Architecture": self.architecture} if self.architecture else {}),
        }
        return tuple(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))

    def update(self) -> str:
        """Fetches the package lists; returns why they cannot be had, "" where they came."""
        for name in ("lists/partial", "archives/partial"):
            (self.state / name).mkdir(parents=True, exist_ok=True)
        (self.state / "status").touch()
        self.report("package lists")
        (self.state / "sources.list").write_text("\n".join([*self.sources, ""]))
        finished = run(["apt-get", *self.options, "update"], timeout_seconds=300, check=False)
        return "" if finished.returncode == 0 else finished.stderr.strip() or "apt-get update failed"

    def shown(self, names: Sequence[str]) -> str:
        """What `apt-cache show` says of packages and all that they need, as apt chooses them.

        Raises:
            CommandFailed: one is not known, or cannot be installed.
        """
        self.report("dependencies of the Debian packages")
        ask = ["apt-get", *self.options, "install", "--simulate", "--yes", *names]
        versions = wanted_versions(run(ask, timeout_seconds=120).stdout)
        return run(["apt-cache", *self.options, "show", *versions], timeout_seconds=120).stdout

    def download(self, debs: Sequence[Deb]) -> None:
        """Fetches these: apt keeps what it has, goes on with what it has begun, and checks each sha256.

        Raises:
            CommandFailed: one cannot be had.
        """
        versions = [f"{deb.fields['Package']}={deb.fields['Version']}" for deb in debs]
        self.report(f"{len(debs)} Debian packages")
        lines: list[str] = []

        def on_line(line: str) -> None:
            lines.append(line)
            if line.startswith("Get:"):
                self.report(f"Debian package {line.split(' ')[0].removeprefix('Get:')} of {len(debs)}")

        status = stream(
            ["apt-get", *self.options, "install", "--download-only", "--yes", *versions],
            timeout_seconds=1800,
            on_line=on_line,
        )
        if status != 0:
            raise CommandFailed(
                "download the Debian packages",
                found="\n".join([f"apt-get ended with status {status}", *lines[-10:]]),
                fix="Run it again: what has come is kept.",
            )

    def archive(self, deb: Deb) -> Path:
        """Where `download` puts a package."""
        return self.state / "archives" / deb.cached_name


def write_indices(
    debs: Sequence[Deb], folder: Path, *, architecture: str = "", signing: Path, seconds: float
) -> None:
    """Makes `folder` a repository of the packages that lie in its pool.

    Args:
        architecture: dpkg's name of the nodes' processors; "" is this machine's own.
        signing: the folder of the key that signs it, which is made once and stays.
        seconds: the time that it states, since 1970.
    """
    folder.mkdir(parents=True, exist_ok=True)
    packages = packages_text(debs, pool=POOL).encode()
    indices = {"Packages": packages, "Packages.gz": gzip.compress(packages, mtime=0)}
    for name, content in indices.items():
        (folder / name).write_bytes(content)
    own = architecture or run(["dpkg", "--print-architecture"], timeout_seconds=10).stdout.strip()
    (folder / "Release").write_text(release_text(indices, architectures=[own], seconds=seconds))
    sign(signing, folder)


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
        run([*gpg, "--output", folder / KEY, "--armor", "--export", _SIGNER], timeout_seconds=30)
    finally:
        run(["gpgconf", "--homedir", home, "--kill", "all"], timeout_seconds=30, check=False)
