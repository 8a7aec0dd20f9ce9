"""Over generated folders, nothing that is not in our record is gone after site.yml or teardown."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.unit.playbooks.role_runner import RoleRunner
from tests.unit.playbooks.trees_of_data import Tree, trees

PLAYBOOKS = Path(__file__).parents[3] / "playbooks"
UUID, OTHER_UUID = "0000-1", "0000-2"
UNFINISHED = '{"unfinished": true}\n'
STATES = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    phases=(Phase.generate,),  # to make a state smaller takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def steps_of(role: str) -> list[str]:
    """The names of the tasks of a role that do something, by which a run can fail or be cut off."""
    found = []
    for path in sorted((PLAYBOOKS / "roles" / role / "tasks").glob("*.yml")):
        waiting = list(yaml.safe_load(path.read_text()))
        while waiting:
            task = waiting.pop()
            waiting += [inner for kind in ("block", "rescue", "always") for inner in task.get(kind, [])]
            if any(module in task for module in MODULES):
                found.append(task["name"])
    return sorted(set(found))


MODULES = ("set_aside", "write_files", "ansible.builtin.command", "ansible.builtin.get_url")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of site.yml: the task that fails, the one after which it is cut off, and what may move."""

    fails: str
    ends: str
    renames_miniconda: bool
    renames_environment: bool
    wheels: str


def runs() -> st.SearchStrategy[Run]:
    first, second = (st.sampled_from(steps_of(role)) for role in ("miniconda", "conda_env"))
    nowhere = st.just("")
    return st.builds(
        Run,
        fails=st.one_of(nowhere, nowhere, first, second),
        ends=st.one_of(nowhere, nowhere, nowhere, first, second),
        renames_miniconda=st.booleans(),
        renames_environment=st.booleans(),
        wheels=st.sampled_from(["torch==2.13.0\n", "torch==2.13.0\nnumpy==2.4.0\n"]),
    )


