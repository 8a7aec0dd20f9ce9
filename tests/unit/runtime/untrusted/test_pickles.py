"""Small pickles that would keep a reader at work for ever, or end its process."""

from __future__ import annotations

import io
import pickle
import random
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime.errors import BadInput
from runtime.flight.dump import read_dump
from runtime.train.checkpoint.archive import check_archive, read_bytes
from runtime.train.checkpoint.listing import from_pickle
from runtime.train.checkpoint.state import random_states, restore_random_states
from runtime.untrusted import pickles
from runtime.untrusted.pickles import PlainUnpickler
from tests.conftest import RecordRefusal

TWICE = b"q\x00h\x00\x86"  # a pair of what is on the stack, and that again
WIDE, DEEP = b")" + TWICE * 60, b")" + b"\x85" * 190_000
LIST_TWICE = b"q\x000]h\x00ah\x00a"
SAME = 2**61 - 1  # its multiples have one hash


def keyed(key: bytes) -> bytes:
    return b"}" + key + b"Ns"


def among(key: bytes) -> bytes:
    return b"}(" + key + b"Nu"


def of_set(key: bytes) -> bytes:
    return b"\x8f(" + key + b"\x90"


def called(name: bytes, key: bytes) -> bytes:
    return b"c" + name + b"\n(](" + key + b"etR"


def called_with_a_pair(key: bytes) -> bytes:
    return b"ccollections\nOrderedDict\n(](](" + key + b"NeetR"


def lists(count: int) -> bytes:
    return b"]" + LIST_TWICE * count


def in_each_other(count: int) -> bytes:
    return b"]" * count + b"a" * (count - 1)


KEYS: dict[str, Callable[[bytes], bytes]] = {
    "of a mapping": keyed,
    "of a mapping of many": among,
}
KEYS_OF_OBJECTS: dict[str, Callable[[bytes], bytes]] = KEYS | {
    "of a set": of_set,
    "of a set that is called for": lambda key: called(b"builtins\nset", key),
    "that is counted": lambda key: called(b"collections\nCounter", key),
    "in a pair": called_with_a_pair,
}
VALUES = {
    "lists of twice the same": lists(60),
    "lists in each other": in_each_other(50_000),
    "tuples in each other": DEEP,
    "a list in itself": b"]q\x00h\x00a",
    "a mapping in itself": b"}q\x00Nh\x00s",
}


def of_flight(content: bytes) -> object:
    path = Path("flight_rank0")
    path.write_bytes(content)
    return read_dump(path)


def of_archive(content: bytes) -> object:
    return read_bytes(archive(content))


def of_deepspeed(content: bytes) -> object:
    path = Path("states.pt")
    path.write_bytes(archive(content))
    return check_archive(path)


