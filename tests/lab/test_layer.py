"""A layer of the user's own over the environment: jobs see both, and a rebuild leaves it."""

from __future__ import annotations

import zipfile
from base64 import b64encode
from pathlib import Path

import pytest

from tests.lab.conftest import JOB_USER, JOBS, LabUnderTest, as_first_proven, playbook, provision

pytestmark = pytest.mark.long
ENVIRONMENT = "/data/miniconda3/envs/torch"
LAYER = f"{JOBS}/layer"
WHEEL = "flashy-2.1-py3-none-any.whl"


def wheel(folder: Path) -> Path:
    """A package that the environment lacks, as somebody builds one."""
    path = folder / WHEEL
    info = "flashy-2.1.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("flashy.py", "answer = 42\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: flashy\nVersion: 2.1\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(
            f"{info}/RECORD", f"flashy.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"
        )
    return path


def test_a_layer_is_seen_by_jobs_and_survives_a_rebuild(converged_lab: LabUnderTest, tmp_path: Path) -> None:
    lab = as_first_proven(converged_lab)
    text = b64encode(wheel(tmp_path).read_bytes()).decode()
    script = "import flashy, torch; print(flashy.answer, torch.__version__)"
    job = f"cd {JOBS} && zerorun --tee all --python {LAYER}/bin/python --log-dir {JOBS}/seen seen.py"
    for node in lab.nodes:
        lab.run(
            node,
            f"cd {JOBS} && echo '{script}' >seen.py && echo {text} | base64 --decode >{WHEEL}",
            user=JOB_USER,
        )
        lab.run(node, f"{ENVIRONMENT}/bin/python -m venv --system-site-packages {LAYER}", user=JOB_USER)
        lab.run(node, f"{LAYER}/bin/pip install --quiet --no-index {JOBS}/{WHEEL}", user=JOB_USER)

    first = lab.run("te1", job, user=JOB_USER).stdout
    lab.run("te1", f"echo '# by hand' >>{ENVIRONMENT}/lib/python3.11/site-packages/torch/version.py")
    playbook(lab, "--tags", "conda_env,runtime")
    again = lab.run("te1", job, user=JOB_USER).stdout
    verified = provision("env", "verify", "-i", str(lab.inventory), check=False)

    assert first.count("42 2.13.0+cpu") == again.count("42 2.13.0+cpu") == len(lab.nodes)
    assert verified.returncode == 0, verified.stdout
    lab.out_of_all(f"rm -rf {JOBS}/layer {JOBS}/seen* {JOBS}/{WHEEL} {ENVIRONMENT}.before-*")
