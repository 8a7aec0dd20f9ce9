"""Where apt finds the packages of nodes: in the archives of Debian or Ubuntu that this machine uses."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from provision.edges.process import run
from provision.errors import BadInput, MissingRequirement

INDEX_TARGETS = (
    *("apt-get", "indextargets", "--format"),
    "$(CREATED_BY)|$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)",
)


# Whose archives this program knows to hold beside each other: the places of one release are those of another.
OTHER_RELEASES = {"Debian": ("bookworm", "trixie"), "Ubuntu": ("jammy", "noble")}


def sources_of(index_targets: str, *, own: str, release: str) -> Sequence[str]:
    """The lines of a sources.list for a release, in the distribution's archives that this machine uses.

    Args:
        index_targets: what the command INDEX_TARGETS prints.
        own: the code name of this machine's release, as in bookworm-security.
        release: that of the release asked for; of another distribution than this machine's nothing is found.
    """
    found = []
    for line in index_targets.splitlines():
        kind, origin, *place = line.split("|")
        if kind != "Packages" or origin not in OTHER_RELEASES or len(place) != 3:
            continue
        address, suite, component = place
        if release == own or ({release, own} <= {*OTHER_RELEASES[origin]} and own in suite):
            found.append(f"deb {address} {suite.replace(own, release)} {component}")
    return list(dict.fromkeys(found))


def own_release() -> str:
    """The code name of this machine's release, as in bookworm."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "")


def sources_for(release: str) -> Sequence[str]:
    """The lines of a sources.list for a release ("": this machine's own), in the archives that apt uses here.

    Raises:
        BadInput: it is none of this machine's distribution.
        MissingRequirement: apt knows no archive here.
    """
    targets = run(INDEX_TARGETS, timeout_seconds=30).stdout
    own = own_release()
    if found := sources_of(targets, own=own, release=release or own):
        return found
    if sources_of(targets, own=own, release=own):
        raise BadInput(
            f"find packages of {release}",
            found=f"this machine's archives are those of {own}, and no {release} beside it is known",
            fix=f"Known: {'; '.join(', '.join(known) for known in OTHER_RELEASES.values())}.",
        )
    raise MissingRequirement(
        "find the packages of nodes",
        found="apt knows no archive of Debian or Ubuntu on this machine",
        fix="Run `apt-get update`.",
    )
