"""What a node may have the controller sign, and what not."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from provision.errors import BadInput
from provision.smoke.certificate import to_sign

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
CERTIFICATE = {
    "signer": "@controller",
    "nodes": {"te1": 1, "te2": 1},
    "environment": "e" * 64,
    "issued": "2026-11-21T11:59:00+00:00",
    "expires": "2026-11-28T11:59:00+00:00",
}
RESULT = {"verdict": "pass", "findings": [], "left_out": "", "certificate": CERTIFICATE}


def signed(result: dict[str, Any]) -> str:
    return to_sign(result, nodes=["te1", "te2"], valid_days=7.0, now=NOW)


def test_what_was_asked_is_signed_in_one_form() -> None:
    assert json.loads(signed(RESULT)) == CERTIFICATE
    assert signed(RESULT) == signed({**RESULT, "certificate": dict(reversed(CERTIFICATE.items()))})


def test_a_test_that_made_none_has_nothing_signed() -> None:
    assert signed({**RESULT, "certificate": None}) == ""


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"verdict": "fail"}, "did not pass"),
        ({"left_out": "--quick"}, "left something out"),
        ({"findings": [{}]}, "did not pass"),
        ({"certificate": {"nodes": {"te1": 1}}}, "it is no certificate"),
        ({"certificate": "x"}, "it is no certificate"),
        ({"certificate": CERTIFICATE | {"signer": "te1"}}, "it is for 'te1' to sign"),
        ({"certificate": CERTIFICATE | {"nodes": {"te1": 1, "te9": 1}}}, "it is for te9, and the nodes"),
        ({"certificate": CERTIFICATE | {"nodes": {}}}, "it is for nobody"),
        ({"certificate": CERTIFICATE | {"expires": "2027-11-28T11:59:00+00:00"}}, "2027-11-28"),
        ({"certificate": CERTIFICATE | {"expires": "2026-11-22T11:59:00"}}, "it is no certificate"),
        (
            {"certificate": CERTIFICATE | {"issued": "2026-11-01T11:59:00+00:00"}},
            "clock is not this controller's: there the test was at 2026-11-01",
        ),
    ],
)
def test_a_node_that_says_what_was_not_asked_gets_no_signature(result: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        signed({**RESULT, **result})
