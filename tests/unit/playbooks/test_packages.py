"""Which packages were not there before is known before they are installed, whichever role asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.unit.playbooks.role_runner import RoleRunner


@pytest.fixture(scope="module")
def runner() -> Iterator[RoleRunner]:
    with RoleRunner() as runner:
        yield runner


def says(root: Path, texts: Mapping[str, str]) -> None:
    """What programs print on a node, by their names."""
    (root / "said-by").mkdir(exist_ok=True)
    for program, text in texts.items():
        (root / "said-by" / program).write_text(text)


@pytest.mark.parametrize(
    ("role", "noted"), [("base_packages", {"git", "nftables", "chrony"}), ("time_sync", {"chrony"})]
)
def test_packages_are_noted_also_where_their_installation_fails(
    role: str, noted: set[str], tmp_path: Path, runner: RoleRunner
) -> None:
    says(tmp_path, {"apt-get": "Remv systemd-timesyncd [252]\nInst chrony (4.3)\n"})
    variables = {"groups": {"time_sync": ["te1"]}, "inventory_hostname": "te1", "cluster_apt_environment": {}}

    said = runner.run(role, tmp_path, variables=variables, fails="Install them")

    folder = tmp_path / "var/lib/clusterwright"
    assert said["failed"]
    assert noted <= set((folder / "packages").read_text().split())
    assert (folder / "replaced").read_text() == "systemd-timesyncd\n"


def test_a_package_in_whose_place_ours_would_come_is_not_taken_away(
    tmp_path: Path, runner: RoleRunner
) -> None:
    says(tmp_path, {"apt-get": "Remv ntpsec [1]\nInst chrony (4.3)\n"})
    variables = {"groups": {"time_sync": ["te1"]}, "inventory_hostname": "te1", "cluster_apt_environment": {}}

    said = runner.run("base_packages", tmp_path, variables=variables)

    assert "apt would remove ntpsec. Nothing was installed" in said["failed"]
    assert not (tmp_path / "var/lib/clusterwright/packages").exists()


# Ubuntu's driver for desktops, which somebody installed; its version is that of whatever it brought.
THEIRS = """installed nvidia-driver-535 535.247.01-0ubuntu1
installed nvidia-utils-535 535.247.01-0ubuntu1
installed libnvidia-compute-535 535.247.01-0ubuntu1
installed linux-modules-nvidia-535-6.8.0-1015-aws 6.8.0-1015.16
installed nvidia-container-toolkit 1.17.8-1
"""
OFFERED = """nvidia-headless-580-server-open | 580.95.05-0ubuntu1 | noble/restricted amd64 Packages
nvidia-utils-580-server | 580.95.05-0ubuntu1 | noble/restricted amd64 Packages
"""
GOING = ("nvidia-driver-535", "nvidia-utils-535", "linux-modules-nvidia-535-6.8.0-1015-aws")


def with_a_card(root: Path, *, taken: Iterable[str], ours: str = "") -> dict[str, object]:
    """A node with an A10 and their driver, and what apt says that another one would remove; variables."""
    device = root / "sys/bus/pci/devices/0000:05:00.0"
    device.mkdir(parents=True)
    for name, text in (("vendor", "0x10de"), ("class", "0x030200"), ("device", "0x2236")):
        (device / name).write_text(f"{text}\n")
    record = root / "var/lib/clusterwright/packages"
    record.parent.mkdir(parents=True)
    record.write_text(ours)
    removed = "".join(f"Remv {name} [535.247.01-0ubuntu1]\n" for name in taken)
    said = {
        "apt-get": f"{removed}Inst nvidia-utils-580-server (580.95.05-0ubuntu1)\n",
        "apt-mark showmanual": "nvidia-driver-535\nnvidia-container-toolkit\n",
        "dpkg-query": THEIRS,
        "sh": OFFERED,
        "uname": "6.8.0-1015-aws",
    }
    says(root, said)
    return {"cluster_apt_environment": {}, "nvidia_driver_version": "580"}


@pytest.mark.parametrize(
    ("ours", "replaces", "comes_back"),
    [
        pytest.param("", True, set(GOING), id="theirs comes back"),
        pytest.param("nvidia-utils-535\n", False, set(), id="ours with what it brought does not"),
    ],
)
def test_a_driver_in_whose_place_ours_comes_is_noted(
    ours: str, replaces: bool, comes_back: set[str], tmp_path: Path, runner: RoleRunner
) -> None:
    going = GOING if replaces else GOING[1:]
    variables = {**with_a_card(tmp_path, taken=going, ours=ours), "nvidia_driver_replace": replaces}

    said = runner.run("nvidia_driver", tmp_path, variables=variables, fails="Install them")

    folder = tmp_path / "var/lib/clusterwright"
    replaced = folder / "replaced"
    assert said["failed"] == "Install them: it fails"
    assert {"nvidia-headless-580-server-open", "nvidia-utils-580-server"} <= {
        *(folder / "packages").read_text().split()
    }
    assert set(replaced.read_text().split() if replaced.exists() else []) == comes_back


@pytest.mark.parametrize(
    ("ours", "replaces", "taken"),
    [
        pytest.param("", True, "nvidia-container-toolkit", id="no part of a driver"),
        pytest.param("nvidia-utils-535\n", False, "nvidia-driver-535", id="asked for by somebody"),
    ],
)
def test_what_is_no_driver_of_ours_is_not_taken_away_for_one(
    ours: str, replaces: bool, taken: str, tmp_path: Path, runner: RoleRunner
) -> None:
    given = with_a_card(tmp_path, taken=["nvidia-utils-535", taken], ours=ours)
    variables = {**given, "nvidia_driver_replace": replaces}

    said = runner.run("nvidia_driver", tmp_path, variables=variables)

    assert f"apt would remove {taken}. Nothing was installed or removed." in said["failed"]
    assert "nvidia_driver_replace: true" in said["failed"]
    assert not (tmp_path / "var/lib/clusterwright/replaced").exists()
