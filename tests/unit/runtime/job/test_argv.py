"""Every command line of the launcher, word for word."""

from __future__ import annotations

import shlex

from runtime.job.argv import node_argv, program_argv, rank_argv, ssh_argv, store_argv
from runtime.job.hostfile import Host
from runtime.job.spec import orders, take_variables, to_variables
from tests.unit.runtime.launch.jobs import job

HOSTILE = ("a b", "it's", '"q"', "new\nline", "$(reboot)", "`id`", "$$", "${local_rank}", "; rm -rf /", "")


def test_a_node_on_this_machine_needs_no_ssh() -> None:
    assert node_argv("/env/bin/python") == (
        "/env/bin/python",
        "-P",
        "-u",
        "-m",
        "runtime.node",
    )


def test_another_machine_is_reached_by_plain_ssh_that_asks_nothing_and_trusts_no_stranger() -> None:
    argv = ssh_argv(Host(name="te2", slots=1, user="root"), python="/env/bin/python")

    assert argv == (
        "ssh",
        "-T",
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "ConnectTimeout=8",
        "-o",
        "ConnectionAttempts=1",
        "-o",
        "ServerAliveInterval=5",
        "-o",
        "ServerAliveCountMax=3",
        "-o",
        "ControlPath=none",
        "-o",
        "ForwardX11=no",
        "-o",
        "LogLevel=ERROR",
        "--",
        "root@te2",
        "/env/bin/python -P -u -m runtime.node",
    )


def test_an_interpreter_with_a_space_in_its_path_is_one_word_for_the_shell_there() -> None:
    argv = ssh_argv(Host(name="te2", slots=1), python="/my env/bin/python", ssh_config="/tmp/c")

    assert argv[2:4] == ("-F", "/tmp/c")
    assert argv[-2] == "te2"
    assert shlex.split(argv[-1])[0] == "/my env/bin/python"


def test_what_looks_after_a_rank_carries_no_word_of_the_user() -> None:
    assert rank_argv(3, python="/env/bin/python") == (
        "/env/bin/python",
        "-P",
        "-m",
        "runtime.launch.rank",
        "3",
    )


def test_the_store_gets_the_socket_that_its_node_holds_and_no_word_of_the_user() -> None:
    order = orders(job(words=HOSTILE), master_addr="10.0.0.1", master_port=29500)[0]

    assert store_argv(order, python="/env/bin/python", listener=7) == (
        "/env/bin/python",
        "-P",
        "-m",
        "runtime.launch.store",
        "7",
        "10.0.0.1",
        "29500",
    )


def test_hostile_words_arrive_as_they_were() -> None:
    order = orders(job(words=HOSTILE), master_addr="10.0.0.1", master_port=29500)[0]

    variables = to_variables(order)
    arrived = take_variables(variables)

    assert (arrived, variables) == (order, {})
    assert program_argv(arrived, 0, python="/p") == ("/p", "-u", *HOSTILE)


def test_a_module_and_a_program_are_run_as_such() -> None:
    module = orders(job(kind="module", words=("pkg.train", "-x")), master_addr="a", master_port=29500)[0]
    program = orders(job(kind="program", words=("hostname", "-f")), master_addr="a", master_port=29500)[0]

    assert program_argv(module, 0, python="/p") == ("/p", "-u", "-m", "pkg.train", "-x")
    assert program_argv(program, 0, python="/p") == ("hostname", "-f")


def test_a_rank_is_told_its_number_before_what_the_user_said_where_that_was_asked_for() -> None:
    order = orders(job(local_rank_option="--local_rank"), master_addr="a", master_port=29500)[0]

    assert program_argv(order, 1, python="/p") == ("/p", "-u", "train.py", "--local_rank=1", "--lr", "1e-4")
