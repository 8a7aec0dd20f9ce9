from __future__ import annotations

from pathlib import Path

import pytest

from provision.lab import argv
from provision.lab.layout import lay_out
from provision.lab.observe import belongs, keepers_among, mounts_in

FOLDER = Path("/var/lib/clusterwright/labs/lab")
LAB = lay_out(name="lab", subnet="10.77.0.0/24", count=2, disk_bytes=1 << 30, base=Path("/b"))


@pytest.mark.parametrize(
    "words",
    [
        argv.keeper(LAB, LAB.nodes[0], python="/p", systemd=False, cores=[0]),
        argv.keeper(LAB, LAB.nodes[0], python="/p", systemd=True, cores=[1]),
        argv.file_server(LAB, python="/p", served=Path("/m")),
        (f"ssh: {FOLDER}/connections/0123456789 [mux]", ""),
    ],
)
def test_every_process_that_a_lab_starts_is_recognised(words: tuple[str, ...]) -> None:
    assert belongs(words, FOLDER)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("bash",),
        ("vim", f"{FOLDER}/nodes/te1/console.log"),
        ("/p", "-m", "provision.lab.keeper", "--folder", "/var/lib/clusterwright/labs/lab2/nodes/te1"),
        ("grep", "provision.lab.keeper", f"{FOLDER}/nodes/te1/console.log"),
        ("ssh: /root/.ansible/cp/0123456789 [mux]",),
        (f"ssh: {FOLDER}2/connections/0123456789 [mux]",),
        ("ssh", "-i", f"{FOLDER}/ssh_key", "root@10.77.0.11"),
    ],
)
def test_a_process_of_another_lab_or_of_a_person_is_left_alone(words: tuple[str, ...]) -> None:
    assert not belongs(words, FOLDER)


def test_mounts_in_a_folder_come_deepest_first_and_without_its_neighbours() -> None:
    mounts = "\n".join(
        [
            "proc /proc proc rw 0 0",
            f"overlay {FOLDER} overlay rw 0 0",
            f"tmpfs {FOLDER}/a\\040b tmpfs rw 0 0",
            f"overlay {FOLDER}2/root overlay rw 0 0",
        ]
    )

    assert mounts_in(FOLDER, mounts) == (FOLDER / "a b", FOLDER)


def test_the_keeper_is_the_process_that_holds_the_namespaces_however_it_was_started() -> None:
    by_us = argv.keeper(LAB, LAB.nodes[0], python="/p", systemd=False, cores=[0])
    by_systemd = argv.keeper(LAB, LAB.nodes[1], python="/p", systemd=True, cores=[1])
    pinned = by_us[by_us.index("unshare") :]
    replaced = ("/usr/bin/unshare", *by_systemd[by_systemd.index("unshare") + 1 :])
    inside = by_us[by_us.index("/p") :]

    found = keepers_among({1: pinned, 2: inside, 3: by_systemd, 4: replaced, 5: by_us})

    assert found == {"te1": 1, "te2": 4}