def several(one: st.SearchStrategy[Run]) -> st.SearchStrategy[list[Run]]:
    """One in most cases, since each takes 0.05 s."""
    single = st.lists(one, min_size=1, max_size=1)
    return st.one_of(single, single, st.lists(one, min_size=2, max_size=2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Teardown:
    """What is mounted at /data, what the node's records say of it, and whether it is to be erased."""

    erases: bool
    mounted: str
    formatted: str
    adopted: str
    user: str

    @property
    def takes_all(self) -> bool:
        return self.erases and self.mounted != "" and self.mounted == self.formatted


def teardowns() -> st.SearchStrategy[Teardown]:
    return st.builds(
        Teardown,
        erases=st.booleans(),
        mounted=st.sampled_from([UUID, ""]),
        formatted=st.sampled_from(["", OTHER_UUID, UUID]),
        adopted=st.sampled_from(["", UUID]),
        user=st.sampled_from(["", "trainer 1001", "trainer 1001 home"]),
    )


@pytest.fixture(scope="module")
def runner() -> Iterator[RoleRunner]:
    with RoleRunner() as runner:
        yield runner


def test_what_is_not_in_our_record_is_there_after_site_yml_and_teardown(runner: RoleRunner) -> None:
    ended: Counter[str] = Counter()

    @STATES
    @given(tree=trees(), site_runs=several(runs()), teardown=teardowns())
    def check(tree: Tree, site_runs: list[Run], teardown: Teardown) -> None:
        with tempfile.TemporaryDirectory() as folder:
            node = Node(Path(folder), tree, runner)
            for run in site_runs:
                ended.update(node.site(run))
                node.check("site.yml", run)
            ended.update(node.teardown(teardown))
            if not teardown.takes_all:
                node.check("teardown", teardown)

    check()

    assert min(ended[name] for name in ENDS) >= 5, ended


# What the runs must come to, for the states to be worth something.
ENDS = (
    *("miniconda: done", "miniconda: refused", "miniconda: failed", "miniconda: cut off"),
    *("conda_env: done", "conda_env: refused", "conda_env: failed", "conda_env: cut off"),
    *("teardown: done", "teardown: refused"),
)


class Node:
    """A folder that stands for a node; what of it is somebody's, and what of that may be renamed."""

    def __init__(self, root: Path, tree: Tree, runner: RoleRunner) -> None:
        self.root, self.tree, self.runner = root, tree, runner
        self.movable: set[str] = set()
        for place, text in tree.files.items():
            write(root / place, text)
        for place, target in tree.links.items():
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).symlink_to(root / target)
        self.theirs = {place: text for place, text in tree.files.items() if text.startswith("theirs")}
        self.theirs |= {place: f"link to {root / target}" for place, target in tree.links.items()}
        (root / "data").mkdir(exist_ok=True)

    def site(self, run: Run) -> list[str]:
        """How each role ended."""
        write(self.root / "conda.lock", f"# platform: linux-64\n# channel: c\n# environment: {'e' * 64}\n")
        write(self.root / "wheels.lock", run.wheels)
        variables = {
            "miniconda_installer_source": "http://host/Miniconda.sh",
            "miniconda_installer_sha256": "a" * 64,
            "miniconda_rename_foreign": run.renames_miniconda,
            "conda_env_rename_foreign": run.renames_environment,
            "conda_env_conda_lock": str(self.root / "conda.lock"),
            "conda_env_wheel_lock": str(self.root / "wheels.lock"),
            "conda_env_channel": "http://channel",
            "conda_env_space_gib": 0,
            "cluster_name": "c",
        }
        ends = []
        for role in ("miniconda", "conda_env"):
            self.movable |= {place for place in self.theirs if self.may_move(place, run)}
            said = self.runner.run(role, self.root, variables=variables, fails=run.fails, ends=run.ends)[
                "failed"
            ]
            kind = "refused" if said.startswith("Refuse") else "failed"
            ends.append(f"{role}: {said if said == 'cut off' else kind if said else 'done'}")
            if said:
                break
        return ends

    def teardown(self, asked: Teardown) -> list[str]:
        records = {
            "formatted": asked.formatted and f"{asked.formatted}\n",
            "adopted": asked.adopted
            and json.dumps({"uuid": asked.adopted, "entry": "", "was_mounted": True, "had_folder": True}),
            "job_user": asked.user and f"{asked.user}\n",
        }
        for name, text in records.items():
            if text:
                write(self.root / "var/lib/clusterwright" / name, text)
        variables = {
            "cluster_name": "c",
            "cluster_nodes": [{"name": "te1"}],
            "teardown_confirm": "c",
            "teardown_erase_data": asked.erases,
            "ssh_trust_authorized_keys_on_node": "/root/.ssh/authorized_keys",
            "ssh_trust_own_way": {},
        }
        mount = f"/dev/vdb {asked.mounted}" if asked.mounted else ""
        said = self.runner.run("teardown", self.root, variables=variables, mount=mount)["failed"]
        return [f"teardown: {'refused' if said else 'done'}"]

    def may_move(self, place: str, run: Run) -> bool:
        """Whether the site lets it be renamed, or a record of ours claims the folder that it is in."""
        conda, envs = "data/miniconda3", self.tree.environments
        if is_below(place, conda) and (
            run.renames_miniconda or self.text(f"{conda}/.clusterwright-installer") == UNFINISHED
        ):
            return True
        record = self.text(f"{envs}/llm/.clusterwright/record.json")
        is_ours = record == UNFINISHED or '"built_from"' in record
        if is_below(place, f"{envs}/llm") and (run.renames_environment or is_ours):
            return True
        working = ("data/.clusterwright-miniconda3", f"{envs}/.clusterwright-llm")
        return any(
            is_below(place, f"{one}/previous") and self.text(f"{one}/clusterwright") != "" for one in working
        )

    def text(self, place: str) -> str:
        path = self.root / place
        return path.read_text() if path.is_file() else ""

    def check(self, after: str, asked: Any) -> None:
        there = {str(path.relative_to(self.root)): held(path) for path in walked(self.root)}
        texts = set(there.values())
        gone = [
            place
            for place, text in self.theirs.items()
            if there.get(place) != text and not (place in self.movable and text in texts)
        ]
        assert not gone, f"after {after}: {gone}; {asked}; there is {sorted(there)}"


def torn_down(runner: RoleRunner, root: Path, *, made: bool) -> Path:
    """The folder of the cluster's description after a teardown: one that write_files made, or was there."""
    folder, record = root / "etc" / "clusterwright", root / "var" / "lib" / "clusterwright"
    write(folder / "hostfile", "ours")
    write(folder / "certificate.json", '{\n  "certificate": "ours"\n}\n')
    folder.chmod(0o1775)
    if not made:
        status = folder.stat()
        write(record / "config_folder", f"710 {status.st_uid} {status.st_gid}\n")
    folders = [str(folder)] if made else []
    entry = {"before": None, "folders": folders, "marks": [], "lines": [], "written": ""}
    write(record / "journal.json", json.dumps({str(folder / "hostfile"): entry}))
    variables = {
        "cluster_name": "c",
        "teardown_confirm": "c",
        "ssh_trust_authorized_keys_on_node": "/root/.ssh/authorized_keys",
        "ssh_trust_own_way": {},
    }
    assert runner.run("teardown", root, variables=variables)["failed"] == ""
    return folder


def test_a_folder_that_we_did_not_make_stays_though_it_is_empty_and_is_as_it_was(
    runner: RoleRunner, tmp_path: Path
) -> None:
    ours = torn_down(runner, tmp_path / "a", made=True)
    theirs = torn_down(runner, tmp_path / "b", made=False)

    assert not ours.exists()
    assert list(theirs.iterdir()) == []
    assert theirs.stat().st_mode & 0o7777 == 0o710


def is_below(place: str, folder: str) -> bool:
    return f"{place}/".startswith(f"{folder}/")


def walked(root: Path) -> Iterator[Path]:
    """Files and links; no link is followed."""
    for folder, folders, names in os.walk(root):
        yield from (Path(folder, name) for name in names)
        yield from (path for name in folders if (path := Path(folder, name)).is_symlink())


def held(path: Path) -> str:
    return f"link to {path.readlink()}" if path.is_symlink() else path.read_text()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
