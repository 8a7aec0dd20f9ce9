from __future__ import annotations

import pytest

from provision.bundle.apt_sources import sources_of

INDEX_TARGETS = """\
Packages|Debian|http://mirror.example/debian/|bookworm|main
Translations|Debian|http://mirror.example/debian/|bookworm|main
Packages|Debian|http://mirror.example/security/|bookworm-security|main
Packages|Ubuntu|http://mirror.example/ubuntu/|jammy|universe
Packages|Some Vendor|https://vendor.example/apt/|stable|main
Packages|Debian|http://mirror.example/debian/|bookworm|main
"""


def test_only_the_distributions_own_archives_are_taken_and_each_once() -> None:
    assert sources_of(INDEX_TARGETS, own="bookworm", release="bookworm") == [
        "deb http://mirror.example/debian/ bookworm main",
        "deb http://mirror.example/security/ bookworm-security main",
        "deb http://mirror.example/ubuntu/ jammy universe",
    ]


def test_another_release_lies_beside_this_machine_s_own_in_its_distribution_s_archives() -> None:
    assert sources_of(INDEX_TARGETS, own="bookworm", release="trixie") == [
        "deb http://mirror.example/debian/ trixie main",
        "deb http://mirror.example/security/ trixie-security main",
    ]
    assert sources_of(INDEX_TARGETS, own="jammy", release="noble") == [
        "deb http://mirror.example/ubuntu/ noble universe"
    ]


@pytest.mark.parametrize(("own", "release"), [("bookworm", "noble"), ("bookworm", "sid"), ("sid", "trixie")])
def test_a_release_that_lies_elsewhere_or_is_not_known_is_not_guessed(own: str, release: str) -> None:
    assert sources_of(INDEX_TARGETS, own=own, release=release) == []
