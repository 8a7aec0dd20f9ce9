"""What somebody else put on a disk, in Miniconda's place or in an environment is never deleted."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.lab.conftest import Finished, LabUnderTest, changed, playbook, recap

MINICONDA = "/data/miniconda3"
ENVS = f"{MINICONDA}/envs"
PREFIX = f"{ENVS}/torch"
SITE_PACKAGES = f"{PREFIX}/lib/python3.11/site-packages"
# Ends before it writes anything: what a build would have removed first is removed by then.
NO_CONDA = ("-e", '{"conda_env_conda": "/bin/false", "conda_env_space_gib": 0.1}')
# By hand, as on a disk that comes from a snapshot of somebody's machine.
SNAPSHOT = """
mkfs.ext4 -q -L photos /dev/vdb && mkdir -p /mnt/disk && mount /dev/vdb /mnt/disk && cd /mnt/disk
mkdir -p models miniconda3/envs/torch/bin miniconda3/bin && head -c 3M /dev/urandom >models/a.bin
for file in envs/torch/bin/python bin/conda .condarc; do echo theirs >miniconda3/$file; done; cd /
find /mnt/disk -type f -exec sha256sum {} + | sed s,/mnt/disk,/data, | sort >/root/before && umount /mnt/disk
"""
WORKING = (
    f"mkdir {ENVS}/.clusterwright-torch"
    f" && echo Made by Clusterwright, which removes it. >{ENVS}/.clusterwright-torch/clusterwright"
)
NOW = "find /data -type f -exec sha256sum {} + | sort"
DISK = "head -c 64M /dev/vdb | sha256sum"


# Where builds of earlier versions worked without asking whose it was; what lies in ENVS beside that.
THEIRS = f"cd {ENVS}; for n in build previous begun relay; do mkdir .torch.$n; echo t >.torch.$n/f; done"
HELD = f"ls -A {ENVS} | grep -v '^[.]torch[.]'; cat {ENVS}/.torch.*/f | wc -l"


def said(run: Finished) -> str:
    return " ".join((run.stdout + run.stderr).split())


def failed(run: Finished) -> list[str]:
    return [node for node, counts in recap(run).items() if counts["failed"]]


def added_by_hand(lab: LabUnderTest, node: str) -> None:
    """A package as pip installs it, and a change of a file of ours."""
    lab.run(
        node,
        f"cd {SITE_PACKAGES} && mkdir -p flashy flashy-2.1.dist-info"
        " && echo 'answer = 42' >flashy/__init__.py"
        " && echo 'Name: flashy' >flashy-2.1.dist-info/METADATA && echo '# by hand' >>torch/version.py",
    )


@pytest.fixture(scope="module")
def snapshot_lab(mirror: None, spare_lab: LabUnderTest) -> LabUnderTest:
    """te1 with a blank disk, te2 with the disk of somebody's machine."""
    spare_lab.reset()
    spare_lab.run("te2", SNAPSHOT)
    return spare_lab


@pytest.fixture(scope="module")
def refusal(snapshot_lab: LabUnderTest) -> Finished:
    """What site.yml says of te2's disk, of which it changes no byte."""
    before = snapshot_lab.out("te2", DISK)
    run = playbook(snapshot_lab, "--tags", "data_disk", check=False)
    assert failed(run) == ["te2"]
    assert snapshot_lab.out("te2", DISK) == before
    return run


@pytest.fixture(scope="module")
def adopted(snapshot_lab: LabUnderTest, refusal: Finished) -> Iterator[LabUnderTest]:
    """Both with their data disk mounted, te2's as it is."""
    of_te2 = snapshot_lab.inventory / "host_vars" / "te2.yml"
    of_te2.parent.mkdir(exist_ok=True)
    of_te2.write_text("data_disk_adopt: LABEL=photos\n")
    playbook(snapshot_lab, "--tags", "data_disk")
    yield snapshot_lab
    of_te2.unlink()


@pytest.fixture(scope="module")
def by_hand(adopted: LabUnderTest) -> LabUnderTest:
    """Our own Miniconda on both nodes, which trust each other; a person made an environment in it on each."""
    playbook(adopted, "--tags", "host_names,ssh_trust,miniconda", "-e", '{"miniconda_rename_foreign": true}')
    for node in adopted.nodes:
        adopted.run(node, f"mkdir -p {PREFIX}/bin {ENVS}/other && echo {node} >{PREFIX}/bin/python")
        adopted.run(node, f"echo o >{ENVS}/other/o; {THEIRS}")
    return adopted


