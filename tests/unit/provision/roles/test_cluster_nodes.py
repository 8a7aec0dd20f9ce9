"""Where jobs find their environment: role cluster and the command line say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from jinja2 import Environment, StrictUndefined

from provision.roles.cluster_nodes import ENVIRONMENT_VARIABLES, environment_prefix

ROLES = Path(__file__).parents[4] / "playbooks" / "roles"


def by_default(role: str, variable: str, given: dict[str, str]) -> str:
    """What a role's default says, with role cluster's own behind what a site gives."""
    shared = yaml.safe_load((ROLES / "cluster" / "defaults" / "main.yml").read_text())
    text = yaml.safe_load((ROLES / role / "defaults" / "main.yml").read_text())[variable]
    return Environment(undefined=StrictUndefined, autoescape=False).from_string(text).render(**shared | given)


@pytest.mark.parametrize(
    ("given", "conda", "prefix"),
    [
        ({}, "/data/miniconda3/bin/conda", "/data/miniconda3/envs/llm"),
        ({"cluster_data_path": "/scratch"}, "/scratch/miniconda3/bin/conda", "/scratch/miniconda3/envs/llm"),
        (
            {"cluster_data_path": "/scratch", "miniconda_prefix": "/scratch/conda"},
            "/scratch/conda/bin/conda",
            "/scratch/conda/envs/llm",
        ),
        (
            {"miniconda_prefix": "/opt/conda", "cluster_environment_name": "vision"},
            "/opt/conda/bin/conda",
            "/opt/conda/envs/vision",
        ),
    ],
)
def test_conda_and_the_environment_are_where_miniconda_is(
    given: dict[str, str], conda: str, prefix: str
) -> None:
    assert set(given) <= set(ENVIRONMENT_VARIABLES)
    assert by_default("conda_env", "conda_env_conda", given) == conda
    assert by_default("cluster", "cluster_environment_prefix", given) == environment_prefix(given) == prefix


def test_an_environment_elsewhere_is_there() -> None:
    given = {"miniconda_prefix": "/opt/conda", "cluster_environment_prefix": "/srv/llm"}

    assert environment_prefix(given) == "/srv/llm"
