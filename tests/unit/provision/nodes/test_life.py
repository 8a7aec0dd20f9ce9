"""A cluster follows an edit of its inventory: all is real here but for playbooks, which are only noted."""

from __future__ import annotations

import errno
import json
import os
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provision.errors import BadInput, Busy, CommandFailed, ProvisionError
from provision.inventory.members import Action
from provision.nodes import node_record
from provision.nodes.life import Change, preview
from tests.unit.provision.life_site import HOSTS, KEY, Cluster, files, made

VALIDATE = "playbooks/validate.yml --extra-vars validate_sources=false"
TELL = "playbooks/members.yml"
OWN_WAY = f"{TELL} --check"
CLOCK_OF_TE1 = "playbooks/site.yml --limit te1 --tags time_sync"
ALL_OF_TE4 = "playbooks/site.yml --limit te4 --skip-tags smoke_test"


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return made(tmp_path)


@pytest.fixture
def full_disk() -> Iterator[Callable[[], None]]:
    """From its call on this process writes no byte to a file, even as root (setrlimit(2), RLIMIT_FSIZE)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fail(error: BaseException) -> Callable[[], None]:
    def happen() -> None:
        raise error

    return happen


FAILED = CommandFailed("run the playbook", found="it ended with status 2", fix="Mend what it names.")


def test_a_node_is_added_once_its_line_is_valid_and_tested_last(cluster: Cluster) -> None:
    done = cluster.apply(Action.add, "te4")

    smoke = """playbooks/site.yml --limit te4 --tags smoke_test --extra-vars '{"smoke_test_new": ["te4"]}'"""
    assert cluster.words == [VALIDATE, CLOCK_OF_TE1, ALL_OF_TE4, TELL, smoke]
    assert cluster.reported == cluster.words[1:]
    assert [moment.spares for moment in cluster.moments] == [False, True, False, True, False]
    line = b"    te4: {ansible_host: 127.0.0.4}\n"
    begin, end = HOSTS.split(b"\n\n")
    assert {moment.hosts for moment in cluster.moments} == {begin + b"\n" + line + b"\n" + end}
    assert cluster.hosts.stat().st_mode & 0o777 == 0o640
    assert {moment.holder for moment in cluster.moments} == {"provision node add te4"}
    after = cluster.now()
    assert after.holder == ""
    assert (after.has_key, after.retired, after.tokens) == (True, [], ["te2", "te3"])
    assert (done.edited, done.tested, done.pending, done.audit) == (True, True, [], [])
    assert done.steps == dict.fromkeys(cluster.words[1:], 1.0)


@pytest.mark.parametrize("error", [FAILED, KeyboardInterrupt()], ids=["refused", "interrupted"])
@pytest.mark.parametrize(
    ("action", "node"), [(Action.add, "te4"), (Action.replace, "te2")], ids=["add", "replace"]
)
def test_a_line_that_validation_does_not_let_pass_is_taken_back_byte_for_byte(
    cluster: Cluster, action: Action, node: str, error: BaseException
) -> None:
    cluster.happens = {VALIDATE: fail(error)}

    with pytest.raises(type(error)) as failed:
        cluster.apply(action, node)

    assert failed.value is error
    assert cluster.words == [VALIDATE]
    assert cluster.moments[0].hosts != HOSTS
    assert cluster.hosts.read_bytes() == HOSTS
    assert cluster.hosts.stat().st_mode & 0o777 == 0o640
    assert cluster.now().tokens == ["te2", "te3"]


def test_what_somebody_writes_meanwhile_is_not_taken_back(cluster: Cluster) -> None:
    def somebody_writes_and_it_fails() -> None:
        cluster.hosts.write_bytes(cluster.hosts.read_bytes() + b"# theirs\n")
        raise FAILED

    cluster.happens = {VALIDATE: somebody_writes_and_it_fails}

    with pytest.raises(CommandFailed, match="it ended with status 2"):
        cluster.apply(Action.add, "te4")

    assert cluster.hosts.read_bytes() == cluster.moments[0].hosts + b"# theirs\n"


def test_a_line_that_cannot_be_taken_back_is_named_with_why_it_should_be(
    cluster: Cluster, full_disk: Callable[[], None]
) -> None:
    def disk_is_full_and_it_fails() -> None:
        full_disk()
        raise FAILED

    cluster.happens = {VALIDATE: disk_is_full_and_it_fails}

    with pytest.raises(ProvisionError) as failed:
        cluster.apply(Action.add, "te4")

    assert failed.value.asked == f"put {cluster.hosts} back as it was"
    assert failed.value.found == f"File too large, after this: {FAILED}"
    assert "Undo the edit of te4 there by hand" in failed.value.fix
    assert cluster.hosts.read_bytes() == cluster.moments[0].hosts


def test_a_file_that_cannot_be_written_stays_as_it_is(
    cluster: Cluster, full_disk: Callable[[], None]
) -> None:
    before = sorted(path.name for path in cluster.folder.iterdir())
    change = cluster.change(Action.add, "te4")

    def edit(text: str) -> str:
        full_disk()
        return change.edit(text)

    with pytest.raises(OSError, match="File too large") as failed:
        cluster.apply_change(Change(action=Action.add, node="te4", inventory=cluster.folder, edit=edit))

    assert failed.value.errno == errno.EFBIG
    assert cluster.words == []
    assert cluster.hosts.read_bytes() == HOSTS
    assert sorted(path.name for path in cluster.folder.iterdir()) == before


def test_an_add_that_failed_goes_on_where_it_stopped(cluster: Cluster) -> None:
    """Its line was valid, so it stays: hosts.yml is what the next command starts from."""
    cluster.happens = {ALL_OF_TE4: fail(KeyboardInterrupt())}
    with pytest.raises(KeyboardInterrupt):
        cluster.apply(Action.add, "te4")
    edited = cluster.hosts.read_bytes()
    assert b"te4: {ansible_host: 127.0.0.4}" in edited
    assert cluster.now().holder == ""

    cluster.happens = {}
    done = cluster.apply(Action.add, "te4")

    assert (done.edited, done.tested) == (False, True)
    assert cluster.words[:3] == [CLOCK_OF_TE1, ALL_OF_TE4, TELL]
    assert cluster.hosts.read_bytes() == edited


def test_a_node_that_is_replaced_has_no_token_more_once_its_line_is_valid(cluster: Cluster) -> None:
    cluster.apply(Action.replace, "te2")

    accepted = """ --extra-vars '{"ssh_trust_replaced_nodes": ["te2"]}'"""
    assert cluster.words[:4] == [
        VALIDATE,
        CLOCK_OF_TE1,
        f"playbooks/site.yml --limit te2 --skip-tags smoke_test{accepted}",
        TELL,
    ]
    assert [moment.tokens for moment in cluster.moments[:2]] == [["te2", "te3"], ["te3"]]
    after = cluster.now()
    assert after.hosts == HOSTS.replace(b'"127.0.0.2"', b'"127.0.0.5"')
    # The old machine keeps a copy of the cluster's key, as `replace` says.
    assert (after.has_key, after.retired, after.ledgers) == (True, [], [["te1", "te2", "te3"]] * 2)


def test_a_node_is_removed_once_the_way_in_is_proven_and_forgotten_once_the_others_are_tested(
    cluster: Cluster,
) -> None:
    kept = files(cluster)
    _, text, planned = preview(cluster.change(Action.remove, "te2"), os.environ)
    assert files(cluster) == kept

    done = cluster.apply(Action.remove, "te2")

    assert [shlex.join(step.words) for step in planned] == cluster.words
    assert text.encode() == cluster.hosts.read_bytes()
    own_way, told, *_, tested = cluster.moments
    assert shlex.split(own_way.words) == [
        *("playbooks/members.yml", "--check", "--limit", "all:!te2"),
        *("--extra-vars", '{"ssh_trust_gives_up": true}'),
    ]
    assert (own_way.hosts, own_way.has_key, own_way.tokens) == (HOSTS, True, ["te2", "te3"])
    assert own_way.ledgers == [["te1", "te2", "te3"]] * 2
    assert (told.words, told.spares) == (TELL, True)
    assert told.hosts == HOSTS.replace(
        b'    te2:   {ansible_host: "127.0.0.2", ansible_port: 9}   # on loan\t\n', b""
    )
    assert (told.has_key, told.retired, told.tokens) == (False, [KEY], ["te3"])
    assert told.ledgers == [["te1", "te2", "te3"]] * 2
    assert tested.words == "playbooks/site.yml --limit te1 --tags smoke_test"
    assert tested.ledgers == told.ledgers
    assert cluster.now().ledgers == [["te1", "te3"]] * 2
    assert done.tested
    # Who cannot be asked for keys is a finding, not a failure.
    assert [finding.node for finding in done.audit] == ["te1", "te3"]


def test_a_node_stays_where_the_way_in_is_not_proven(cluster: Cluster) -> None:
    before = cluster.now()
    cluster.happens = {OWN_WAY: fail(FAILED)}

    with pytest.raises(CommandFailed, match="it ended with status 2"):
        cluster.apply(Action.remove, "te2")

    assert len(cluster.words) == 1
    assert cluster.now() == before


def test_a_removal_that_failed_goes_on_where_it_stopped(cluster: Cluster) -> None:
    """Of te1, whose clock led: that the others follow another one from now on may not have been told."""
    smoke = "playbooks/site.yml --limit te2 --tags smoke_test"
    for fails in (TELL, smoke):
        cluster.happens = {OWN_WAY: lambda: None, fails: fail(FAILED)}
        with pytest.raises(CommandFailed):
            cluster.apply(Action.remove, "te1")
        assert cluster.words[-1] == fails
    edited = cluster.hosts.read_bytes()
    assert edited != HOSTS

    cluster.happens = {}
    done = cluster.apply(Action.remove, "te1")

    assert (done.edited, done.tested, cluster.hosts.read_bytes()) == (False, True, edited)
    assert cluster.words[1:] == [TELL, "playbooks/site.yml --tags time_sync", smoke]
    assert cluster.now().ledgers == [["te2", "te3"]] * 2
    assert cluster.now().retired == [KEY]


def test_who_misses_a_change_is_pending_left_out_of_tests_and_told_the_next_time(cluster: Cluster) -> None:
    cluster.happens = {TELL: cluster.ran("members.yml", good="te1 te2", bad="te3", now="2026-01-01")}
    assert cluster.apply(Action.drain, "te2").pending == ["te3"]

    cluster.happens = {TELL: cluster.ran("members.yml", good="te1 te2", bad="te3", now="2026-01-02")}
    assert cluster.apply(Action.replace, "te1").pending == ["te3"]
    values = json.loads(shlex.split(cluster.words[-1])[-1])
    assert values == {"smoke_test_new": ["te1"], "smoke_test_left_out": ["te3"]}
    kept = node_record.parse((cluster.secrets / "nodes.json").read_text())
    assert kept["te3"].pending_since == "2026-01-01"

    cluster.happens = {TELL: cluster.ran("members.yml", good="te1 te2 te3", now="2026-01-03")}
    done = cluster.apply(Action.undrain, "te2")

    assert (done.pending, done.tested, cluster.words) == ([], False, [TELL])
    assert cluster.hosts.read_bytes() == HOSTS.replace(b"127.0.0.1", b"127.0.0.5")


def without_controller_key(cluster: Cluster) -> None:
    (cluster.secrets / "controller_key").unlink()


def without_nodes(cluster: Cluster) -> None:
    cluster.hosts.write_text("cluster_of_ours: {hosts: {te1: {ansible_host: 127.0.0.1}}}\n")


def named_elsewhere(cluster: Cluster) -> None:
    cluster.hosts.write_bytes(HOSTS + b"nvidia_gpu:\n  hosts:\n    te2:\n")


def damaged_tokens(cluster: Cluster) -> None:
    (cluster.secrets / "join_tokens.json").write_text("{")


def damaged_ledger(cluster: Cluster) -> None:
    (cluster.secrets / "host_keys.yml").write_text("[")


def no_utf8(cluster: Cluster) -> None:
    cluster.hosts.write_bytes(HOSTS + b"# caf\xe9\n")


def as_it_is(cluster: Cluster) -> None:
    """Nothing is spoilt."""


NODES = "te1, te2, te3"
# Whom, in what state of the site; and what the error says was asked and found, and is to be done.
REFUSED = {
    "remove a stranger": (
        *(Action.remove, "te9", as_it_is),
        *("remove node te9", f"the nodes are {NODES}", "Name one of them."),
    ),
    "drain a stranger": (
        *(Action.drain, "te9", as_it_is),
        *("find node te9 in the inventory", f"its nodes are {NODES}", "provision node add"),
    ),
    "add who is elsewhere": (
        *(Action.add, "te2", as_it_is),
        *("add node te2 at 127.0.0.4", "already, at 127.0.0.2", "node replace te2 --address 127.0.0.4"),
    ),
    "nobody to sign": (
        *(Action.add, "te4", without_controller_key),
        *("add node te4", "secrets/controller_key, with which this controller signs", "site.yml makes it"),
    ),
    "no nodes of the cluster": (
        *(Action.drain, "te2", without_nodes),
        *("drain node te2 in the inventory", "hosts.yml (it lists no nodes", "in one YAML or ini file"),
    ),
    "no text": (
        *(Action.drain, "te2", no_utf8),
        *("read the inventory", "Completely failed to parse", "validate.yml says what is wrong"),
    ),
    "named elsewhere": (
        *(Action.remove, "te2", named_elsewhere),
        *("remove node te2", "line 12 of the inventory names it as well", "Take it out there first."),
    ),
    "damaged tokens": (
        *(Action.remove, "te2", damaged_tokens),
        *("secrets/join_tokens.json", "it is damaged", "Delete it"),
    ),
    "damaged ledger": (
        *(Action.remove, "te2", damaged_ledger),
        *("secrets/host_keys.yml", "it is damaged", "Put a copy of it back"),
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_beforehand_changes_nothing_and_says_what_to_do(
    cluster: Cluster, case: tuple[Action, str, Callable[[Cluster], None], str, str, str]
) -> None:
    action, node, spoil, asked, found, fix = case
    spoil(cluster)
    kept = files(cluster)

    with pytest.raises(BadInput) as refused:
        cluster.apply(action, node)

    assert asked in refused.value.asked
    assert found in refused.value.found
    assert fix in refused.value.fix
    assert cluster.words == []
    assert files(cluster) == kept


def test_nothing_is_edited_while_another_controller_holds_the_cluster(cluster: Cluster) -> None:
    hold = "import sys, pathlib; from provision.edges import cluster_lock; "
    hold += "cluster_lock.take(pathlib.Path(sys.argv[1]), 'site.yml'); print(flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", hold, str(cluster.secrets)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(Busy, match=rf"site\.yml holds it: process {other.pid}"):
            cluster.apply(Action.drain, "te2")
        other.kill()

    assert cluster.words == []
    assert cluster.hosts.read_bytes() == HOSTS


def test_a_preview_names_a_file_that_is_no_text(cluster: Cluster) -> None:
    no_utf8(cluster)

    with pytest.raises(BadInput, match=r"read .*hosts\.yml: .*special characters are not allowed"):
        preview(cluster.change(Action.drain, "te2"), os.environ)


def test_a_record_of_nodes_that_is_no_text_counts_as_none(cluster: Cluster) -> None:
    (cluster.secrets / "nodes.json").write_bytes(b"caf\xe9")

    assert cluster.apply(Action.drain, "te2").pending == []
