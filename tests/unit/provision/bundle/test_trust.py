from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from provision.bundle.contents import MANIFEST, File, contents_of, text_of
from provision.bundle.trust import apt_key, other_locks
from provision.errors import BadInput
from tests.conftest import RecordRefusal


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "apt").mkdir()
    (tmp_path / "apt" / "key.asc").write_text("KEY")
    file = File(path="apt/key.asc", size=3, sha256=sha256(b"KEY").hexdigest())
    (tmp_path / MANIFEST).write_bytes(text_of(contents_of({}, [file])))
    return tmp_path


def address(bundle: Path) -> str:
    return f"http://10.0.0.9:8090/{sha256((bundle / MANIFEST).read_bytes()).hexdigest()}"


def test_the_key_is_that_of_the_bundle_that_the_address_names(bundle: Path) -> None:
    assert apt_key(str(bundle), address(bundle)) == "KEY"
    assert apt_key(str(bundle), f"{address(bundle)}/") == "KEY"


@pytest.mark.attack("file")
def test_another_key_is_refused_with_the_manifest_of_before_or_with_its_own(
    bundle: Path, record_refusal: RecordRefusal
) -> None:
    meant = address(bundle)
    (bundle / "apt" / "key.asc").write_text("KEx")
    with pytest.raises(BadInput, match="is not what its manifest says") as first:
        apt_key(str(bundle), meant)

    file = File(path="apt/key.asc", size=3, sha256=sha256(b"KEx").hexdigest())
    (bundle / MANIFEST).write_bytes(text_of(contents_of({}, [file])))
    with pytest.raises(BadInput, match="holds the bundle") as second:
        apt_key(str(bundle), meant)

    record_refusal(f"{first.value} {second.value}")


@pytest.mark.attack("file")
def test_a_link_in_the_key_s_place_is_not_followed(
    bundle: Path, tmp_path_factory: pytest.TempPathFactory, record_refusal: RecordRefusal
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "key"
    (bundle / "apt" / "key.asc").rename(elsewhere)
    (bundle / "apt" / "key.asc").symlink_to(elsewhere)

    with pytest.raises(BadInput, match="is not what its manifest says") as refused:
        apt_key(str(bundle), address(bundle))

    record_refusal(refused.value)


@pytest.mark.parametrize(
    ("url", "why"),
    [("http://10.0.0.9:8090", "does not end with"), ("http://10.0.0.9:8090/latest", "does not end with")],
)
def test_an_address_without_a_digest_is_refused(bundle: Path, url: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        apt_key(str(bundle), url)


def test_a_site_that_names_no_folder_is_told_to(bundle: Path) -> None:
    with pytest.raises(BadInput, match="cluster_bundle_path is empty"):
        apt_key("", address(bundle))


def test_a_lock_that_the_bundle_was_not_made_for_is_named(tmp_path: Path) -> None:
    for name in ("known.lock", "other.lock"):
        (tmp_path / name).write_text(name)
    folder = tmp_path / "bundle"
    folder.mkdir()
    file = File(path="envs/llm/known.lock", size=10, sha256=sha256(b"known.lock").hexdigest())
    (folder / MANIFEST).write_bytes(text_of(contents_of({}, [file])))

    locks = [str(tmp_path / name) for name in ("known.lock", "other.lock", "missing.lock")]

    assert other_locks(str(folder), locks) == [str(tmp_path / "other.lock")]
