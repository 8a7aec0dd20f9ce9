from __future__ import annotations

import hashlib

from provision.bundle.deb import (
    Deb,
    packages_text,
    parse_stanzas,
    release_text,
    wanted_versions,
)

SHOWN = """\
Package: git
Architecture: amd64
Version: 1:2.39.5-0+deb12u2
Depends: libc6 (>= 2.34), perl
Description: fast, scalable, distributed revision control system
 Git is popular version control.
 .
 This package provides the main components.
Filename: pool/main/g/git/git_2.39.5-0+deb12u2_amd64.deb
Size: 7260560
SHA256: aa

Package: ncdu
Architecture: amd64
Version: 1.18-0.2
Filename: pool/main/n/ncdu/ncdu_1.18-0.2_amd64.deb
Size: 45
SHA256: bb
"""
SIMULATED = """\
NOTE: This is only a simulation!
Inst gcc-12-base (12.2.0-14+deb12u1 Debian:12.12/oldstable [amd64])
Inst git (1:2.39.5-0+deb12u2 Debian-Security:12/oldstable-security [amd64]) [tzdata:amd64 ]
Conf git (1:2.39.5-0+deb12u2 Debian-Security:12/oldstable-security [amd64])
"""


def test_continued_lines_stay_with_their_field() -> None:
    git, ncdu = parse_stanzas(SHOWN)

    assert git.fields["Description"].endswith("provides the main components.")
    assert git.fields["Depends"] == "libc6 (>= 2.34), perl"
    assert ncdu.fields["Version"] == "1.18-0.2"


def test_a_package_is_named_as_apt_keeps_it_and_without_its_epoch_in_the_pool() -> None:
    git = parse_stanzas(SHOWN)[0]

    assert git.cached_name == "git_1%3a2.39.5-0+deb12u2_amd64.deb"
    assert git.file_name == "git_2.39.5-0+deb12u2_amd64.deb"


def test_what_apt_would_install_is_asked_for_by_version() -> None:
    assert wanted_versions(SIMULATED) == ["gcc-12-base=12.2.0-14+deb12u1", "git=1:2.39.5-0+deb12u2"]


def test_the_index_names_the_pool_and_can_be_read_again() -> None:
    debs = parse_stanzas(SHOWN)

    again = parse_stanzas(packages_text(reversed(debs), pool="pool"))

    assert [deb.fields["Filename"] for deb in again] == [
        "pool/git_2.39.5-0+deb12u2_amd64.deb",
        "pool/ncdu_1.18-0.2_amd64.deb",
    ]
    assert again[0] == Deb(fields={**debs[0].fields, "Filename": "pool/git_2.39.5-0+deb12u2_amd64.deb"})


def test_the_release_file_vouches_for_each_index_by_size_and_sha256() -> None:
    text = release_text({"Packages": b"abc"}, architectures=["amd64"], seconds=0)

    assert f" {hashlib.sha256(b'abc').hexdigest()} 3 Packages\n" in text
    assert "Date: Thu, 01 Jan 1970 00:00:00 GMT\n" in text
