"""A playbook holds the cluster while it runs, and leaves each node's last failure; by Ansible itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from provision.edges import cluster_lock
from provision.inventory.site import secrets_of
from provision.nodes.node_record import parse

ROOT = Path(__file__).parents[3]
HOSTS = """\
cluster:
  hosts:
    te1: {ansible_connection: local}
    te2: {ansible_host: 127.0.0.9, ansible_port: 9}
"""
PLAY = f"""\
- name: Hold
  ansible.builtin.import_playbook: {ROOT}/playbooks/hold.yml
- name: Work
  hosts: cluster
  gather_facts: false
  tasks:
    - name: Fail
      ansible.builtin.raw: echo the reason >&2; exit 3
"""


BEYOND_REACH = """\
cluster:
  hosts:
    te1: {ansible_host: 127.0.0.9, ansible_port: 9}
    te2: {ansible_host: 127.0.0.9, ansible_port: 9}
"""
# Every way to leave out hosts or tasks, localhost and the tasks with the tag `always` among them.
LEFT_OUT = [
    ("--limit", "te2"),
    ("--limit", "!te1"),
    ("--limit", "@{site}/chosen"),
    ("--tags", "node_access"),
    ("--skip-tags", "always"),
    ("--skip-tags", "always", "--limit", "te2"),
    ("--start-at-task", "Fail"),
    ("--step",),
]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "hosts.yml").write_text(HOSTS)
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "chosen").write_text("te2\n")
    return tmp_path


def play(
    site: Path, *words: str, folder: Path = ROOT, environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Runs a playbook with further words; its status, and what it said in one line."""
    program = Path(sys.executable).parent / "ansible-playbook"
    finished = subprocess.run(
        [program, "-i", site / "hosts.yml", *words],
        cwd=folder,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", **(environment or {})},
        input="c\n",
        capture_output=True,
        text=True,
        check=False,
    )
    return finished.returncode, " ".join((finished.stdout + finished.stderr).split())


def run(site: Path, *flags: str) -> tuple[int, str]:
    return play(site, str(site / "play.yml"), *flags)


