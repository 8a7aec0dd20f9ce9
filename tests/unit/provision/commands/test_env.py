"""What `provision env verify` says of nodes that it saw, and of those that it did not."""

from __future__ import annotations

import pytest

from provision.commands.env import _show
from provision.environments.comparison import Comparison, unseen

OTHER = Comparison(node="te1", problem="1 file differs", digest="d" * 64, added={}, gone={})


def test_what_changed_is_spoken_of_only_where_something_was_seen(capsys: pytest.CaptureFixture[str]) -> None:
    _show([unseen("te1", "it hung up")], "/data/miniconda3/envs/llm")
    of_unseen = capsys.readouterr().out
    _show([unseen("te2", "it hung up"), OTHER], "/data/miniconda3/envs/llm")
    of_changed = capsys.readouterr().out

    assert of_unseen == "te1: not seen: it hung up\n"
    assert "no certificate covers what changed" in of_changed
