"""site.yml as a whole: from nothing to proven, again without a change, after a reboot, with a node off."""

from __future__ import annotations

import json
import time

from tests.lab.conftest import ENVIRONMENT, FourRuns, LabUnderTest, changed, playbook, recap

SMOKE = "/data/miniconda3/envs/torch/bin/python -P -m runtime smoke --quick --json /tmp/smoke.json"


def test_the_first_run_ends_with_a_proven_cluster(converged_lab: LabUnderTest, four_runs: FourRuns) -> None:
    results = json.loads(converged_lab.out("te1", "cat /etc/clusterwright/smoke.json"))
    counts = recap(four_runs.first.finished).values()

    assert all(count["failed"] == count["unreachable"] == 0 for count in counts)
    assert results["verdict"] == "pass"


def test_the_kind_was_left_to_auto_which_is_cpu_without_a_gpu(converged_lab: LabUnderTest) -> None:
    record = (converged_lab.lab.folder / "secrets" / "environment_kinds.yml").read_text()

    assert f"{ENVIRONMENT}:" in record
    assert "kind: cpu" in record


def test_the_second_run_changes_nothing_and_takes_a_quarter_of_the_first(
    converged_lab: LabUnderTest, four_runs: FourRuns
) -> None:
    """A run that changes nothing can be repeated: on a noisy machine the fastest of up to three counts."""
    seconds = [four_runs.second.seconds]
    while len(seconds) < 3 and min(seconds) > four_runs.first.seconds / 4:
        started = time.monotonic()
        assert changed(playbook(converged_lab)) == dict.fromkeys(converged_lab.nodes, 0)
        seconds.append(time.monotonic() - started)

    assert changed(four_runs.second.finished) == dict.fromkeys(converged_lab.nodes, 0)
    print(f"first run {four_runs.first.seconds:.1f} s, later runs {[f'{took:.1f}' for took in seconds]} s")
    assert min(seconds) <= four_runs.first.seconds / 4


def test_all_nodes_report_one_environment_digest(converged_lab: LabUnderTest) -> None:
    reports = [
        json.loads(converged_lab.out(node, "cat /etc/clusterwright/environment.json"))
        for node in converged_lab.nodes
    ]

    assert len({report["digest"] for report in reports}) == 1
    assert all(report["name"] == "torch" for report in reports)


def test_a_login_shell_has_the_environment(converged_lab: LabUnderTest) -> None:
    python = converged_lab.out(
        "te2", "bash -lc 'command -v python; conda --version; zerorun --help >/dev/null && echo zerorun'"
    )

    assert python.splitlines()[0] == "/data/miniconda3/envs/torch/bin/python"
    assert python.splitlines()[-1] == "zerorun"


def test_a_node_is_as_it_was_after_a_reboot(converged_lab: LabUnderTest) -> None:
    facts = (
        "hostname; cat /etc/hosts; findmnt -no UUID,FSTYPE /data; ulimit -l -n;"
        " python3 -c \"import json; print(json.load(open('/etc/clusterwright/environment.json'))['digest'])\""
    )
    before = converged_lab.out("te3", facts)
    converged_lab.reboot("te3")

    assert converged_lab.out("te3", facts) == before
    assert converged_lab.run("te1", SMOKE, timeout_seconds=120).returncode == 0


def test_a_node_that_is_off_is_named_and_the_others_finish(converged_lab: LabUnderTest) -> None:
    converged_lab.power_off("te4")
    try:
        run = playbook(converged_lab, check=False)
    finally:
        converged_lab.power_on("te4")
    counts = recap(run)

    assert run.returncode != 0
    assert counts["te4"]["unreachable"] == 1
    assert counts["te2"]["failed"] == counts["te3"]["failed"] == counts["te2"]["unreachable"] == 0
    assert "te4" in run.stdout.split("TASK [smoke_test")[-1]
