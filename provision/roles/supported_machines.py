"""Which machines roles are written for, by what a node says of itself before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Releases = Mapping[str, Mapping[str, str]]
_WORD = "machine "
# Of the question for Python, in the same answer: without it the login itself failed, which is said elsewhere.
_ANSWERED = "python "


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A distribution and its release as in os-release(5), its name for people, and what `uname -m` says."""

    distribution: str
    release: str
    architecture: str
    name: str


def machine_in(answer: Sequence[str]) -> Machine | None:
    """The machine of node_access's answer; None where it says none."""
    line = next((line for line in answer if line.startswith(_WORD)), "")
    words = line.split(maxsplit=4)[1:]
    if len(words) < 3:
        return None
    distribution, release, architecture, *name = words
    said = name[0] if name else f"{distribution} {release}"
    return Machine(distribution=distribution, release=release, architecture=architecture, name=said)


def refusals(answers: Mapping[str, Sequence[str]], *, releases: Releases, architecture: str) -> list[str]:
    """Why nodes are not taken, one line each.

    Args:
        answers: the lines that each node printed; nodes that were not reached are left out.
        releases: by distribution the supported releases and their code names.
        architecture: of the site's locks.
    """
    found = []
    for node, answer in answers.items():
        machine = machine_in(answer)
        if machine is None and not any(line.startswith(_ANSWERED) for line in answer):
            continue
        if machine is None:
            found.append(f"{node}: it does not say what it is (/etc/os-release, uname -m)")
            continue
        if machine.release not in releases.get(machine.distribution, {}):
            found.append(f"{node}: it has {machine.name}, and supported are {in_words(releases)}")
        if machine.architecture != architecture:
            found.append(
                f"{node}: its processor is {machine.architecture}, and the site's locks are for "
                f"{architecture} (cluster_architecture; all nodes of a cluster have the same environment)"
            )
    return found


def in_words(releases: Releases) -> str:
    """The list for people: Debian 12 (bookworm) and 13 (trixie), ..."""
    lists = [
        f"{distribution.capitalize()} {' and '.join(f'{number} ({name})' for number, name in known.items())}"
        for distribution, known in releases.items()
    ]
    return ", ".join(lists)
