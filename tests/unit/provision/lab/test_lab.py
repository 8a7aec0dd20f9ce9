from __future__ import annotations

from pathlib import Path

import pytest

from provision.errors import BadInput
from provision.lab.apply import forget_trust, make_files
from provision.lab.lab import Asked, nodes_called, wanted_lab
from provision.lab.layout import DEFAULT_DISK_BYTES, Lab, lay_out

BASE = Path("/cache/new/root")


@pytest.fixture
def existing(tmp_path: Path) -> Lab:
    return lay_out(
        name="lab",
        subnet="10.77.9.0/24",
        count=3,
        disk_bytes=1 << 30,
        base=Path("/cache/old/root"),
        root=tmp_path,
    )


def wanted(asked: Asked, existing: Lab | None) -> Lab:
    root = existing.folder.parent if existing else Path("/labs")
    return wanted_lab("lab", asked, existing=existing, base=BASE, root=root)


def test_a_new_lab_has_four_nodes_unless_asked_otherwise() -> None:
    default = wanted(Asked(), None)
    other = wanted(Asked(subnet="10.0.0.0/24", count=2, disk_bytes=1 << 20), None)

    assert (str(default.subnet), default.count, default.disk_bytes) == ("10.77.0.0/24", 4, DEFAULT_DISK_BYTES)
    assert (str(other.subnet), other.count, other.disk_bytes) == ("10.0.0.0/24", 2, 1 << 20)
    assert default.base == BASE


def test_an_existing_lab_needs_no_options_and_keeps_the_image_that_it_was_made_from(existing: Lab) -> None:
    assert wanted(Asked(), existing) == existing


def test_an_existing_lab_grows(existing: Lab) -> None:
    assert wanted(Asked(count=5), existing).count == 5


@pytest.mark.parametrize("asked", [Asked(count=2), Asked(subnet="10.77.0.0/24"), Asked(disk_bytes=2 << 30)])
def test_an_existing_lab_never_changes_otherwise(existing: Lab, asked: Asked) -> None:
    with pytest.raises(BadInput, match="provision lab down --name lab"):
        wanted(asked, existing)


def test_no_nodes_at_all_is_refused() -> None:
    with pytest.raises(BadInput, match="1 to 64 nodes"):
        wanted(Asked(count=0), None)


def test_no_names_mean_all_nodes_and_an_unknown_name_is_refused(existing: Lab) -> None:
    assert [node.name for node in nodes_called(existing, [])] == ["te1", "te2", "te3"]
    assert [node.name for node in nodes_called(existing, ["te3", "te1"])] == ["te3", "te1"]
    with pytest.raises(BadInput, match="te1 to te3"):
        nodes_called(existing, ["te9"])


def test_new_nodes_forget_the_trust_in_the_old_ones_and_keep_what_they_join_with(existing: Lab) -> None:
    secrets = existing.folder / "secrets"
    secrets.mkdir(parents=True)
    for name in ("cluster_key", "host_keys.yml", "join_key", "join_tokens.json", "controller_key"):
        (secrets / name).write_text("x")

    forget_trust(existing)

    assert sorted(path.name for path in secrets.iterdir()) == [
        "controller_key",
        "join_key",
        "join_tokens.json",
    ]
    for path in secrets.iterdir():
        path.unlink()
    forget_trust(existing)
    assert not secrets.exists()


def test_a_new_node_finds_its_own_user_data_where_a_cloud_leaves_it(existing: Lab) -> None:
    existing.user_data.mkdir(parents=True)
    (existing.user_data / "te1.json").write_text("told")
    existing.ssh_key.with_suffix(".pub").write_text("key")
    for node in existing.nodes[:2]:
        make_files(existing, node)
    place = "var/lib/cloud/instance/user-data.txt"

    assert (existing.nodes[0].upper / place).read_text() == "told"
    assert (existing.nodes[0].upper / place).stat().st_mode & 0o777 == 0o600
    assert not (existing.nodes[1].upper / place).exists()
