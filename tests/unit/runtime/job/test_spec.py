"""Orders from a job, and the variables of a rank."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from runtime.as_deepspeed.finder import START
from runtime.errors import BadInput
from runtime.job.environment import FORWARDED, matching, parse_job_environment, rank_environment
from runtime.job.spec import orders, parse_assignments, parse_shown, redacted
from tests.unit.runtime.launch.jobs import job


def test_ranks_are_counted_through_the_nodes() -> None:
    first, second = orders(job(), master_addr="10.0.0.1", master_port=29500)

    assert (first.host, first.node_rank, first.first_rank, first.nproc) == ("te1", 0, 0, 2)
    assert (second.host, second.node_rank, second.first_rank, second.nproc) == ("te2", 1, 2, 1)
    assert second.rank_log(0) == "/data/jobs/j1/logs/rank2.log"
    assert job().hosts_by_rank() == ("te1", "te1", "te2")


@pytest.mark.parametrize(
    ("shown", "relayed"),
    [(frozenset({0}), [(0,), ()]), (frozenset({0, 2}), [(0,), (0,)]), (None, [(0, 1), (0,)])],
)
def test_only_the_shown_ranks_are_relayed(
    shown: frozenset[int] | None, relayed: list[tuple[int, ...]]
) -> None:
    made = orders(job(shown_ranks=shown), master_addr="10.0.0.1", master_port=29500)

    assert [order.shown_local_ranks for order in made] == relayed


def test_the_launching_shell_hands_on_an_allow_list() -> None:
    environ = {
        "NCCL_DEBUG": "INFO",
        "HF_HOME": "/data/hf",
        "WANDB_MODE": "offline",
        "PYTHONPATH": "/x",
        "CUDA_VISIBLE_DEVICES": "0",
        "SSH_AUTH_SOCK": "/s",
        "RANK": "3",
        "XNCCL_DEBUG": "no",
        "TORCHELASTIC_RUN_ID": "other job",
    }

    assert set(matching(environ, FORWARDED)) == {
        "NCCL_DEBUG",
        "HF_HOME",
        "WANDB_MODE",
        "PYTHONPATH",
        "CUDA_VISIBLE_DEVICES",
    }


def environment(
    *,
    include: str = "",
    forwarded: Mapping[str, str] | None = None,
    given: Mapping[str, str] | None = None,
    of_node: Mapping[str, str] | None = None,
    interface: str = "",
    master_addr: str = "10.0.0.1",
) -> dict[str, str]:
    order = orders(
        job(include=include, forwarded=forwarded or {}, environment=given or {}, interface=interface),
        master_addr=master_addr,
        master_port=29500,
    )[0]
    session = {"PATH": "/usr/bin", "HOME": "/root", "RANK": "7", "PET_NNODES": "9"}
    return rank_environment(
        order,
        session=session,
        job=of_node or {},
        python="/env/bin/python",
        torch="2.13.0+cpu",
        interface="eth0",
        cpus=16,
    )


def test_a_rank_gets_the_short_list_of_the_session_and_computed_defaults() -> None:
    flight = "/data/jobs/j1/logs/flight_rank"
    assert environment() == {
        "CLUSTERWRIGHT_FLIGHT": flight,
        "TORCH_FR_BUFFER_SIZE": "2000",
        "TORCH_FR_DUMP_TEMP_FILE": flight,
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        "PATH": "/env/bin:/usr/bin",
        "HOME": "/root",
        "OMP_NUM_THREADS": "8",
        "NCCL_SOCKET_IFNAME": "=eth0",
        "GLOO_SOCKET_IFNAME": "eth0",
    }


def test_over_ipv6_gloo_goes_by_the_name_of_the_node_since_it_takes_an_interface_s_ipv4_address() -> None:
    got = environment(master_addr="fd88::11")

    assert "GLOO_SOCKET_IFNAME" not in got
    assert (got["NCCL_SOCKET_IFNAME"], got["NCCL_SOCKET_FAMILY"]) == ("=eth0", "AF_INET6")


def test_the_nodes_file_beats_the_shell_and_the_option_beats_both() -> None:
    got = environment(
        forwarded={"NCCL_DEBUG": "INFO", "GLOO_SOCKET_IFNAME": "ib0", "A": "shell"},
        of_node={"GLOO_SOCKET_IFNAME": "eth1", "A": "node", "B": "node"},
        given={"A": "option"},
    )

    assert (got["A"], got["B"], got["NCCL_DEBUG"], got["GLOO_SOCKET_IFNAME"]) == (
        "option",
        "node",
        "INFO",
        "eth1",
    )


def test_the_interface_option_beats_the_nodes_file() -> None:
    got = environment(of_node={"GLOO_SOCKET_IFNAME": "eth1"}, interface="eth7")

    assert (got["NCCL_SOCKET_IFNAME"], got["GLOO_SOCKET_IFNAME"]) == ("=eth7", "eth7")


@pytest.mark.parametrize("asked", ["1", "instead"])
def test_a_site_a_shell_or_a_job_may_have_deepspeed_answered(asked: str) -> None:
    """By an inventory's collective_network_environment, which is the node's file, or --as-deepspeed."""
    wanted = {"CLUSTERWRIGHT_AS_DEEPSPEED": asked}

    for got in (environment(of_node=wanted), environment(given=wanted)):
        assert got["CLUSTERWRIGHT_AS_DEEPSPEED"] == asked
        assert got["PYTHONPATH"] == str(START)
    own = environment(given=wanted, forwarded={"PYTHONPATH": "/mine"})["PYTHONPATH"]
    assert own == f"{START}:/mine"
    assert "PYTHONPATH" not in environment(of_node=wanted, given={"CLUSTERWRIGHT_AS_DEEPSPEED": "0"})


def test_picked_slots_are_the_visible_devices() -> None:
    assert environment(include="te1:1")["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in environment()


def test_a_node_s_file_may_hold_comments_and_blank_lines() -> None:
    text = "# interface\n\nGLOO_SOCKET_IFNAME=eth0\n  NCCL_DEBUG = WARN\nEMPTY=\nWITH=a=b\n"

    assert parse_job_environment(text, source="job.env") == {
        "GLOO_SOCKET_IFNAME": "eth0",
        "NCCL_DEBUG": "WARN",
        "EMPTY": "",
        "WITH": "a=b",
    }


@pytest.mark.parametrize("line", ["export A=1", "A", "=1", "1A=2"])
def test_another_line_in_a_node_s_file_is_refused_with_its_number(line: str) -> None:
    with pytest.raises(BadInput, match=r"job\.env, line 2: no variable is set there"):
        parse_job_environment(f"A=1\n{line}\n", source="job.env")


def test_env_options_are_key_equals_value() -> None:
    assert parse_assignments(["A=1", "B=x=y", "C="]) == {"A": "1", "B": "x=y", "C": ""}
    with pytest.raises(BadInput, match="not KEY=VALUE"):
        parse_assignments(["A"])


def test_tee_names_ranks_or_all() -> None:
    assert parse_shown("", 4) == {0}
    assert parse_shown("1,3", 4) == {0, 1, 3}
    assert parse_shown("all", 4) is None
    with pytest.raises(BadInput, match="ranks 0 to 3"):
        parse_shown("4", 4)


def test_an_order_is_shown_without_secrets() -> None:
    order = orders(
        job(forwarded={"WANDB_API_KEY": "s3cret"}, environment={"HF_TOKEN": "s3cret"}),
        master_addr="a",
        master_port=29500,
    )

    shown = redacted(order[0])

    assert "s3cret" not in shown
    assert json.loads(shown)["forwarded"] == {"WANDB_API_KEY": "***"}


def test_variables_of_a_secret_file_are_shown_by_name_whatever_they_are_called() -> None:
    order = orders(job(environment={"PLAIN": "s3cret", "SEEN": "1"}), master_addr="a", master_port=29500)

    assert json.loads(redacted(order[0], hidden=["PLAIN"]))["environment"] == {"PLAIN": "***", "SEEN": "1"}
