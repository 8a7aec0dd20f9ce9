"""A machine's store: names that lead to generations, and what is somebody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from provision.store.node.main import lead, main, remove, take, trees, verify
from provision.store.node.store import Store, StoreError


def made(folder: Path, text: str) -> str:
    """A tree with one file, taken into the store; its digest."""
    new = folder / "new"
    (new / "deep").mkdir(parents=True)
    (new / "deep" / "file").write_text(text)
    answer = take({"store": str(folder / "store"), "folder": str(new), "kind": "model", "name": "tiny"})
    return str(answer["digest"])


def plan(folder: Path, **other: object) -> dict[str, object]:
    return {"store": str(folder / "store"), "links": str(folder / "models"), "name": "tiny", **other}


def test_a_name_leads_to_one_generation_and_back(tmp_path: Path) -> None:
    one, other = made(tmp_path, "one"), made(tmp_path, "other")
    link = tmp_path / "models" / "tiny"

    answers = [lead(plan(tmp_path, digest=digest))["before"] for digest in (one, other, one)]

    assert answers == ["", one, other]
    assert (link / "deep" / "file").read_text() == "one"
    assert trees(plan(tmp_path))["active"] == {"tiny": [other, one]}
    assert verify(plan(tmp_path, full=True)) == {"digest": one, "different": 0, "differences": []}


def test_a_generation_in_use_is_not_removed(tmp_path: Path) -> None:
    one, other = made(tmp_path, "one"), made(tmp_path, "other")
    lead(plan(tmp_path, digest=one))

    with pytest.raises(StoreError, match="leads to one of them"):
        remove(plan(tmp_path, digests=[one]))

    assert remove(plan(tmp_path, digests=[other])) == {"removed": [other]}
    assert remove(plan(tmp_path)) == {"removed": [one]}
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["clusterwright"]


def test_a_model_that_somebody_put_there_is_left(tmp_path: Path) -> None:
    digest = made(tmp_path, "one")
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    (tmp_path / "models" / "tiny" / "mine").write_text("mine")

    for act in (lambda: lead(plan(tmp_path, digest=digest)), lambda: remove(plan(tmp_path))):
        with pytest.raises(StoreError, match="is somebody else's"):
            act()

    assert (tmp_path / "models" / "tiny" / "mine").read_text() == "mine"
    assert Store(str(tmp_path / "store")).find(digest) is not None


def test_a_link_that_leads_elsewhere_is_left_and_named(tmp_path: Path) -> None:
    digest = made(tmp_path, "one")
    lead(plan(tmp_path, digest=digest))
    (tmp_path / "models" / "tiny").unlink()
    (tmp_path / "models" / "tiny").symlink_to("/etc")

    assert verify(plan(tmp_path))["differences"] == [f"{tmp_path}/models/tiny: it does not lead to its tree"]
    with pytest.raises(StoreError, match="is somebody else's"):
        lead(plan(tmp_path, digest=digest))


@pytest.mark.parametrize("claim", ["", "Made by somebody else.\n"])
def test_a_folder_without_our_claim_is_no_store(tmp_path: Path, claim: str) -> None:
    (tmp_path / "store" / "trees" / "a").mkdir(parents=True)
    (tmp_path / "store" / "clusterwright").write_text(claim)

    with pytest.raises(StoreError, match="is somebody else's"):
        Store(str(tmp_path / "store"))

    assert (tmp_path / "store" / "trees" / "a").is_dir()


def test_no_store_is_made_where_the_data_disk_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no folder .*/data here: run site.yml first"):
        Store(str(tmp_path / "data" / "store"))

    assert list(tmp_path.iterdir()) == []


def test_a_store_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    made(tmp_path, "one")
    (tmp_path / "store").chmod(0o777)

    with pytest.raises(StoreError, match="is somebody else's"):
        Store(str(tmp_path / "store"))


def test_a_damaged_record_is_said_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = made(tmp_path, "one")
    lead(plan(tmp_path, digest=digest))
    (tmp_path / "store" / "active" / "tiny.json").write_text("[[[")
    before = os.umask(0o022)

    main(["list", f'{{"store": "{tmp_path}/store"}}'])

    os.umask(before)
    assert "the generations of tiny cannot be read" in capsys.readouterr().out