def archive(content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("a/data.pkl", content)
        file.writestr("a/byteorder", "little")
    return made.getvalue()


READERS: dict[str, Callable[[bytes], object]] = {
    "flight dump": of_flight,
    "list of shards": lambda content: from_pickle(content, 100),
    "archive": of_archive,
    "DeepSpeed's archive": of_deepspeed,
}


@pytest.mark.attack("file")
@pytest.mark.parametrize(
    ("reader", "place", "key"),
    [(name, place, WIDE) for name in READERS for place in (KEYS if "flight" in name else KEYS_OF_OBJECTS)]
    + [(name, "of a mapping", DEEP) for name in READERS],
    ids=lambda value: {WIDE: "wide", DEEP: "deep"}.get(value),
)
def test_a_key_that_cannot_be_hashed_is_refused(
    reader: str,
    place: str,
    key: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_refusal: RecordRefusal,
) -> None:
    monkeypatch.chdir(tmp_path)
    content = b"\x80\x02" + KEYS_OF_OBJECTS[place](key) + b"."

    with pytest.raises((ValueError, BadInput), match=r"tuples in each other|does not hold") as refusal:
        READERS[reader](content)
    record_refusal(refusal.value)


@pytest.mark.attack("file")
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("reader", ["flight dump", "archive", "DeepSpeed's archive"])
def test_a_value_that_cannot_be_walked_is_refused(
    reader: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_refusal: RecordRefusal
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(
        (ValueError, BadInput), match=r"nested deeper than|has more than \d+ parts"
    ) as refusal:
        READERS[reader](b"\x80\x02" + VALUES[value] + b".")
    record_refusal(refusal.value)


@pytest.mark.attack("file")
@pytest.mark.parametrize("kind", ["pairs inside", "lists inside", "a state"])
def test_what_an_object_of_unknown_class_is_made_of_is_looked_at(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_refusal: RecordRefusal
) -> None:
    """torch makes it after the look, thrown away or not."""
    monkeypatch.chdir(tmp_path)
    unknown = b"ctorch._tensor\n_rebuild_from_type_v2\n"
    made = {
        "pairs inside": unknown + b"(N" + WIDE + b"tR",
        "lists inside": unknown + b"(" + lists(60) + b"tR",
        "a state": unknown + b")R" + lists(60) + b"b",
    }[kind]

    with pytest.raises(ValueError, match=r"has more than \d+ parts") as refusal:
        of_deepspeed(b"\x80\x02N" + made + b"0.")
    record_refusal(refusal.value)


@pytest.mark.attack("file")
@pytest.mark.parametrize("keys", [[(n + 1) * SAME for n in range(500)], [(0, n) for n in range(500)]])
def test_keys_whose_hash_can_be_chosen_are_few(
    keys: list[Any], monkeypatch: pytest.MonkeyPatch, record_refusal: RecordRefusal
) -> None:
    content = pickle.dumps(dict.fromkeys(keys), protocol=2)
    assert len(PlainUnpickler(content).read_all()) == 500
    monkeypatch.setattr(pickles, "_MOST_STEPS", 1_000_000)

    with pytest.raises(ValueError, match="more keys than are read that are numbers or tuples") as refusal:
        PlainUnpickler(content).read_all()
    record_refusal(refusal.value)


class Node:
    """An object of the kind that trees and configurations are made of: it knows who holds it."""

    def __init__(self, holder: Node | None) -> None:
        self.holder, self.held = holder, list[Node]()


def test_objects_that_know_each_other_are_no_fault(tmp_path: Path) -> None:
    """DeepSpeed's archive may hold any; whoever imports it leaves them out."""
    first = last = Node(None)
    for _ in range(100):
        last = Node(last)
        last.holder.held.append(last)  # type: ignore[union-attr]
    torch.save({"tree": first}, tmp_path / "states.pt")

    check_archive(tmp_path / "states.pt")


@pytest.mark.parametrize(
    "value", [[True, None] * 150_000, b"x" * 300_000, [*range(300_000)]], ids=["words", "bytes", "numbers"]
)
def test_long_plain_values_are_read(value: Any) -> None:
    made = io.BytesIO()
    torch.save(value, made)

    assert read_bytes(made.getvalue()) == value


def test_an_encoding_is_not_shown_before_it_is_known_to_be_text() -> None:
    with pytest.raises(ValueError, match="asks for an encoding"):
        of_archive(b"\x80\x02c_codecs\nencode\n(" + lists(60) + lists(60) + b"tR.")


@pytest.mark.attack("file")
@pytest.mark.parametrize(
    "state", [[[[]] * 3] * 3, None, [3, [0] * 625], [3, ["0"] * 625, None], [3, [0], None]]
)
def test_a_random_state_is_one(state: object, record_refusal: RecordRefusal) -> None:
    before = random.getstate()

    with pytest.raises(ValueError, match="state") as refusal:
        restore_random_states({"torch": torch.get_rng_state(), "python": state})

    record_refusal(refusal.value)
    assert random.getstate() == before


def test_a_random_state_is_put_back_from_tuples_or_lists() -> None:
    states = random_states()
    version, words, spare = states["python"]
    first = random.random()

    for kept in (states["python"], [version, list(words), spare]):
        restore_random_states({**states, "python": kept})
        assert random.random() == first


def test_what_people_keep_is_read() -> None:
    shared = [0.9, 0.999]
    nested: dict[str, Any] = {}
    for _ in range(150):
        nested = {"in": nested}
    values = {
        "optimizer": {number: {"step": 1, "betas": shared} for number in range(1000)},
        (1, (2, ("a", b"b"))): {1, "a", (2, 3), None, 2.5, 1j},
        2**70: Counter({5: 1, 10: 2}),
        -1.5: OrderedDict([("a", [shared] * 1000), (True, False)]),
        None: nested,
    }
    file = io.BytesIO()

    torch.save(values, file)

    assert read_bytes(file.getvalue()) == values
