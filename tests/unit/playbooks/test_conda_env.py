"""A build of the environment that cannot begin says why, and changes nothing."""

from __future__ import annotations

from pathlib import Path

from tests.unit.playbooks.role_runner import RoleRunner


def test_a_conda_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "conda.lock").write_text(f"# platform: linux-64\n# channel: c\n# environment: {'e' * 64}\n")
    (tmp_path / "wheels.lock").write_text("")
    locks = {
        "conda_env_conda_lock": str(tmp_path / "conda.lock"),
        "conda_env_wheel_lock": str(tmp_path / "wheels.lock"),
    }

    with RoleRunner() as runner:
        said = runner.run(
            "conda_env",
            tmp_path,
            variables={**locks, "conda_env_conda": "/opt/conda/bin/conda", "conda_env_space_gib": 0},
        )

    assert "with /opt/conda/bin/conda: there is no such program. Nothing was changed." in said["failed"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conda.lock", "wheels.lock"]
