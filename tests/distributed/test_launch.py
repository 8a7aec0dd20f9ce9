"""zerorun on this machine: loopback addresses stand for nodes, everything else is real."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import RecordRefusal
from tests.distributed.launching import Launcher, nodes, script

Launch = Callable[..., Launcher]
pytestmark = pytest.mark.distributed

HOSTILE = ["a b", "it's", '"q"', "new\nline", "$(touch gone)", "$$", "${local_rank}", "; exit 3", "--tee", ""]
SHOW = """
import json, os, sys
names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK", "MASTER_ADDR", "GLOO_SOCKET_IFNAME", "CW_X")
print(json.dumps([sys.argv[1:], os.getcwd(), {name: os.environ.get(name) for name in names}]), flush=True)
"""
# Prints in how many command lines of this machine each secret stands.
WATCH = """
import contextlib, os, pathlib
lines = []
for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    with contextlib.suppress(OSError):
        lines.append(path.read_bytes())
print(os.environ["CW_FILE"], os.environ["CW_ENV"], os.environ["CW_BOTH"])
print(sum(b"s3cret-file" in line for line in lines), sum(b"s3cret-env" in line for line in lines))
"""
# Ignores the polite signal and leaves a grandchild in a session of its own.
STUBBORN = """
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "300"], start_new_session=True)
print("ready", flush=True)
time.sleep(300)
"""


@pytest.fixture
def hostile_path(tmp_path: Path) -> Path:
    folder = tmp_path / "it's a $(hostile) $$ path"
    folder.mkdir()
    return folder


def test_every_rank_gets_its_words_place_and_variables_as_they_were_given(
    launch: Launch, hostile_path: Path
) -> None:
    program = script(hostile_path, SHOW)
    options = [*nodes(hostile_path, 1, 2), "--tee", "all", "--log-dir", "job $x", "--env", "CW_X=$HOME `id`"]

    launcher = launch(hostile_path, *options, program, *HOSTILE)
    ended = launcher.wait()

    assert ended.returncode == 0, ended.stderr
    shown = {line.partition("] ")[0]: line.partition("[[")[2] for line in ended.stdout.splitlines()}
    assert sum(name.startswith("[127.0.0.2:") for name in shown) == 2
    for rank in range(3):
        log = hostile_path / "job $x" / "logs" / f"rank{rank}.log"
        words, cwd, variables = json.loads(log.read_text())
        assert words == HOSTILE
        assert cwd == str(hostile_path)
        assert variables == {
            "RANK": str(rank),
            "WORLD_SIZE": "3",
            "LOCAL_RANK": str(max(0, rank - 1)),
            "GROUP_RANK": str(min(1, rank)),
            "MASTER_ADDR": "127.0.0.1",
            "GLOO_SOCKET_IFNAME": "lo",
            "CW_X": "$HOME `id`",
        }
    assert not (hostile_path / "gone").exists()
    account = json.loads((hostile_path / "job $x" / "job.json").read_text())
    assert (account["status"], account["words"][1:]) == (0, HOSTILE)
    assert launcher.leaves_nothing()


@pytest.mark.attack("user")
def test_who_owns_the_jobs_folder_does_not_decide_what_runs(
    launch: Launch, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    """Whatever appears in the folder is replaced by the same with other words, as its owner can."""
    job, ended = tmp_path / "job", threading.Event()
    job.mkdir()

    def replace() -> None:
        while not ended.wait(0.01):
            for path in job.glob("*.json"):
                with contextlib.suppress(OSError):
                    new = path.with_suffix(".new")
                    new.write_text(path.read_text().replace("'mine'", "'theirs'"))
                    new.replace(path)

    owner = threading.Thread(target=replace)
    owner.start()
    words = ("--no-python", sys.executable, "-c", "print('mine')")
    launcher = launch(tmp_path, *nodes(tmp_path, 1), "--log-dir", str(job), *words)
    status = launcher.wait()
    ended.set()
    owner.join()

    record_refusal(f"what ran all the same: print({status.stdout.strip()!r})")
    assert (status.returncode, status.stdout) == (0, "mine\n")


def test_the_first_rank_to_fail_is_named_and_the_others_are_ended(launch: Launch, tmp_path: Path) -> None:
    program = script(
        tmp_path,
        "import os, time\n"
        "if os.environ['RANK'] == '2': raise ValueError('boom')\n"
        "print('waiting', flush=True)\n"
        "time.sleep(300)\n",
    )

    launcher = launch(tmp_path, *nodes(tmp_path, 1, 2), program)
    ended = launcher.wait()

    assert ended.returncode == 1
    assert "rank 2 on 127.0.0.2 ended with status 1: ValueError: boom" in ended.stderr
    assert "rank2.log on 127.0.0.2" in ended.stderr
    assert launcher.leaves_nothing()


def test_a_rank_killed_by_a_signal_is_never_a_success(launch: Launch, tmp_path: Path) -> None:
    program = script(tmp_path, "import time; print('up', flush=True); time.sleep(300)")
    launcher = launch(tmp_path, *nodes(tmp_path, 2), program)

    victim = launcher.wait_for("-u train.py", 2)[1]
    os.kill(victim, signal.SIGKILL)
    ended = launcher.wait()

    assert ended.returncode == 137
    assert "was ended by SIGKILL" in ended.stderr
    assert launcher.leaves_nothing()


def test_a_lost_node_fails_the_job_and_takes_its_ranks_along(launch: Launch, tmp_path: Path) -> None:
    program = script(tmp_path, "import time; time.sleep(300)")
    launcher = launch(tmp_path, *nodes(tmp_path, 1, 1), program)

    launcher.wait_for("-u train.py", 2)
    os.kill(launcher.wait_for("runtime.node", 2)[1], signal.SIGKILL)
    ended = launcher.wait()

    assert ended.returncode == 1
    assert "was lost: its control channel ended" in ended.stderr
    assert launcher.leaves_nothing()


def test_ctrl_c_ends_the_job_everywhere_and_a_second_one_without_grace(
    launch: Launch, tmp_path: Path
) -> None:
    launcher = launch(tmp_path, *nodes(tmp_path, 1, 1), script(tmp_path, STUBBORN))
    launcher.wait_for("sleep 300", 2)

    launcher.send(signal.SIGINT)
    time.sleep(0.5)
    stubborn = launcher.processes("train.py")
    launcher.send(signal.SIGINT)
    ended = launcher.wait(15)

    assert stubborn
    assert ended.returncode == 130
    assert "signal 2 reached the launcher" in ended.stderr
    assert launcher.leaves_nothing()


def test_a_polite_rank_has_time_to_finish_on_ctrl_c(launch: Launch, tmp_path: Path) -> None:
    program = script(
        tmp_path,
        "import signal, sys, time\n"
        "def save(*_):\n"
        "    time.sleep(1)\n"
        "    open('saved', 'w').close()\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "open('up', 'w').close()\n"
        "time.sleep(300)\n",
    )
    launcher = launch(tmp_path, *nodes(tmp_path, 1), program)
    while not (tmp_path / "up").exists():
        time.sleep(0.05)

    launcher.send(signal.SIGINT)
    ended = launcher.wait(15)

    assert ended.returncode == 130
    assert (tmp_path / "saved").exists()


def test_nothing_outlives_a_launcher_that_is_killed(launch: Launch, tmp_path: Path) -> None:
    launcher = launch(tmp_path, *nodes(tmp_path, 1, 1), script(tmp_path, STUBBORN))
    launcher.wait_for("sleep 300", 2)

    launcher.process.kill()
    launcher.process.communicate()

    assert launcher.leaves_nothing()


def test_a_job_that_outlives_its_limit_is_ended(launch: Launch, tmp_path: Path) -> None:
    program = script(tmp_path, "import time; time.sleep(300)")

    launcher = launch(tmp_path, *nodes(tmp_path, 1), "--timeout", "3", program)
    ended = launcher.wait(30)

    assert ended.returncode == 124
    assert "still running after 3 s" in ended.stderr
    assert launcher.leaves_nothing()


def test_a_taken_port_and_a_missing_script_are_named_before_anything_starts(
    launch: Launch, tmp_path: Path
) -> None:
    options = nodes(tmp_path, 1, 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(options[-1])))
        taken.listen()

        ended = launch(tmp_path, *options, "--log-dir", "job", "absent.py").wait(30)

    assert ended.returncode == 1
    assert f"127.0.0.1 (rank 0): port {options[-1]} is taken" in ended.stderr
    assert f"127.0.0.2 (rank 1): there is no absent.py in {tmp_path}" in ended.stderr
    assert not (tmp_path / "job").exists()


def test_a_missing_interpreter_is_named(launch: Launch, tmp_path: Path) -> None:
    ended = launch(tmp_path, *nodes(tmp_path, 1), "--python", "/absent/python", "x.py").wait(30)

    assert ended.returncode == 1
    assert "there is no /absent/python" in ended.stderr


def test_without_a_hostfile_nothing_runs(launch: Launch, tmp_path: Path) -> None:
    ended = launch(tmp_path, "--hostfile", "absent", "train.py").wait(30)

    assert ended.returncode == 2
    assert "cannot read the hostfile absent" in ended.stderr


def test_a_dry_run_shows_every_word_and_starts_nothing(launch: Launch, tmp_path: Path) -> None:
    options = [*nodes(tmp_path, 1), "--log-dir", "job", "--env", "HF_TOKEN=s3cret", "--dry-run"]

    ended = launch(tmp_path, *options, "train.py", "x y").wait(30)

    assert ended.returncode == 0
    assert '"x y"' in ended.stdout
    assert "s3cret" not in ended.stdout
    assert not (tmp_path / "job").exists()


def test_secrets_of_an_env_file_are_in_no_command_line_and_in_no_file_of_the_job(
    launch: Launch, tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets.env"
    secrets.touch(mode=0o600)
    secrets.write_text("# tokens\nCW_FILE=s3cret-file\nCW_BOTH=s3cret-file\n")
    options = ["--env-file", str(secrets), "--env", "CW_BOTH=option", "--env", "CW_ENV=s3cret-env"]

    shown = launch(tmp_path, *nodes(tmp_path, 1), *options, "--dry-run", "train.py").wait()
    launcher = launch(
        tmp_path, *nodes(tmp_path, 1, 1), *options, "--log-dir", "jobs/j", script(tmp_path, WATCH)
    )
    ended = launcher.wait()

    assert "s3cret-file" not in shown.stdout + shown.stderr
    assert ended.returncode == 0, ended.stderr
    # zerorun's own command line is that of whoever wrote --env.
    assert ended.stdout.splitlines() == ["s3cret-file s3cret-env option", "0 1"]
    (tmp_path / "jobs" / "j" / "logs" / "rank0.log").unlink()
    (tmp_path / "jobs" / "j" / "logs" / "rank1.log").unlink()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "jobs").rglob("*") if path.is_file())
    assert b"train.py" in kept
    assert b"s3cret" not in kept


def test_a_secret_file_that_others_can_read_is_refused_before_anything_starts(
    launch: Launch, tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets.env"
    secrets.write_text("CW_FILE=s3cret\n")
    secrets.chmod(0o644)

    ended = launch(
        tmp_path, *nodes(tmp_path, 1), "--env-file", str(secrets), "--log-dir", "job", "x.py"
    ).wait()

    assert ended.returncode == 2
    assert "its mode is 0644" in ended.stderr
    assert "s3cret\n" not in ended.stderr
    assert not (tmp_path / "job").exists()


def test_a_jobs_files_are_its_users_alone_and_the_programs_own_are_as_its_umask_says(
    launch: Launch, tmp_path: Path
) -> None:
    program = script(tmp_path, "import os, sys; open('checkpoint', 'w').close(); raise SystemExit(3)")

    ended = launch(tmp_path, *nodes(tmp_path, 1, 1), "--log-dir", "jobs/j", program).wait()

    assert ended.returncode == 3, ended.stderr
    modes = {
        str(path.relative_to(tmp_path)): f"{path.lstat().st_mode & 0o7777:04o}"
        for path in (tmp_path / "jobs").rglob("*")
    }
    assert {path: mode for path, mode in modes.items() if mode not in ("0600", "0700")} == {}
    assert {"jobs/j/job.json", "jobs/j/logs/rank1.log", "jobs/j/logs/node0.log"} < modes.keys()
    assert (tmp_path / "jobs").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "checkpoint").stat().st_mode & 0o777 == 0o644


def test_a_job_whose_reader_has_left_ends(launch: Launch, tmp_path: Path) -> None:
    program = script(tmp_path, "import time\nwhile True: print('tick', flush=True); time.sleep(0.1)")
    launcher = launch(tmp_path, *nodes(tmp_path, 1), program)
    assert launcher.process.stdout is not None

    first = launcher.process.stdout.readline()
    launcher.process.stdout.close()
    status = launcher.process.wait(20)

    assert (first, status) == ("tick\n", 1)
    assert launcher.leaves_nothing()


def test_modules_and_programs_run_too(launch: Launch, tmp_path: Path) -> None:
    script(tmp_path, "import sys; print('module', sys.argv[1:])", "mine.py")

    module = launch(tmp_path, *nodes(tmp_path, 1), "-m", "mine", "-x").wait()
    program = launch(tmp_path, *nodes(tmp_path, 1), "--no-python", "echo", "-E", "$HOME").wait()

    assert (module.returncode, module.stdout) == (0, "module ['-x']\n"), module.stderr
    assert (program.returncode, program.stdout) == (0, "$HOME\n"), program.stderr
