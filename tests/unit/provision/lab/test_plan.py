from __future__ import annotations

from pathlib import Path

from provision.lab.layout import lay_out
from provision.lab.observe import Observed
from provision.lab.plan import Action, Restoring, Step, plan_down, plan_power_on, plan_up

LAB = lay_out(name="lab", subnet="10.77.0.0/24", count=2, disk_bytes=1 << 30, base=Path("/b"))
RUNNING = Observed(
    keepers={"te1": 11, "te2": 12},
    server=10,
    pids=(10, 11, 12),
    bridge=True,
    links={"cwlab-te1": True, "cwlab-te2": True},
    loops=("/dev/loop0", "/dev/loop1"),
    cgroups=True,
    files=True,
)


def brief(steps: list[Step]) -> list[tuple[str, str]]:
    return [(step.action.value, step.target) for step in steps]


CHECKS = [
    ("wait for sshd", "te1"),
    ("wait for sshd", "te2"),
    ("try cables", "te1"),
    ("write inventory", "lab"),
]


def test_from_nothing_everything_is_made_before_any_node_starts() -> None:
    assert brief(plan_up(LAB, Observed(), made=frozenset())) == [
        ("make bridge", "cwlab"),
        ("start file server", "10.77.0.1"),
        ("make files", "te1"),
        ("make files", "te2"),
        ("start", "te1"),
        ("start", "te2"),
        ("connect", "te1"),
        ("connect", "te2"),
        *CHECKS,
    ]


def test_a_running_lab_is_only_checked() -> None:
    assert brief(plan_up(LAB, RUNNING, made=frozenset({"te1", "te2"}))) == CHECKS


def test_a_node_whose_cable_was_never_finished_is_connected_but_not_started_again() -> None:
    half = Observed(
        keepers={"te1": 11, "te2": 12}, server=10, bridge=True, links={"cwlab-te1": True, "cwlab-te2": False}
    )

    assert brief(plan_up(LAB, half, made=frozenset({"te1", "te2"}))) == [("connect", "te2"), *CHECKS]


def test_an_image_that_is_not_in_the_cache_is_built_first() -> None:
    steps = plan_up(LAB, Observed(inotify_instances=128), made=frozenset(), has_image=False)

    assert brief(steps)[0] == ("build image", "/b")


def test_a_limit_that_would_stop_the_tenth_node_is_raised_first() -> None:
    steps = plan_up(LAB, Observed(inotify_instances=128), made=frozenset())

    assert brief(steps)[0] == ("raise limit", "fs.inotify.max_user_instances")
    assert "128 are too few" in steps[0].reason


def test_a_lab_from_a_snapshot_gets_its_files_first_and_its_faults_last() -> None:
    new = Restoring(name="proven", mounted=False, keys=False)
    names = [each[0] for each in brief(plan_up(LAB, Observed(), made=frozenset(), snapshot=new))]

    assert names[:2] == ["mount snapshot", "restore keys and secrets"]
    assert names[-4:] == ["mend faults", "try cables", "write inventory", "inject faults"]


def test_a_restored_lab_that_runs_is_only_checked() -> None:
    whole = Restoring(name="proven", mounted=True, keys=True)

    assert brief(plan_up(LAB, RUNNING, made=frozenset({"te1", "te2"}), snapshot=whole)) == CHECKS


def test_faults_that_went_with_the_power_come_back() -> None:
    steps = plan_up(LAB, RUNNING, made=frozenset({"te1", "te2"}), unstruck=True)

    assert [step.action for step in steps if step.target == "lab"] == [
        Action.mend,
        Action.describe,
        Action.inject,
    ]


def test_only_the_node_that_is_off_is_started() -> None:
    one_off = Observed(keepers={"te1": 11}, server=10, bridge=True, links={"cwlab-te1": True})

    assert brief(plan_power_on(LAB, one_off, ["te1", "te2"])) == [
        ("start", "te2"),
        ("connect", "te2"),
        ("wait for sshd", "te1"),
        ("wait for sshd", "te2"),
    ]


def test_down_stops_what_runs_before_it_frees_what_was_used() -> None:
    traces = Observed(
        keepers={"te1": 11},
        server=10,
        pids=(11, 10),
        bridge=True,
        links={"cwlab-te2": False, "cwlab-te1": True},
        loops=("/dev/loop4",),
        mounts=(Path("/var/lib/clusterwright/labs/lab/x"),),
        written=Path("/var/lib/clusterwright/labs/lab/nodes"),
        snapshots=(Path("/s/proven/files.xfs"),),
        half=Path("/s/.lab.partial"),
        cgroups=True,
        files=True,
    )

    assert brief(plan_down("cwlab", traces)) == [
        ("stop processes", "10 11"),
        ("empty", "/var/lib/clusterwright/labs/lab/nodes"),
        ("unmount", "/var/lib/clusterwright/labs/lab/x"),
        ("detach disk", "/dev/loop4"),
        ("delete link", "cwlab-te1"),
        ("delete link", "cwlab-te2"),
        ("delete link", "cwlab"),
        ("remove control groups", "of the nodes"),
        ("delete half a snapshot", "/s/.lab.partial"),
        ("delete files", "of the lab"),
        ("wait for release", "/s/proven/files.xfs"),
    ]


def test_there_is_nothing_to_take_down_where_nothing_is() -> None:
    assert plan_down("cwlab", Observed()) == []


def test_every_step_says_why() -> None:
    new = Restoring(name="proven", mounted=False, keys=False)
    looked = Observed(inotify_instances=1)
    everything = plan_up(LAB, looked, made=frozenset(), has_image=False, snapshot=new)
    steps = [*everything, *plan_down("cwlab", RUNNING)]

    assert all(step.reason for step in steps)
    assert {step.action for step in steps} == set(Action) - {
        Action.unmount,
        Action.empty_snapshot,
        Action.release_snapshot,
        Action.delete_half,
    }