@pytest.fixture(scope="module")
def renamed(by_hand: LabUnderTest) -> Finished:
    """What site.yml says when it builds ours on te1, and sends it to te2, in the place of theirs."""
    return playbook(by_hand, "--tags", "conda_env", "-e", '{"conda_env_rename_foreign": true}')


@pytest.fixture
def ours(by_hand: LabUnderTest, renamed: Finished) -> LabUnderTest:
    """Our environment on both, and nothing beside it that was kept before."""
    by_hand.out_of_all(f"rm -rf {PREFIX}.before-*")
    return by_hand


def test_a_refused_disk_is_described_and_adopted_as_the_message_says(refusal: Finished) -> None:
    way = r"To keep all that /dev/vdb holds \(ext4, label photos, UUID [0-9a-f-]{36}\).*data_disk_adopt: "
    assert re.search(way, said(refusal)), said(refusal)
    assert "wipefs" not in said(refusal)


def test_a_disk_that_was_adopted_is_mounted_with_all_that_it_held(adopted: LabUnderTest) -> None:
    assert adopted.out("te2", NOW) == adopted.out("te2", "cat /root/before")
    assert changed(playbook(adopted, "--tags", "data_disk")) == {"te1": 0, "te2": 0}


def test_a_teardown_does_not_erase_a_disk_that_was_adopted(adopted: LabUnderTest) -> None:
    words = ("-e", f"teardown_confirm={adopted.name}", "-e", "teardown_erase_data=true")
    run = playbook(adopted, "playbooks/teardown.yml", "--limit", "te2,localhost", *words, check=False)

    assert "does not say that site.yml made that file system" in said(run)
    assert adopted.out("te2", NOW) == adopted.out("te2", "cat /root/before")


def test_a_miniconda_of_somebody_else_is_refused_and_renamed_only_when_asked(adopted: LabUnderTest) -> None:
    before = adopted.out("te2", NOW)

    refused = playbook(adopted, "--tags", "miniconda", check=False)

    assert failed(refused) == ["te2"]
    assert f"te2: install Miniconda in {MINICONDA}: it is there already" in said(refused)
    assert "environments: torch" in said(refused)
    assert adopted.out("te2", NOW) == before
    renamed = playbook(adopted, "--tags", "miniconda", "-e", '{"miniconda_rename_foreign": true}')
    (kept,) = adopted.out("te2", f"ls -d {MINICONDA}.before-*").split()
    assert f"is kept as {kept}" in said(renamed)
    assert sorted(adopted.out("te2", NOW.replace("/data", kept)).replace(kept, MINICONDA).splitlines()) == [
        line for line in before.splitlines() if MINICONDA in line
    ]
    assert changed(playbook(adopted, "--tags", "miniconda")) == {"te1": 0, "te2": 0}


def test_an_environment_of_somebody_else_is_refused(by_hand: LabUnderTest) -> None:
    run = playbook(by_hand, "--tags", "conda_env", *NO_CONDA, check=False)

    assert by_hand.out_of_all(f"cat {PREFIX}/bin/python") == ["te1", "te2"]
    assert failed(run) == ["te1", "te2"]
    assert f"te2: build the environment {PREFIX}: it is there already" in said(run)
    assert "-e '{\"conda_env_rename_foreign\": true}'" in said(run)
    assert by_hand.out_of_all(HELD) == ["other\ntorch\n4"] * 2


def test_a_folder_of_somebody_else_where_a_build_works_is_not_worked_in(by_hand: LabUnderTest) -> None:
    theirs = f"{ENVS}/.clusterwright-torch"
    by_hand.run("te2", f"mkdir -p {theirs}/build && echo theirs >{theirs}/build/f")

    words = ("--limit", "te2,localhost", "-e", '{"conda_env_rename_foreign": true}')
    run = playbook(by_hand, "--tags", "conda_env", *words, *NO_CONDA, check=False)

    assert f"{theirs} is there already, and not ours: move it to another name yourself" in said(run)
    left = by_hand.out("te2", f"cat {PREFIX}/bin/python {theirs}/build/f; rm -r {theirs}")
    assert left == "te2\ntheirs"


