from __future__ import annotations

from pathlib import Path

from provision.lab.image import guest
from provision.lab.image.recipe import PACKAGES, digest, mmdebstrap


def test_the_image_is_built_in_namespaces_that_end_with_the_builder() -> None:
    words = mmdebstrap(release="bookworm", target=Path("/c/root.partial"), sources=Path("/c/sources.list"))

    assert words[:7] == ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
    assert words[7:11] == ("mmdebstrap", "--mode=root", "--variant=apt", "--format=directory")
    assert f"--include={','.join(PACKAGES)}" in words
    assert words[-3:] == ("bookworm", "/c/root.partial", "/c/sources.list")


def test_another_release_or_architecture_is_another_image() -> None:
    digests = {
        digest(release=release, architecture=architecture)
        for release in ("bookworm", "jammy")
        for architecture in ("x86_64", "aarch64")
    }

    assert len(digests) == 4


def test_an_image_has_no_identity() -> None:
    assert guest.FILES["etc/machine-id"] == ""
    assert guest.FILES["etc/resolv.conf"] == ""
    assert not [name for name in guest.FILES if "ssh_host" in name]


def test_every_unit_of_ours_says_when_it_starts() -> None:
    units = [guest.FILES[f"etc/systemd/system/{name}"] for name in guest.UNIT_NAMES]

    assert all("[Install]" in unit for unit in units)