@pytest.fixture
def stranger(site: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the cluster and did not start the run, as another controller is."""
    hold = (
        "import sys, pathlib; from provision.edges import cluster_lock\n"
        "with cluster_lock.hold(pathlib.Path(sys.argv[1]), 'site.yml'): print(flush=True), sys.stdin.read()"
    )
    words = [sys.executable, "-c", hold, str(site / "secrets")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield holder
        holder.kill()


def test_a_run_leaves_the_last_failure_of_each_node_and_lets_the_cluster_go(site: Path) -> None:
    status, _ = run(site)
    found = parse((site / "secrets" / "nodes.json").read_text())

    assert status != 0
    assert found["te1"].failure is not None
    assert (found["te1"].failure.said, found["te1"].failure.task) == ("the reason", "Fail")
    assert found["te2"].failure is not None
    assert "Connection refused" in found["te2"].failure.said
    assert cluster_lock.holder(site / "secrets") is None


def test_a_run_is_refused_while_a_stranger_holds_the_cluster(
    site: Path, stranger: subprocess.Popen[str]
) -> None:
    status, said = run(site)

    assert status != 0
    assert f"site.yml holds it: process {stranger.pid} on {os.uname().nodename}, since 20" in said
    assert "No node was touched" in said
    assert not (site / "secrets" / "nodes.json").exists()


@pytest.mark.parametrize(
    ("playbook", "words"),
    [
        *(("teardown", words) for words in LEFT_OUT),
        *((name, ("--limit", "te2")) for name in ("site", "members", "restore", "image")),
    ],
    ids=lambda one: one if isinstance(one, str) else " ".join(one),
)
def test_no_way_of_leaving_out_hosts_or_tasks_goes_past_the_holder(
    site: Path, stranger: subprocess.Popen[str], playbook: str, words: tuple[str, ...]
) -> None:
    (site / "hosts.yml").write_text(BEYOND_REACH)

    status, said = play(site, f"{ROOT}/playbooks/{playbook}.yml", *(word.format(site=site) for word in words))

    assert status != 0
    assert f"site.yml holds it: process {stranger.pid}" in said
    assert "UNREACHABLE" not in said


@pytest.mark.parametrize("words", LEFT_OUT, ids=" ".join)
def test_no_way_of_leaving_out_hosts_or_tasks_goes_past_the_validation(
    site: Path, words: tuple[str, ...]
) -> None:
    (site / "hosts.yml").write_text(BEYOND_REACH)

    status, said = play(site, f"{ROOT}/playbooks/site.yml", *(word.format(site=site) for word in words))

    assert status != 0
    assert "problem(s) of the inventory" in said
    assert "te1 and te2 have one address, 127.0.0.9" in said
    assert "UNREACHABLE" not in said


@pytest.mark.parametrize("pattern", ["te[2:9]", "localhost", "nowhere", "te1:!te1"])
def test_a_pattern_without_nodes_ends_the_run(site: Path, pattern: str) -> None:
    (site / "hosts.yml").write_text(BEYOND_REACH)

    status, said = play(site, f"{ROOT}/playbooks/teardown.yml", "--limit", pattern)

    assert status != 0
    assert "leaves us with no hosts to target" in said


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.timer"}, ROOT),
        ({"ANSIBLE_CONFIG": "{site}/other.cfg", "ANSIBLE_CALLBACK_PLUGINS": "/nowhere"}, ROOT),
        ({}, Path("/")),
    ],
    ids=str,
)
def test_settings_of_ansible_do_not_go_past_the_holder(
    site: Path, stranger: subprocess.Popen[str], environment: dict[str, str], folder: Path
) -> None:
    (site / "hosts.yml").write_text(BEYOND_REACH)
    (site / "other.cfg").write_text("[defaults]\n")
    words = (f"{ROOT}/playbooks/teardown.yml", "--limit", "te2")
    own = {name: value.format(site=site) for name, value in environment.items()}

    status, said = play(site, *words, folder=folder, environment=own)

    assert status != 0
    assert f"site.yml holds it: process {stranger.pid}" in said
    assert "UNREACHABLE" not in said


def test_an_ansible_without_this_package_is_refused(site: Path, tmp_path: Path) -> None:
    """As the one of the system: plugins that cannot be loaded are only warned of."""
    (site / "hosts.yml").write_text(BEYOND_REACH)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sitecustomize.py").write_text("import sys; sys.modules['provision'] = None\n")
    other = {"PYTHONPATH": str(tmp_path / "other")}

    status, said = play(site, f"{ROOT}/playbooks/site.yml", "--limit", "te2", environment=other)

    assert status != 0
    assert "once" in said  # the filter of hold.yml, which is not there either
    assert "UNREACHABLE" not in said


def test_several_playbooks_of_one_command_hold_the_cluster_to_the_end(site: Path) -> None:
    """To ask who holds it must not let it go: closing any descriptor of the file does (fcntl(2))."""
    ask = "from pathlib import Path; from provision.edges import cluster_lock as lock; "
    ask += f"print('holder', lock.holder(Path('{site}/secrets')))"
    task = {"name": "Ask", "ansible.builtin.command": {"argv": [sys.executable, "-c", ask]}}
    asks = [{"name": "Ask", "hosts": "te1", "gather_facts": False, "tasks": [task]}]
    imports = [{"name": "Hold", "ansible.builtin.import_playbook": f"{ROOT}/playbooks/hold.yml"}]
    for name in ("one.yml", "two.yml"):
        (site / name).write_text(json.dumps(imports + asks))

    status, said = play(site, str(site / "one.yml"), str(site / "two.yml"), "-v")

    assert status == 0, said
    assert said.count("holder one.yml holds it: process") >= 2
    assert "holder None" not in said


@pytest.mark.parametrize(
    "stated",
    [
        "{{inventory_dir}}/own",
        "{{ inventory_dir }}/own",
        "{{ inventory_dir ~ '/own' }}",
        "{{- inventory_dir -}}/own",
        "{{ inventory_file | dirname }}/own",
        "{{ folder }}/{{ inventory_hostname }}",
        "",
    ],
)
def test_both_doors_keep_the_secrets_in_one_folder(site: Path, stated: str) -> None:
    own = {"folder": str(site), **({"ssh_trust_secrets_path": stated} if stated else {})}
    (site / "hosts.yml").write_text(HOSTS + f"  vars: {json.dumps(own)}\n")

    run(site)
    folder = secrets_of(site / "hosts.yml", environment=os.environ)

    assert folder.is_absolute()
    assert (folder / "nodes.json").is_file()


def test_check_mode_leaves_nothing(site: Path) -> None:
    run(site, "--check")

    assert not (site / "secrets").exists()
