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
