"""Where the packages of a lock come from, and with which digests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from provision.environments.lint.entries import CONDA, PIP, Fault, Group, Index, Package, error, warning

_ARCHIVE = (".tar.gz", ".tar.bz2", ".tgz", ".zip")
_LENGTHS = {"md5": 32, "sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}
_STRONG = ("sha256", "sha384", "sha512")
_TOKEN = re.compile(r"/t/[^/$]{6,}/|[?&](?:token|access_token|api_key|password)=[^&$]{6,}", re.IGNORECASE)
_OWN_INDEX = re.compile(r"/whl/cu124(/|$)")


def _sdists(group: Group) -> Iterator[Fault]:
    for one in group.packages:
        if (
            one.manager == PIP
            and one.source in ("index", "url")
            and one.files
            and one.files[0].endswith(_ARCHIVE)
        ):
            yield one, f"{one.files[0]} is an archive of sources, which each node would build"


def _of_source(group: Group, *kinds: str) -> Iterator[Package]:
    return (one for one in group.packages if one.source in kinds)


def _git(group: Group) -> Iterator[Fault]:
    for one in _of_source(group, "git"):
        yield one, "it comes from a repository: no digest covers what is checked out and built"


def _paths(group: Group) -> Iterator[Fault]:
    for one in _of_source(group, "path", "editable"):
        yield one, "it is a folder or file of the machine that locked"


def _addresses(group: Group) -> Iterator[tuple[Package | Index, str]]:
    places: list[Package | Index] = [*group.packages, *group.lock.indexes]
    yield from ((one, one.url) for one in places if "://" in one.url)


def _credentials(group: Group) -> Iterator[Fault]:
    for place, url in _addresses(group):
        netloc = urlsplit(url.removeprefix("git+")).netloc
        account = netloc.rpartition("@")[0]
        bare_user = url.startswith(("git+ssh", "ssh")) or account == "git"
        if (account and not bare_user and not account.startswith("$")) or _TOKEN.search(url):
            yield place, "its address holds a password or a token, which everybody reads with the lock"


def _plain_http(group: Group) -> Iterator[Fault]:
    for place, url in _addresses(group):
        if url.startswith(("http://", "git+http://")):
            yield place, "its address is http, which anybody on the way can answer"


def _local_without_index(group: Group) -> Iterator[Fault]:
    lock = group.lock
    if lock.indexes or lock.may_name_no_place or lock.format != "requirements":
        return
    for one in group.packages:
        if one.local and one.manager == PIP and not one.url:
            yield one, f"only an index of its own has the build +{one.local}, and the lock names none"


def _vanished(group: Group) -> Iterator[Fault]:
    cudnn = group.pip("nvidia-cudnn-cu12")
    if cudnn is None or cudnn.version != "9.1.0.70":
        return
    if any(_OWN_INDEX.search(one) for one in (cudnn.url, *(index.url for index in group.lock.indexes))):
        yield cudnn, "PyTorch's index for CUDA 12.4 does not hold 9.1.0.70 any more (since August 2026)"


def _channels(group: Group) -> dict[str, Package | Index]:
    found: dict[str, Package | Index] = {}
    for one in group.packages:
        if one.manager == CONDA and (name := _channel(one.url)):
            found.setdefault(name, one)
    return found


def _channel(url: str) -> str:
    if "/pkgs/" in url:
        return "defaults"
    for name in ("conda-forge", "pytorch", "nvidia", "bioconda", "fastai", "huggingface"):
        if f"/{name}/" in url:
            return name
    return ""


def _defaults(group: Group) -> Iterator[Fault]:
    found = _channels(group)
    if "defaults" in found and "conda-forge" in found:
        yield (
            found["defaults"],
            "it is of defaults, and others are of conda-forge: built against other libraries",
        )


def _pytorch_channel(group: Group) -> Iterator[Fault]:
    found = _channels(group)
    if "pytorch" in found and "conda-forge" in found:
        yield found["pytorch"], "it is of the channel pytorch, and others are of conda-forge"


def _no_hash(group: Group) -> Iterator[Fault]:
    for one in group.packages:
        if not one.hashes and one.source in ("index", "url"):
            yield one, "no digest says which file it is"


def _md5(group: Group) -> Iterator[Fault]:
    for one in group.packages:
        if one.hashes and not any(digest.startswith(_STRONG) for digest in one.hashes):
            yield one, f"its only digest is {one.hashes[0].partition(':')[0]}, which can be forged"


def _digests(group: Group) -> Iterator[tuple[Package, str, str]]:
    for one in group.packages:
        for digest in one.hashes:
            kind, _, value = digest.partition(":")
            yield one, kind, value


def _commit(group: Group) -> Iterator[Fault]:
    for one, kind, value in _digests(group):
        if kind == "sha256" and re.fullmatch(r"[0-9a-f]{40}", value):
            yield one, "its sha256 is a commit of a repository (40 digits), which no installer can check"


def _malformed(group: Group) -> Iterator[Fault]:
    for one, kind, value in _digests(group):
        length = _LENGTHS.get(kind)
        is_commit = kind == "sha256" and len(value) == 40
        if length and not is_commit and not re.fullmatch(rf"[0-9a-fA-F]{{{length}}}", value):
            yield one, f"its {kind} does not have {length} digits"


RULES = (
    error("sdist", _sdists, "Build a wheel of it once, serve it from an index of yours, and lock that."),
    error("git-dependency", _git, "Build a wheel of that commit once, and lock the wheel with its sha256."),
    error("path-dependency", _paths, "Build a wheel of it, serve it from an index of yours, and lock that."),
    error(
        "credentials",
        _credentials,
        "Take them out and change them: whoever has the lock has them. pip reads ~/.netrc, conda .condarc.",
        of_lock=True,
    ),
    warning("plain-http", _plain_http, "Name the address with https, or a mirror that has it.", of_lock=True),
    warning(
        "local-build-without-index",
        _local_without_index,
        "Name its index: --extra-index-url, above the pins.",
    ),
    error(
        "vanished-file",
        _vanished,
        "Lock with the index of Python packages, which has it still, or a newer torch.",
    ),
    error("defaults-with-conda-forge", _defaults, "Name conda-forge alone (nodefaults), and lock anew."),
    warning(
        "pytorch-channel",
        _pytorch_channel,
        "The channel ended with torch 2.5: take pytorch from conda-forge, or its wheel.",
    ),
    error(
        "no-hash", _no_hash, "Lock with hashes: uv pip compile --generate-hashes, conda-lock, pip-compile."
    ),
    warning("md5-only", _md5, "Lock anew with a solver that writes sha256 (conda list --explicit --sha256)."),
    error("commit-as-sha256", _commit, "Build a wheel of that commit once, and lock the wheel."),
    error("malformed-hash", _malformed, "Lock anew; a digest was cut or edited by hand."),
)
