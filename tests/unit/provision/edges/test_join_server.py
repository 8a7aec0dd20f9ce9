"""A machine's own first-boot program against the controller's listener, over loopback."""

from __future__ import annotations

import importlib.util
import json
import urllib.error
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import pytest

from provision.core import join
from provision.core.join import Call
from provision.edges.join_server import listening

FILES = Path(__file__).parents[4] / "playbooks" / "roles" / "image_cleanup" / "files"
SECRET = "s3cret"
KEYS = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA=="]


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FILES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FIRST_BOOT = loaded("first_boot")


class Controller:
    """What the listener hands on."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.port = 0

    def on_call(self, call: Call) -> Mapping[str, str]:
        self.calls.append(call)
        return {"name": "te3", "user": "root", "authorized_key": "ssh-ed25519 A controller"}

    def ask(self, path: str, body: str, secret: str = SECRET) -> dict[str, str]:
        found: dict[str, str] = FIRST_BOOT.ask(f"127.0.0.1:{self.port}", path, body, secret)
        return found

    def call(self, **changed: object) -> str:
        nonce = self.ask("/nonce", "{}")["nonce"]
        call = {"nonce": nonce, "image": "i", "machine": "m", "address": "127.0.0.1", "host_keys": KEYS}
        return json.dumps({**call, **changed})


@pytest.fixture
def controller() -> Iterator[Controller]:
    found = Controller()
    with listening("127.0.0.1", 0, secret=SECRET, on_call=found.on_call) as port:
        found.port = port
        yield found


def test_a_machine_with_the_secret_gets_its_name_and_its_host_keys_arrive(controller: Controller) -> None:
    answer = controller.ask("/join", controller.call())

    assert answer["name"] == "te3"
    assert controller.calls[0].host_keys == tuple(KEYS)


def test_a_machine_with_another_secret_is_refused(controller: Controller) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        controller.ask("/join", controller.call(), secret="guessed")

    refused.value.close()
    assert controller.calls == []


def test_a_call_counts_once(controller: Controller) -> None:
    call = controller.call()
    controller.ask("/join", call)

    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        controller.ask("/join", call)

    refused.value.close()
    assert len(controller.calls) == 1


@pytest.mark.parametrize(
    "changed",
    [{"address": "10.0.0.9"}, {"nonce": "mine"}, {"host_keys": []}, {"host_keys": ["ssh-rsa A\nx"]}],
)
def test_a_call_that_lies_is_refused(controller: Controller, changed: dict[str, object]) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        controller.ask("/join", controller.call(**changed))

    refused.value.close()
    assert controller.calls == []


def test_a_machine_believes_only_its_own_controller(controller: Controller) -> None:
    wrong = Controller()
    with listening("127.0.0.1", 0, secret="another", on_call=wrong.on_call) as port:
        wrong.port = port
        with pytest.raises(urllib.error.HTTPError) as refused:
            wrong.ask("/nonce", "{}")

    refused.value.close()
    assert wrong.calls == []


def test_an_answer_that_was_altered_on_the_way_is_not_believed(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join, "signature", lambda secret, text: "0" * 64)
    monkeypatch.setattr(join, "is_signed", lambda secret, text, given: True)

    with pytest.raises(ValueError, match="not signed by our controller"):
        controller.ask("/nonce", "{}")
