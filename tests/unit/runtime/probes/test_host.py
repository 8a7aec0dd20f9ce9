"""What this machine says of itself, and how that crosses a channel."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from runtime.edges import process
from runtime.probes import host
from runtime.probes.host import Files, write_rate
from runtime.untrusted.conform import conform


def gone() -> str:
    raise OSError("no such thing")


PROBES = {"host.new": lambda: [1], "host.gone": gone}


def test_this_machine_answers_a_survey_and_it_crosses_a_channel() -> None:
    seen = host.survey(
        ("localhost", "no-such-name.invalid"), own_address="127.0.0.1", config_path="/nowhere", probes=PROBES
    )

    plain = json.dumps(asdict(seen))
    assert json.dumps(asdict(conform(host.Survey, json.loads(plain)))) == plain
    assert (seen.interface, seen.environment, seen.speed_bits) == ("lo", "", 0)
    assert (seen.job_interface, seen.job_address) == ("lo", "127.0.0.1/8")
    assert seen.addresses_by_name == {"localhost": "127.0.0.1", "no-such-name.invalid": ""}
    assert seen.free_bytes["/"] > 0
    assert seen.processors >= 1
    assert (seen.probed, seen.unprobed) == ({"host.new": [1]}, {"host.gone": "no such thing"})
    assert host.compute_rate(0.01) > 0


@pytest.mark.parametrize(
    ("lines", "interface"),
    [
        ("GLOO_SOCKET_IFNAME=no-such0\nNCCL_SOCKET_IFNAME==no-such0", "no-such0"),
        ("NCCL_SOCKET_IFNAME==no-such1,lo", "no-such1"),
        ("NCCL_SOCKET_IFNAME=eth", "lo"),
        ("NCCL_SOCKET_IFNAME=^docker0", "lo"),
        ("no line", "lo"),
    ],
)
def test_the_interface_of_jobs_is_what_job_env_names_exactly(
    tmp_path: Path, lines: str, interface: str
) -> None:
    (tmp_path / "job.env").write_text(lines)

    seen = host.survey((), own_address="127.0.0.1", config_path=str(tmp_path), probes={})

    assert seen.job_interface == interface
    assert bool(seen.job_address) == (interface == "lo")


def test_an_environment_tells_which_of_its_files_were_changed(tmp_path: Path) -> None:
    script = Path(__file__).parents[4] / "playbooks/roles/conda_env/files/environment_digest.py"
    file = tmp_path / "lib" / "a.py"
    file.parent.mkdir()
    file.write_text("as installed")

    def look(prefix: Path) -> Files:
        return host.files(str(prefix), script=script, timeout_seconds=20)

    assert look(tmp_path) == Files(known=False)
    process.complete(
        [sys.executable, str(script), "--prefix", str(tmp_path), "--record", "--built-from", "a test"]
    )
    assert look(tmp_path) == Files(known=True, different=0, first=[])
    file.write_text("by hand")
    assert look(tmp_path) == Files(known=True, different=1, first=["changed lib/a.py"])
    (tmp_path / ".clusterwright" / "record.json").write_text("[]")
    assert "AttributeError" in look(tmp_path).problem
    assert host.files(str(tmp_path), script=tmp_path / "none", timeout_seconds=20) == Files(known=False)


@pytest.mark.parametrize("folder", ["", "/dev/shm"])
def test_writing_takes_about_the_time_asked_and_leaves_nothing(tmp_path: Path, folder: str) -> None:
    place = Path(folder) if folder else tmp_path
    before, started = sorted(place.iterdir()), time.monotonic()

    rate = write_rate(place, 0.05)

    assert rate > 0
    assert time.monotonic() - started < 60
    assert sorted(place.iterdir()) == before


def test_a_folder_that_takes_no_file_says_so() -> None:
    with pytest.raises(OSError, match="/proc/self"):
        write_rate(Path("/proc/self"), 0.05)
