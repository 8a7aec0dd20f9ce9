"""What the controller does with machines made from an image, before and after a restore that was cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.errors import CommandFailed
from tests.unit.provision.join_site import Site, call, letter, made


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return made(tmp_path)


def test_waiting_ends_when_all_have_called_and_names_who_has_not(site: Site) -> None:
    heard = site.arrivals()
    heard.on_call(letter(site.token(), call()))

    with pytest.raises(CommandFailed, match="wait for te4"):
        heard.wait(0.01)


def test_a_restore_that_was_cut_off_remembers_who_had_called(site: Site) -> None:
    site.arrivals("te3").on_call(letter(site.token(), call()))

    again = site.arrivals("te3")
    again.recall(lambda _: True)
    again.wait(0.0)

    assert list(again.arrived) == ["te3"]


def test_a_machine_that_called_and_is_gone_is_waited_for(site: Site) -> None:
    site.arrivals("te3").on_call(letter(site.token(), call()))

    again = site.arrivals("te3")
    again.recall(lambda _: False)

    with pytest.raises(CommandFailed, match="wait for te3"):
        again.wait(0.01)


def test_a_machine_that_became_a_node_is_forgotten(site: Site) -> None:
    site.arrivals().on_call(letter(site.token(), call()))

    site.tokens.finish(["te3"])

    assert site.tokens.calls() == {}
    assert site.tokens.path.stat().st_mode & 0o777 == 0o600
