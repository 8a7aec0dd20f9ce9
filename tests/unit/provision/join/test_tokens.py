"""Tokens and the user data that brings them to machines."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from provision.edges.playbook import Played
from provision.errors import BadInput, CommandFailed
from provision.inventory.members import Action
from provision.join.tokens import Tokens
from provision.join.user_data import write_user_data
from provision.nodes.life import Change, Reporter, apply
from tests.conftest import RecordRefusal
from tests.unit.provision.join_site import ADDRESSES, Site, call, letter, made

ROOT = Path(__file__).parents[4]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return made(tmp_path)


def write(site: Site, folder: Path, *, shared: bool = False, controller: str = "10.0.0.1:8765") -> list[Path]:
    expires = time.time() + 60.0
    return write_user_data(
        folder, site.machines, site.tokens, controller=controller, shared=shared, expires=expires
    )


def test_each_machine_gets_a_token_of_its_own_that_nobody_else_reads(site: Site, tmp_path: Path) -> None:
    paths = write(site, tmp_path / "user_data")
    told = [json.loads(path.read_text()) for path in paths]

    assert [path.name for path in paths] == ["te3.json", "te4.json"]
    assert [one["controller"] for one in told] == ["10.0.0.1:8765"] * 2
    assert told[0]["token"] != told[1]["token"]
    assert [one["machines"] for one in told] == [["te3"], ["te4"]]
    for path in (*paths, site.tokens.path):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_shared_token_is_one_file_for_these_machines_alone(site: Site, tmp_path: Path) -> None:
    [path] = write(site, tmp_path / "user_data", shared=True)

    assert path.name == "shared.json"
    assert json.loads(path.read_text())["machines"] == ["te3", "te4"]


def test_a_new_token_makes_the_one_before_void_for_its_machine(site: Site) -> None:
    [shared] = site.tokens.make(ADDRESSES, shared=True, expires=2e9)
    site.token("te3")

    found = site.tokens.find(shared.id)

    assert found is not None
    assert found.machines == {"te4": "127.0.0.2"}


def test_a_node_that_is_removed_makes_void_what_it_shared_with_others(site: Site) -> None:
    site.tokens.make(ADDRESSES, shared=True, expires=2e9)

    site.tokens.void("te3")

    assert site.tokens.read() == []


def test_machines_that_have_nothing_to_show_are_named(site: Site) -> None:
    now = time.time()
    site.token("te3")
    site.token("te4", seconds=-1.0)

    assert site.tokens.lacking(ADDRESSES, now=now) == ["te4"]
    assert site.tokens.lacking({"te3": "10.0.0.9"}, now=now) == ["te3"]

    site.arrivals().on_call(letter(site.token("te3"), call()))
    site.tokens.finish(["te3"])
    assert site.tokens.lacking(ADDRESSES, now=now) == ["te3", "te4"]


@pytest.mark.parametrize(
    "controller", ["0.0.0.0:8765", "10.0.0.1", "10.0.0.1:", ":8765", "a:99999", "a:\u0661"]
)
def test_machines_are_not_told_what_they_cannot_reach(site: Site, tmp_path: Path, controller: str) -> None:
    with pytest.raises(BadInput, match="no ADDRESS:PORT"):
        write(site, tmp_path / "user_data", controller=controller)

    assert site.tokens.read() == []


def test_a_file_of_somebodys_own_is_not_overwritten(site: Site, tmp_path: Path) -> None:
    (tmp_path / "te4.json").write_text('{"mine": 1}')

    with pytest.raises(BadInput, match="no user data of ours"):
        write(site, tmp_path)

    assert (tmp_path / "te4.json").read_text() == '{"mine": 1}'
    assert site.tokens.read() == []


def test_what_an_earlier_version_kept_is_taken_away_and_nothing_else(tmp_path: Path) -> None:
    for name in ("join_secret", "arrived.json", "cluster_key"):
        (tmp_path / name).write_text("x")

    removed = Tokens(folder=tmp_path).remove_superseded()

    assert [path.name for path in removed] == ["join_secret", "arrived.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["cluster_key"]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "join_tokens.json").write_text("{")

    with pytest.raises(BadInput, match="is damaged"):
        Tokens(folder=tmp_path).read()


@pytest.mark.attack("left behind")
@pytest.mark.parametrize("action", [Action.remove, Action.replace])
def test_a_node_that_goes_or_is_replaced_leaves_no_token_that_counts(
    action: Action, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    """Before any playbook runs that changes nodes, which may be cut off."""
    (tmp_path / "00-groups.yml").symlink_to(ROOT / "inventory" / "groups.yml")
    lines = [f"    {name}: {{ansible_host: {address}}}" for name, address in ADDRESSES.items()]
    (tmp_path / "hosts.yml").write_text("\n".join(["---", "cluster:", "  hosts:", *lines, ""]))
    tokens = Tokens(folder=tmp_path / "secrets")
    tokens.make({"te3": "127.0.0.1"}, shared=False, expires=2e9)
    [kept] = tokens.make({"te4": "127.0.0.2"}, shared=False, expires=2e9)
    change = Change(action=action, node="te3", inventory=tmp_path, edit=lambda text: text)

    def cut_off(_: Path, words: Sequence[str], **__: object) -> Played:
        if "--check" in words:  # the way in is proven, which changes nothing
            return Played(words=tuple(words), seconds=0.0, unreachable=False)
        raise CommandFailed(str(words), found="cut off", fix="")

    silent = Reporter(on_step=lambda _: None, on_line=lambda _: None)
    with pytest.raises(CommandFailed, match="cut off"):
        apply(change, os.environ, silent, cut_off)

    record_refusal(f"tokens that count: {[sorted(token.machines) for token in tokens.read()]}")
    assert [token.id for token in tokens.read()] == [kept.id]
