"""`provision node`: what `--check` prints of an edit, and what is said of one that was carried out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from provision.audit.findings import Finding
from provision.cli import app
from provision.commands import node
from provision.nodes.life import Changed

ROOT = Path(__file__).parents[4]
HOSTS = """\
cluster:
  hosts:
    te1: {ansible_host: 127.0.0.1}
    te2: {ansible_host: 127.0.0.2}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "00-groups.yml").symlink_to(ROOT / "inventory" / "groups.yml")
    (tmp_path / "hosts.yml").write_text(HOSTS)
    return tmp_path


def said_of(site: Path, *words: str) -> str:
    told = CliRunner().invoke(app, ["node", *words, "-i", str(site), "--check"], catch_exceptions=False)
    assert told.exit_code == 0
    assert {path.name: path.read_text() for path in site.glob("[!0]*")} == {"hosts.yml": HOSTS}
    return told.stdout


def test_a_check_prints_the_edit_and_each_playbook_with_its_reason(site: Path) -> None:
    edit, removed, key, own_way, tell, smoke = said_of(site, "remove", "te2").splitlines()

    assert (edit, removed) == (f"{site}/hosts.yml", "  -     te2: {ansible_host: 127.0.0.2}")
    assert key.startswith("the cluster's key is given up, and a new one made  # ")
    assert own_way.startswith(f"ansible-playbook playbooks/members.yml -i {site} --check --limit 'all:!te2' ")
    assert tell.startswith(f"ansible-playbook playbooks/members.yml -i {site}  # one login")
    assert smoke.startswith(
        f"ansible-playbook playbooks/site.yml -i {site} --limit te1 --tags smoke_test  # "
    )


def test_options_of_a_new_node_are_in_its_line_as_json(site: Path) -> None:
    words = ("te3", "--address", "10.0.0.3", "--cluster-address", "10.88.0.3", "--slots", "8", "--json")

    found = json.loads(said_of(site, "add", *words))

    line = "+     te3: {ansible_host: 10.0.0.3, cluster_address: 10.88.0.3, cluster_slots: 8}"
    assert (found["file"], found["edit"]) == (f"{site}/hosts.yml", [line])
    assert [command[:4] for command in found["commands"]] == [
        ["ansible-playbook", f"playbooks/{name}.yml", "-i", str(site)] for name in ("site", "members", "site")
    ]


def test_a_check_of_what_is_done_already_says_that_nothing_is_edited(site: Path) -> None:
    assert said_of(site, "undrain", "te1").splitlines()[0] == f"{site}/hosts.yml: no edit"


def test_who_did_not_answer_and_who_gets_in_is_said_with_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    finding = Finding(node="te1", what="[a key]", why="nobody knows it", fix="take it out")
    done = Changed(
        action="remove",
        node="te2",
        edited=True,
        pending=["te3", "te4"],
        tested=True,
        steps={},
        seconds=7.5,
        audit=[finding],
    )

    node._show(done)

    assert capsys.readouterr().out.splitlines() == [
        "pending: te3, te4 did not answer; the next node command or site.yml tells them",
        *str(finding).splitlines(),
        "audit of keys: 1 findings; the rest: provision audit",
        "remove te2: done in 7.5 s, the smoke test passed",
    ]


def test_a_site_in_ini_is_edited_in_the_group_that_is_said(site: Path) -> None:
    (site / "hosts.yml").unlink()
    racks = "[rack_a]\nte1 ansible_host=127.0.0.1\n[rack_b]\nte2 ansible_host=127.0.0.2\n"
    (site / "hosts.ini").write_text(f"[cluster:children]\nrack_a\nrack_b\n{racks}")
    words = ("node", "add", "te3", "--address", "10.0.0.3", "-i", str(site), "--check", "--json")

    refused = CliRunner().invoke(app, words)
    told = CliRunner().invoke(app, (*words, "--group", "rack_a"), catch_exceptions=False)

    assert "--group rack_a" in str(refused.exception)
    found = json.loads(told.stdout)
    assert (found["file"], found["edit"]) == (f"{site}/hosts.ini", ["+ te3 ansible_host=10.0.0.3"])
