from __future__ import annotations

from typing import Any

import pytest

from provision.environments import conda_layer
from provision.errors import BadInput

BASE = "https://mirror.example/conda-forge"


def entry(name: str, *needs: str, **other: Any) -> dict[str, Any]:
    return {
        "name": name,
        "manager": "conda",
        "dependencies": dict.fromkeys(needs, ""),
        "url": f"{BASE}/linux-64/{name}-1-0.conda",
        "hash": {"md5": "", "sha256": f"{len(name):064x}"},
        **other,
    }


def lock(*entries: dict[str, Any]) -> conda_layer.CondaLayer:
    return conda_layer.from_conda_lock({"package": list(entries)}, channel=BASE, environment_yml="name: x\n")


def test_the_lock_names_no_host_and_can_be_read_again() -> None:
    layer = lock(entry("python", "openssl"), entry("openssl"))

    text = conda_layer.render(layer)

    assert "mirror.example" not in text
    assert "# channel: conda-forge\n" in text
    assert conda_layer.parse(text) == layer


def test_packages_stand_after_what_they_need_though_python_and_pip_need_each_other() -> None:
    layer = lock(entry("pip", "python"), entry("python", "pip", "openssl"), entry("openssl"))

    assert [package.path.split("/")[1].split("-")[0] for package in layer.packages] == [
        "openssl",
        "python",
        "pip",
    ]


def test_a_channels_address_stands_before_each_line_of_the_explicit_file() -> None:
    text = conda_layer.explicit_lines(lock(entry("python")), channel="http://10.77.0.1:8080/conda/")

    assert text == f"@EXPLICIT\nhttp://10.77.0.1:8080/conda/linux-64/python-1-0.conda#sha256:{6:064x}\n"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (entry("left-pad", manager="pip"), r"pip packages \(left-pad\)"),
        (entry("old", hash={"md5": "aa"}), "old without sha256"),
        (entry("far", url="https://other.example/main/linux-64/far-1-0.conda"), "packages of 2 channels"),
    ],
)
def test_a_solution_that_cannot_be_locked_is_refused(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        lock(entry("python"), wrong)


@pytest.mark.parametrize(
    "damaged",
    [
        "linux-64/python-1-0.conda",
        "linux-64/python-1-0.conda#sha256:12",
        "https://mirror.example/linux-64/python-1-0.conda#sha256:" + "0" * 64,
        "linux-64/python-1-0.conda#sha256:" + "0" * 64 + " --and=more",
    ],
)
def test_a_line_of_another_form_is_refused(damaged: str) -> None:
    head = "# platform: linux-64\n# channel: conda-forge\n# environment: 00\n"

    with pytest.raises(BadInput, match="not as it must be"):
        conda_layer.parse(head + damaged + "\n")


def test_a_lock_that_does_not_say_what_it_was_made_from_is_refused() -> None:
    with pytest.raises(BadInput, match="# environment:"):
        conda_layer.parse("# platform: linux-64\n# channel: conda-forge\n")
