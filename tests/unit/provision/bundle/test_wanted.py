from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provision.bundle.wanted import Wanted, wanted_of
from provision.errors import BadInput

SITE: dict[str, Any] = {
    "cluster_name": "te",
    "cluster_environment_name": "llm",
    "cluster_environment_chosen": "cuda126",
    "cluster_environment_folder": "/site/envs/llm",
    "cluster_architecture": "x86_64",
    "cluster_without": [],
    "conda_env_conda_lock": "/site/envs/llm/conda-linux-64.lock",
    "conda_env_wheel_lock": "/site/locks/own.lock",
    "conda_env_checks": "/site/envs/llm/checks.yml",
    "conda_env_channel": "https://conda.example/forge/",
    "conda_env_wheel_source": "",
    "base_packages_names": ["git", "chrony"],
    "base_packages_apt_source": "",
    "base_packages_apt_suite": "./",
    "base_packages_apt_components": [],
    "base_packages_apt_key": "",
    "miniconda_installer_source": "https://conda.example/Miniconda3.sh",
    "miniconda_installer_sha256": "a" * 64,
    "nvidia_driver_version": "",
    "nvidia_driver_names": ["nvidia-open"],
    "nvidia_driver_apt_source": "http://cuda.example/debian12",
    "nvidia_driver_apt_suite": "/",
    "nvidia_driver_apt_components": [],
    "nvidia_driver_apt_key": "KEY\n",
}


def wanted(
    *others: dict[str, Any],
    kinds: tuple[str, ...] = (),
    channel: str = "",
    more: tuple[str, ...] = (),
    **said: Any,
) -> Wanted:
    first = {**SITE, **said}
    nodes = {f"te{n}": {**first, **other} for n, other in enumerate(({}, *others), start=1)}
    return wanted_of(nodes, kinds=kinds, channel=channel, release="bookworm", more=more)


def test_the_site_says_what_is_wanted() -> None:
    found = wanted({"base_packages_names": ["git", "zsh"]}, more=("linux-headers-amd64",))

    assert found.packages == ["chrony", "git", "linux-headers-amd64", "zsh"]
    assert found.wheel_locks == [Path("/site/locks/own.lock")]
    assert (found.apt_sources, found.drivers) == ((), ())
    assert found.channel == "https://conda.example/forge"
    assert found.made_for["kinds"] == "cuda126"


def test_kinds_that_are_named_take_the_place_of_the_one_that_is_chosen() -> None:
    found = wanted(kinds=("cuda126", "cpu"), cluster_architecture="aarch64", cluster_environment_chosen="")

    assert [lock.name for lock in found.wheel_locks] == [
        "wheels-cuda126-aarch64.lock",
        "wheels-cpu-aarch64.lock",
    ]


def test_repositories_of_the_site_are_read_with_their_keys() -> None:
    mirror = {"base_packages_apt_source": "http://m.example/debian", "base_packages_apt_suite": "bookworm"}
    found = wanted(**mirror, base_packages_apt_components=["main"], nvidia_driver_version="580")

    assert [source.line(Path(f"/w/{source.name}.asc")) for source in found.apt_sources] == [
        "deb http://m.example/debian bookworm main",
        "deb [signed-by=/w/nvidia_driver.asc] http://cuda.example/debian12 /",
    ]
    assert found.drivers == ("nvidia-open",)


def test_what_a_site_does_itself_is_not_in_its_bundle() -> None:
    left = {"cluster_without": ["base_packages", "nvidia_driver"]}

    assert wanted(**left, nvidia_driver_version="580").packages == []
    assert wanted(**left, nvidia_driver_version="580").drivers == ()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"cluster_environment_chosen": ""}, "no kind is chosen"),
        ({"conda_env_channel": "conda-forge"}, "conda-forge is a name"),
        ({"miniconda_installer_source": ""}, "miniconda_installer_source is empty"),
        ({"miniconda_installer_sha256": ""}, "miniconda_installer_sha256 is empty"),
    ],
)
def test_what_is_not_said_is_asked_for(said: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        wanted(**said)


def test_a_node_that_says_otherwise_is_named() -> None:
    with pytest.raises(BadInput, match="cluster_architecture of te2 is another one than that of te1"):
        wanted({"cluster_architecture": "aarch64"})
