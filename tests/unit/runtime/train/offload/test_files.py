"""Unnamed files on real file systems: contents come back, faults are told, nothing is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.errors import OffloadFailed
from runtime.train.offload.files import StateFile, Transfers, page_aligned
from runtime.train.offload.layout import PAGE_BYTES

SIZE = 40 * PAGE_BYTES


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" if request.param == "disk" else Path("/dev/shm")


def test_what_was_written_is_read_whatever_the_size_of_a_block(folder: Path) -> None:
    written, read = page_aligned(SIZE), page_aligned(SIZE)
    written[:] = os.urandom(SIZE)
    for block_bytes in (PAGE_BYTES, 3 * PAGE_BYTES + 1, 1 << 30):
        transfers, file = Transfers(threads=3, block_bytes=block_bytes), StateFile(folder, 2 * SIZE)
        transfers.write(file, written, SIZE).wait()
        transfers.read(file, read, SIZE).wait()
        transfers.close()

        assert read == written
        assert file.mapped().numpy().tobytes() == bytes(SIZE) + written.tobytes()


def test_a_file_has_no_name_and_gives_its_space_back(tmp_path: Path) -> None:
    files = [StateFile(tmp_path, 64 * PAGE_BYTES) for _ in range(2)]

    assert list(tmp_path.iterdir()) == []
    assert [os.fstat(file._descriptor).st_blocks * 512 >= 64 * PAGE_BYTES for file in files] == [True, True]
    for file in files:
        file.close()
        file.close()


def test_a_transfer_that_the_disk_refuses_says_so(tmp_path: Path) -> None:
    transfers, file = Transfers(threads=2, block_bytes=PAGE_BYTES), StateFile(tmp_path, SIZE)
    os.dup2(os.open("/dev/full", os.O_RDWR), file._descriptor)  # every write finds no space
    with pytest.raises(OffloadFailed) as caught:
        transfers.write(file, page_aligned(SIZE), 0).wait()
    transfers.close()

    assert caught.value.found == "No space left on device"
    assert caught.value.fix.startswith("Free space there")


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(OffloadFailed, match=r"Not a directory\. Make nvme_path a folder"):
        StateFile(tmp_path / "file" / "below", SIZE)


def test_more_than_the_disk_has_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(OffloadFailed, match=r"No space left|too large"):
        StateFile(tmp_path, 1 << 50)
