"""Which packages were not there before is known before they are installed, whichever role asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.playbooks.role_runner import RoleRunner


@pytest.fixture(scope="module")
def runner() -> Iterator[RoleRunner]:
    with RoleRunner() as runner:
        yield runner


@pytest.mark.parametrize(
    ("role", "noted"), [("base_packages", {"git", "nftables", "chrony"}), ("time_sync", {"chrony"})]
)
def test_packages_are_noted_also_where_their_installation_fails(
    role: str, noted: set[str], tmp_path: Path, runner: RoleRunner
) -> None:
    (tmp_path / "said-by-apt").write_text("Remv systemd-timesyncd [252]\nInst chrony (4.3)\n")
    variables = {"groups": {"time_sync": ["te1"]}, "inventory_hostname": "te1", "cluster_apt_environment": {}}

    said = runner.run(role, tmp_path, variables=variables, fails="Install them")

    folder = tmp_path / "var/lib/clusterwright"
    assert said["failed"]
    assert noted <= set((folder / "packages").read_text().split())
    assert (folder / "replaced").read_text() == "systemd-timesyncd\n"


def test_a_package_in_whose_place_ours_would_come_is_not_taken_away(
    tmp_path: Path, runner: RoleRunner
) -> None:
    (tmp_path / "said-by-apt").write_text("Remv ntpsec [1]\nInst chrony (4.3)\n")
    variables = {"groups": {"time_sync": ["te1"]}, "inventory_hostname": "te1", "cluster_apt_environment": {}}

    said = runner.run("base_packages", tmp_path, variables=variables)

    assert "apt would remove ntpsec. Nothing was installed" in said["failed"]
    assert not (tmp_path / "var/lib/clusterwright/packages").exists()
