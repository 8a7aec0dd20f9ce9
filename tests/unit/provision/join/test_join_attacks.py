"""What somebody in the same rented network can do at a restore: a machine's program, the real listener."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from provision.edges.files import text_of
from provision.join import protocol
from provision.join.protocol import Letter
from provision.join.user_data import write_user_data
from tests.conftest import RecordRefusal
from tests.unit.provision.join_site import (
    FIRST_BOOT,
    KEYS,
    OTHER_KEYS,
    Site,
    call,
    first_boot,
    letter,
    made,
    new_key,
)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return made(tmp_path)


def refused(site: Site, sent: Letter) -> protocol.Refused:
    """The refusal of a call that came from its sender; nobody has arrived and nothing is trusted by it."""
    arrived, known = list(site.arrived), site.known_hosts()
    with pytest.raises(protocol.Refused) as found:
        site.arrivals().on_call(sent)
    assert (site.arrived, site.known_hosts()) == (arrived, known)
    return found.value


def test_a_machine_with_its_token_gets_its_name_and_its_host_keys_are_trusted(site: Site) -> None:
    token = site.token()
    with site.waiting():
        answer = site.ask(token)

    assert answer == {"name": "te3", "user": "root", "authorized_key": "ssh-ed25519 AAAA controller"}
    assert site.arrived == ["te3"]
    assert site.known_hosts() == f"127.0.0.1 {KEYS[0]}\n"


def test_a_machine_joins_over_ipv6_and_with_an_sshd_at_another_port(tmp_path: Path) -> None:
    """The inventory writes its address otherwise than sockets do."""
    site = made(tmp_path)
    site.addresses, site.ssh_port = {"te3": "0:0::1"}, 2222
    told = tmp_path / "user_data"
    with site.waiting():
        at = f"[::1]:{site.port}"
        write_user_data(told, site.machines, site.tokens, controller=at, shared=False, expires=2e9)
        text = call(address=FIRST_BOOT.own_address(at))
        shown, public = json.loads((told / "te3.json").read_text()), site.key.with_name("join_key.pub")
        answer = FIRST_BOOT.ask(shown["controller"], text, token=shown["token"], key=public.read_text())

    assert answer["name"] == "te3"
    assert site.known_hosts() == f"[0:0::1]:2222 {KEYS[0]}\n"
    site.arrivals().recall(lambda machine: True)
    assert site.arrived == ["te3", "te3"]


@pytest.mark.attack("image")
def test_who_has_the_image_is_no_controller(
    site: Site, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    """It has the public half, and signs with a key of its own."""
    token, stolen = site.token(), site.key.with_name("join_key.pub")
    attacker = new_key(tmp_path / "attacker")
    said = protocol.answer("te3", user="root", authorized_key="ssh-ed25519 EVIL")

    def fake(sent: Letter) -> str:
        text = protocol.payload("answer", sent.text, said)
        words = ["ssh-keygen", "-q", "-Y", "sign", "-n", protocol.NAMESPACE, "-f", str(attacker)]
        signed = subprocess.run(words, input=text, capture_output=True, text=True, check=True)
        return json.dumps({"answer": said, "signature": signed.stdout})

    assert stolen.is_file()
    with site.waiting(fake), pytest.raises(ValueError, match="not signed by our controller") as refusal:
        site.ask(token)
    record_refusal(refusal.value)


@pytest.mark.attack("network")
@pytest.mark.parametrize("what", ["the same answer", "another nonce", "no signature", "another namespace"])
def test_an_answer_to_another_call_is_not_believed(
    site: Site, what: str, record_refusal: RecordRefusal
) -> None:
    """What was recorded of the real controller, or of the same key for another purpose."""
    token, heard = site.token(), site.arrivals()

    def recorded(sent: Letter) -> str:
        other = call(machine="other") if what == "the same answer" else call(nonce="n2")
        text = sent.text if what in ("no signature", "another namespace") else other
        answer: dict[str, str] = json.loads(heard.on_call(letter(token, text)))
        if what == "no signature":
            answer["signature"] = ""
        if what == "another namespace":
            words = ["ssh-keygen", "-q", "-Y", "sign", "-n", "clusterwright-image", "-f", str(site.key)]
            text = protocol.payload("answer", sent.text, answer["answer"])
            signed = subprocess.run(words, input=text, capture_output=True, text=True, check=True)
            answer["signature"] = signed.stdout
        return json.dumps(answer)

    with site.waiting(recorded), pytest.raises(ValueError, match="not signed by our controller") as refusal:
        site.ask(token)
    record_refusal(refusal.value)


def test_an_answer_is_no_call_and_a_call_no_answer(site: Site) -> None:
    """The direction is signed: nothing that one side says can be sent back to it."""
    token = site.token()
    said = protocol.payload("answer", call(), "{}")

    assert refused(
        site, Letter(sender="127.0.0.1", token=token.id, mac=protocol.mac(token.secret, said), text=call())
    )


@pytest.mark.attack("network")
def test_a_second_machine_with_the_same_token_is_refused_and_named(
    site: Site, record_refusal: RecordRefusal
) -> None:
    token, heard = site.token(), site.arrivals()
    heard.on_call(letter(token, call()))

    found = refused(site, letter(token, call(host_keys=OTHER_KEYS, machine="other")))

    record_refusal(found)
    assert found.status == 409
    assert "differing in machine and host keys" in str(found)
    assert "provision restore te3 --user-data DIR makes another" in str(found)
    assert OTHER_KEYS[0] not in site.known_hosts()


def test_a_second_machine_is_reported_at_the_controller_and_hears_why(site: Site) -> None:
    token = site.token()
    with site.waiting():
        site.ask(token)
        with pytest.raises(ValueError, match="409 another machine called with the token of te3 before"):
            site.ask(token, host_keys=OTHER_KEYS)

    assert [line.split(":")[0] for line in site.reported] == ["127.0.0.1 calls and is refused"]


def test_the_same_machine_calls_again_after_a_first_boot_that_was_cut_off(site: Site) -> None:
    token = site.token()
    with site.waiting():
        first = site.ask(token)
        again = site.ask(token, nonce="n2")

    assert again == first
    assert site.arrived == ["te3"]


@pytest.mark.attack("network")
def test_a_call_that_was_heard_and_sent_again_changes_nothing(
    site: Site, record_refusal: RecordRefusal
) -> None:
    token, heard = site.token(), site.arrivals()
    heard.on_call(letter(token, call()))
    before = (site.tokens.path.read_text(), site.known_hosts())

    heard.on_call(letter(token, call()))
    from_elsewhere = refused(site, letter(token, call(), sender="127.0.0.2"))

    record_refusal(from_elsewhere)
    assert (site.tokens.path.read_text(), site.known_hosts()) == before
    assert "it comes from 127.0.0.2 and says 127.0.0.1" in str(from_elsewhere)


@pytest.mark.attack("network")
def test_a_call_that_was_heard_opens_nothing_once_its_machine_is_a_node(
    site: Site, record_refusal: RecordRefusal
) -> None:
    token = site.token()
    sent = letter(token, call())
    site.arrivals().on_call(sent)
    site.tokens.finish(["te3"])

    found = refused(site, sent)

    record_refusal(found)
    assert "the token of te3 at 127.0.0.1 was used" in str(found)
    assert token.secret not in site.tokens.path.read_text()


@pytest.mark.attack("network")
def test_somebody_at_an_awaited_address_without_its_token_is_refused(
    site: Site, record_refusal: RecordRefusal
) -> None:
    token = site.token()
    guessed = Letter(sender="127.0.0.1", token=token.id, mac=protocol.mac("guessed", call()), text=call())
    unknown = Letter(sender="127.0.0.1", token="other", mac=protocol.mac(token.secret, call()), text=call())

    for sent in (guessed, unknown):
        found = refused(site, sent)
        record_refusal(found)
        assert found.status == 403
    assert site.tokens.calls() == {}


@pytest.mark.attack("network")
def test_the_token_of_another_machine_gives_no_name(site: Site, record_refusal: RecordRefusal) -> None:
    other = site.token("te4")

    found = refused(site, letter(other, call()))

    record_refusal(found)
    assert "its token is for te4 at 127.0.0.2, not for a machine at 127.0.0.1" in str(found)


@pytest.mark.attack("network")
def test_a_token_that_has_expired_is_refused(site: Site, record_refusal: RecordRefusal) -> None:
    expired = site.token(seconds=-1.0)

    found = refused(site, letter(expired, call()))

    record_refusal(found)
    assert found.status == 410
    assert "has expired" in str(found)


@pytest.mark.attack("left behind")
def test_the_token_of_a_node_that_was_removed_is_void_for_a_controller_that_waits(
    site: Site, record_refusal: RecordRefusal
) -> None:
    token, heard = site.token(), site.arrivals()
    site.tokens.void("te3")

    with pytest.raises(protocol.Refused, match="none that counts") as refusal:
        heard.on_call(letter(token, call()))
    record_refusal(refusal.value)


@pytest.mark.attack("network")
def test_a_machine_is_refused_that_nobody_waits_for(site: Site, record_refusal: RecordRefusal) -> None:
    token = site.token()

    with pytest.raises(protocol.Refused, match="te3 is not waited for") as refusal:
        site.arrivals("te4").on_call(letter(token, call()))
    record_refusal(refusal.value)


@pytest.mark.attack("network")
@pytest.mark.parametrize(
    "changed",
    [
        {"address": "10.0.0.9"},
        {"host_keys": []},
        {"host_keys": ["ssh-rsa A\nx"]},
        {"host_keys": [f"{KEYS[0]}\n10.0.0.1 {KEYS[0]}"]},
        {"host_keys": KEYS * 17},
        {"image": "\x1b]0;owned\x07"},
        {"machine": "m" * 4096},
        {"nonce": ""},
    ],
)
def test_a_call_that_lies_is_refused_even_with_its_token(
    site: Site, changed: dict[str, Any], record_refusal: RecordRefusal
) -> None:
    token = site.token()

    found = refused(site, letter(token, call(**changed)))

    record_refusal(found)
    assert found.status in (400, 403)
    assert site.tokens.calls() == {}


def test_a_shared_token_lets_each_machine_in_once(site: Site) -> None:
    addresses = {machine.name: machine.address for machine in site.machines}
    [token] = site.tokens.make(addresses, shared=True, expires=2e9)
    heard = site.arrivals()
    heard.on_call(letter(token, call()))
    heard.on_call(letter(token, call(address="127.0.0.2", host_keys=OTHER_KEYS), sender="127.0.0.2"))

    assert site.arrived == ["te3", "te4"]
    assert refused(site, letter(token, call(machine="third"))).status == 409


@pytest.mark.attack("network")
def test_a_controller_with_another_key_is_not_believed_and_the_image_alone_says_which(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_refusal: RecordRefusal
) -> None:
    """User data that names a key of its own changes nothing."""
    program = first_boot()
    image, user = tmp_path / "join.json", tmp_path / "user-data.txt"
    image.write_text(json.dumps({"controller_key": "ssh-ed25519 IMAGE"}))
    user.write_text(json.dumps({"controller": "a:1", "token": "i.s", "controller_key": "ssh-ed25519 EVIL"}))
    monkeypatch.setattr(program, "JOIN", str(image))
    monkeypatch.setattr(program, "USER_DATA", (str(user), str(image)))

    assert program.told()["controller_key"] == "ssh-ed25519 IMAGE"
    with site.waiting(), pytest.raises(ValueError, match="not signed by our controller") as refusal:
        site.ask(site.token(), key=new_key(tmp_path / "another"))
    record_refusal(refusal.value)


def test_an_image_of_an_earlier_version_is_refused_by_name(site: Site) -> None:
    connection = FIRST_BOOT.http.client.HTTPConnection
    with site.waiting():
        asked = connection("127.0.0.1", site.port, timeout=60)
        asked.request("POST", "/nonce", b"{}", {"X-Signature": "0" * 64})
        answer = asked.getresponse()
        asked.close()

    assert (answer.status, answer.reason) == (
        410,
        "its image was baked by an earlier version, with a secret: bake it anew",
    )
    assert site.reported == [f"127.0.0.1 calls and is refused: {answer.reason}"]


def test_the_old_host_key_of_an_address_is_gone_however_it_was_written(site: Site) -> None:
    """Whoever has the old machine and takes its address would be sent the cluster's key."""
    known = site.folder / "known_hosts"
    known.write_text(f"127.0.0.1 {OTHER_KEYS[0]}\n127.0.0.2 {OTHER_KEYS[0]}\n")
    known.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, capture_output=True)
    hidden, other = known.read_text().splitlines()
    other += " caf\udce9\r"  # no UTF-8, which is no reason to refuse
    lines = f"{hidden}\n127.0.0.1\t{OTHER_KEYS[0]}\n{other}\n"
    known.write_bytes(lines.encode(errors="surrogateescape"))

    site.arrivals().on_call(letter(site.token(), call()))

    assert text_of(known) == f"{other}\n127.0.0.1 {KEYS[0]}\n"
    assert known.stat().st_mode & 0o777 == 0o600
    assert shutil.which("ssh-keygen")