def test_it_is_renamed_when_asked_where_one_is_built_and_where_one_arrives(
    by_hand: LabUnderTest, renamed: Finished
) -> None:
    for node, kept in zip(by_hand.nodes, by_hand.out_of_all(f"ls -d {PREFIX}.before-*"), strict=True):
        assert f"{node}: what was at {PREFIX} is kept as {kept}" in said(renamed)
        assert by_hand.out(node, f"cat {kept}/bin/python {ENVS}/other/o") == f"{node}\no"
    assert [text.splitlines()[-1] for text in by_hand.out_of_all(HELD)] == ["4", "4"]
    assert by_hand.out_of_all(f"ls -d {ENVS}/.clusterwright-*; true") == ["", ""]
    assert re.search(r"Send it through the others\] \*+ .*?ok: \[te1\]", said(renamed))
    assert changed(playbook(by_hand, "--tags", "conda_env")) == {"te1": 0, "te2": 0}


def test_a_build_that_fails_gives_back_what_was_there(ours: LabUnderTest) -> None:
    added_by_hand(ours, "te1")

    run = playbook(ours, "--tags", "conda_env", "--limit", "te1,localhost", *NO_CONDA, check=False)

    use = f"{PREFIX}/bin/python -c 'import torch, flashy; print(flashy.answer)'"
    assert ours.out("te1", use) == "42"
    assert "the environment that was there is back" in said(run)
    assert ours.out("te1", HELD) == "other\ntorch\n4"


def test_packages_that_a_person_added_stay_aside_and_are_named(ours: LabUnderTest) -> None:
    run = playbook(ours, "--tags", "conda_env")

    (kept,) = ours.out("te1", f"ls -d {PREFIX}.before-*").split()
    assert f"te1: what was at {PREFIX} is kept as {kept}, since somebody added flashy 2.1" in said(run)
    assert ours.out("te1", f"tail -n 1 {kept}/lib/python3.11/site-packages/torch/version.py") == "# by hand"
    assert changed(playbook(ours, "--tags", "conda_env")) == {"te1": 0, "te2": 0}


# The gate asks above that what somebody changed is kept; this and what follows take a build each.
@pytest.mark.long
def test_one_that_is_exactly_as_it_was_made_is_not_kept(ours: LabUnderTest) -> None:
    """te2's old one is said to be built from other locks; nobody changed anything in it."""
    record = f"{PREFIX}/.clusterwright/record.json"
    ours.run("te2", f"""sed -i 's/"built_from": "[0-9a-f]*"/"built_from": "other locks"/' {record}""")

    run = playbook(ours, "--tags", "conda_env")

    assert "its locks have changed" in said(run)
    assert ours.out("te2", HELD) == "other\ntorch\n4"


# In the gate test_set_aside has a run that was cut off, without an environment of gigabytes.
@pytest.mark.long
def test_what_a_run_that_was_cut_off_set_aside_is_put_back_first(ours: LabUnderTest) -> None:
    """As after a cut of power between the renaming and the proof."""
    added_by_hand(ours, "te2")
    ours.run("te2", f"{WORKING} && cd {ENVS} && mv torch .clusterwright-torch/previous")
    ours.run("te2", f"mkdir -p {PREFIX}/.clusterwright {PREFIX}/bin")
    ours.run("te2", f"""echo '{{"unfinished": true}}' >{PREFIX}/.clusterwright/record.json""")

    playbook(ours, "--tags", "conda_env")

    (kept,) = ours.out("te2", f"ls -d {PREFIX}.before-*").split()
    assert ours.out("te2", f"cat {kept}/lib/python3.11/site-packages/flashy/__init__.py") == "answer = 42"
    assert changed(playbook(ours, "--tags", "conda_env")) == {"te1": 0, "te2": 0}


def test_a_launcher_of_somebody_else_is_refused_and_renamed_only_when_asked(ours: LabUnderTest) -> None:
    launcher, words = "/usr/local/bin/zerorun", ("--tags", "runtime", "--limit", "te2,localhost")
    ours.run("te2", f"echo theirs >{launcher}")

    refused = playbook(ours, *words, check=False)

    assert ours.out("te2", f"cat {launcher}") == "theirs"
    assert failed(refused) == ["te2"]
    playbook(ours, *words, "-e", '{"runtime_rename_foreign": true}')
    assert ours.out("te2", f"cat {launcher}.before-*; readlink {launcher}") == f"theirs\n{PREFIX}/bin/zerorun"
    assert changed(playbook(ours, *words)) == {"te2": 0}
