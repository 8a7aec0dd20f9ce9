"""Which packages a site gets: none that takes the place of what it brings itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.playbooks.role_runner import RoleRunner


@pytest.fixture(scope="module")
def runner() -> Iterator[RoleRunner]:
    with RoleRunner() as runner:
        yield runner


@pytest.mark.parametrize(("groups", "installed"), [(["time_sync"], True), ([], False)])
def test_a_site_that_does_the_clocks_itself_keeps_its_time_daemon(
    groups: list[str], installed: bool, tmp_path: Path, runner: RoleRunner
) -> None:
    variables = {"group_names": ["base_packages", *groups], "cluster_apt_environment": {}}

    said = runner.run("base_packages", tmp_path, variables=variables)

    added = (tmp_path / "var/lib/clusterwright/packages").read_text().splitlines()
    assert said["failed"] == ""
    assert ("chrony" in added) is installed
    assert {"git", "nftables"} <= set(added)


def test_what_apt_takes_away_for_them_is_noted_before_they_are_installed(
    tmp_path: Path, runner: RoleRunner
) -> None:
    noted = tmp_path / "var/lib/clusterwright"
    noted.mkdir(parents=True)
    (noted / "packages").write_text("ours\n")
    (tmp_path / "said-by-apt").write_text("Remv systemd-timesyncd [252]\nRemv ours [1]\nInst chrony (4.3)\n")
    variables = {"group_names": ["base_packages", "time_sync"], "cluster_apt_environment": {}}

    said = runner.run("base_packages", tmp_path, variables=variables)

    assert said["failed"] == ""
    assert (noted / "replaced").read_text() == "systemd-timesyncd\n"


@pytest.mark.parametrize("fails", ["", "Fetch the lists of the node's own sources"])
def test_a_teardown_ends_once_what_made_room_is_back(fails: str, tmp_path: Path, runner: RoleRunner) -> None:
    noted = tmp_path / "var/lib/clusterwright"
    noted.mkdir(parents=True)
    (noted / "replaced").write_text("systemd-timesyncd\n")
    variables = {
        "cluster_name": "c",
        "teardown_confirm": "c",
        "ssh_trust_authorized_keys_on_node": "/root/.ssh/authorized_keys",
        "ssh_trust_own_way": {},
    }

    said = runner.run("teardown", tmp_path, variables=variables, fails=fails)

    assert ("install systemd-timesyncd again, which made room" in said["failed"]) is bool(fails)
    assert (noted / "replaced").exists() is bool(fails)
