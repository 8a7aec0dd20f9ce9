"""The repository's own promises: its tree, its files' size, no registry's host, no loosened host keys."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TRACKED = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    if name and (ROOT / name).is_file()
)
# Put together from halves, so that this file does not name what it looks for.
REGISTRY_HOSTS = re.compile(
    "|".join(
        re.escape(first + second)
        for first, second in [
            ("py", "pi.org"),
            ("python", "hosted.org"),
            ("registry.npm", "js"),
            ("deb.deb", "ian.org"),
            ("security.deb", "ian.org"),
            ("archive.ub", "untu.com"),
            ("repo.ana", "conda.com"),
            ("conda.ana", "conda.org"),
            ("download.py", "torch.org"),
        ]
    )
)
LOOSENED = re.compile(
    "|".join(
        first + second
        for first, second in [
            (r"StrictHostKey", r"Checking[= ]+(no|off)\b"),
            (r"host_key_", r"checking *[=:] *[Ff]alse"),
            (r"AutoAdd", r"Policy"),
        ]
    )
)


def text_of(path: Path) -> str:
    return path.read_text(errors="replace")


def test_no_file_names_a_registry_host() -> None:
    named = [str(path.relative_to(ROOT)) for path in TRACKED if REGISTRY_HOSTS.search(text_of(path))]

    assert not named, f"where things come from is a variable of the inventory (decision D6): {named}"


def test_no_file_loosens_host_keys() -> None:
    loosened = [str(path.relative_to(ROOT)) for path in TRACKED if LOOSENED.search(text_of(path))]

    assert not loosened


@pytest.mark.parametrize(
    "path", [p for p in TRACKED if p.suffix == ".py"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_a_python_file_has_one_subject(path: Path) -> None:
    assert len(text_of(path).splitlines()) <= 400


def tree_in_readme() -> dict[str, bool]:
    """Paths of the README's tree block, and whether each is a folder."""
    block = re.search(r"<!-- tree -->\n```\n(.*?)```", text_of(ROOT / "README.md"), re.DOTALL)
    assert block is not None
    found: dict[str, bool] = {}
    stack: list[str] = []
    for line in block.group(1).splitlines():
        name = line.split("#")[0].rstrip()
        if not name.strip():
            continue
        depth = (len(name) - len(name.lstrip())) // 2
        stack = [*stack[:depth], name.strip()]
        found["".join(stack)] = name.endswith("/")
    return found


def folders_on_disk() -> set[str]:
    """Top-level entries, the packages' rooms and the roles: what a newcomer should see drawn."""
    drawn: set[str] = set()
    for path in TRACKED:
        parts = path.relative_to(ROOT).parts
        if len(parts) > 1:
            drawn.add(f"{parts[0]}/")
        if parts[0] in ("provision", "runtime", "tests", "playbooks") and len(parts) > 2:
            drawn.add(f"{parts[0]}/{parts[1]}/")
    return drawn


def test_the_tree_in_the_readme_is_the_tree_on_disk() -> None:
    drawn = tree_in_readme()

    missing_on_disk = sorted(name for name in drawn if not (ROOT / name).exists())
    missing_in_readme = sorted(name for name in folders_on_disk() if name not in drawn)

    assert not missing_on_disk
    assert not missing_in_readme


# What README's tables have to tell of: a word of the site's line, and the variable that it names.
SITES = [
    ("another port", "ansible_port"),
    ("jump host", "ansible_ssh_common_args"),
    ("another user", "ansible_user"),
    ("sudo that asks", "ansible_become_password"),
    ("snapshot", "data_disk_adopt"),
    ("/data on the system's disk", "data_disk_device"),
    ("public address", "cluster_address"),
    ("a proxy on the way to packages", "cluster_proxy"),
    ("IPv6", "cluster_address"),
    ("driver that is older", "nvidia_driver_version"),
]


def rows_in_readme() -> dict[str, str]:
    """Of the tables of sites, what stands on the right by what stands on the left."""
    rows = (
        line.strip("|").split("|") for line in text_of(ROOT / "README.md").splitlines() if line[:1] == "|"
    )
    return {cells[0].strip(): cells[1] for cells in rows if len(cells) == 2}


@pytest.mark.parametrize(("site", "variable"), SITES)
def test_each_kind_of_site_has_its_line_with_a_variable(site: str, variable: str) -> None:
    assert [cell for row, cell in rows_in_readme().items() if site in row and f"`{variable}" in cell]


def test_readme_s_tables_of_sites_name_variables_that_there_are() -> None:
    specs = [yaml.safe_load(text_of(path)) for path in ROOT.glob("playbooks/roles/*/meta/argument_specs.yml")]
    known = {name for spec in specs for name in spec["argument_specs"]["variables"].get("options", {})}
    named = {
        name for cell in rows_in_readme().values() for name in re.findall(r"`([a-z]+_[a-z_]+)[:`]", cell)
    }

    assert len(named & known) >= 15
    assert {name for name in named - known if not name.startswith("ansible_")} == set()
