"""`import deepspeed` without DeepSpeed: the module, its names, its distribution, and who is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.as_deepspeed.__main__ import parse
from runtime.as_deepspeed.finder import (
    START,
    VERSION,
    Metadata,
    all_names,
    for_children,
    made,
    refuse_beside_real,
)
from runtime.as_deepspeed.names import MODULES, Absent, children
from runtime.errors import BadInput

ROOT = Path(__file__).parents[4]


def run(
    script: str, tmp_path: Path, *options: str, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A script of these lines, started by `python -m runtime.as_deepspeed` from a folder of its own."""
    path = tmp_path / "train.py"
    path.write_text(script)
    words = [sys.executable, "-m", "runtime.as_deepspeed", *options, str(path), "--lr", "a b"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})}
    return subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=variables, check=False)


def test_a_script_imports_deepspeed_and_its_distribution_is_there(tmp_path: Path) -> None:
    """As transformers 5.24 and accelerate 1.15 look for it: by spec, metadata, names of packages."""
    script = """
import json, sys
import importlib.metadata as metadata, importlib.util
assert importlib.util.find_spec("deepspeed") is not None
assert metadata.metadata("deepspeed")["Name"] == "deepspeed"
assert metadata.packages_distributions()["deepspeed"] == ["deepspeed"]
import deepspeed
import deepspeed.zero as zero
from deepspeed.ops.adam import DeepSpeedCPUAdam, FusedAdam
from deepspeed.runtime.lr_schedules import VALID_LR_SCHEDULES
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus
from deepspeed.utils import logger
assert deepspeed.zero is zero
assert deepspeed.ops.adam.FusedAdam is FusedAdam
assert "initialize" in dir(deepspeed) and "zero" in dir(deepspeed)
print(json.dumps([sys.argv[1:], __name__, metadata.version("deepspeed"), deepspeed.__version__]))
"""

    done = run(script, tmp_path)

    assert done.stderr == ""
    assert json.loads(done.stdout) == [["--lr", "a b"], "__main__", VERSION, VERSION]


def test_importing_it_costs_no_torch(tmp_path: Path) -> None:
    done = run("import sys, deepspeed, deepspeed.pipe\nprint('torch' in sys.modules)", tmp_path)

    assert done.stdout == "False\n"


def test_a_python_that_the_script_starts_answers_too(tmp_path: Path) -> None:
    """As `accelerate launch` and torchrun start a script; a sitecustomize that was there is kept."""
    (tmp_path / "sitecustomize.py").write_text("import builtins\nbuiltins.THEIRS = 1\n")
    script = """
import subprocess, sys
child = "import deepspeed; print(THEIRS, deepspeed.DeepSpeedConfigError.__name__)"
print(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout)
"""
    done = run(script, tmp_path, environ={"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"})

    assert done.stdout.strip() == "1 ConfigError", done.stderr


def test_what_is_not_there_is_an_import_error(tmp_path: Path) -> None:
    script = """
import deepspeed
for statement in ("import deepspeed.nothing", "from deepspeed.utils import nothing"):
    try:
        exec(statement)
    except ImportError:
        print("ImportError")
try:
    deepspeed.nothing
except AttributeError as e:
    print(e)
"""

    assert run(script, tmp_path).stdout.splitlines() == [
        *["ImportError"] * 2,
        "deepspeed.nothing is not in Clusterwright's answers for DeepSpeed: see docs/from_deepspeed.md",
    ]


def real_deepspeed(folder: Path) -> dict[str, str]:
    (folder / "deepspeed").mkdir()
    (folder / "deepspeed" / "__init__.py").write_text("__version__ = 'theirs'\n")
    return {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}


def test_where_deepspeed_is_installed_it_is_not_replaced(tmp_path: Path) -> None:
    done = run("import deepspeed", tmp_path, environ=real_deepspeed(tmp_path))

    assert done.returncode == 2
    assert "found: DeepSpeed itself is installed (" in done.stderr
    assert "fix:   Start without as_deepspeed to use it" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_is_replaced_where_that_is_said(tmp_path: Path) -> None:
    script = "import deepspeed; print(deepspeed.__version__)"

    done = run(script, tmp_path, "--instead", environ=real_deepspeed(tmp_path))

    assert done.stdout == f"{VERSION}\n"


def test_by_the_path_alone_it_is_refused_at_the_import(tmp_path: Path) -> None:
    variables = real_deepspeed(tmp_path)
    path = f"{START}{os.pathsep}{variables['PYTHONPATH']}"
    done = subprocess.run(
        [sys.executable, "-c", "print(1)\nimport deepspeed"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )

    assert done.stdout == "1\n"
    assert "DeepSpeed itself is installed" in done.stderr


def test_a_folder_of_configurations_is_not_deepspeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLaMA-Factory and others have a folder `deepspeed` with ds_config files."""
    (tmp_path / "deepspeed").mkdir()
    (tmp_path / "deepspeed" / "zero2.json").write_text("{}")
    monkeypatch.syspath_prepend(str(tmp_path))

    refuse_beside_real({})


def test_a_missing_script_is_told_without_a_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runtime.as_deepspeed", "nothing.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr == (
        "error: cannot run nothing.py\nfound: there is no such file here\nfix:   Name a script of Python's.\n"
    )


def test_the_path_is_put_before_what_is_there_once() -> None:
    assert for_children({"PYTHONPATH": f"/a{os.pathsep}{START}"}, instead=False) == {
        "PYTHONPATH": f"{START}{os.pathsep}/a"
    }
    assert for_children({}, instead=True)["CLUSTERWRIGHT_AS_DEEPSPEED"] == "instead"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-m", "package.train", "--path"], (("package.train", "--path"), True, False)),
        (["--instead", "train.py", "-m"], (("train.py", "-m"), False, True)),
    ],
)
def test_options_end_with_the_script(words: list[str], expected: tuple[object, ...]) -> None:
    wanted = parse(words)

    assert (wanted.words, wanted.is_module, wanted.instead) == expected


def test_without_a_script_there_is_nothing_to_run() -> None:
    with pytest.raises(BadInput, match="no script"):
        parse(["--instead"])


def test_metadata_has_what_is_asked_for() -> None:
    assert Metadata().read_text("METADATA") is not None
    assert Metadata().read_text("RECORD") is None


@pytest.mark.parametrize(("path", "answer"), list(all_names()), ids=[path for path, _ in all_names()])
def test_each_name_has_its_meaning_or_says_the_way_here(path: str, answer: str | Absent) -> None:
    found = made(f"deepspeed.{path}", answer)

    if isinstance(answer, Absent):
        with pytest.raises(BadInput) as caught:
            found()
        assert f"use deepspeed.{path}: " in str(caught.value)
        assert caught.value.fix.endswith((".", "json"))


def test_what_is_absent_can_be_derived_from_and_asked_for() -> None:
    kind = made("deepspeed.pipe.PipelineModule", MODULES["pipe"]["PipelineModule"])

    class Mine(kind):  # type: ignore[valid-type,misc]
        pass

    assert not isinstance(3, kind)
    with pytest.raises(BadInput, match="pipeline parallelism is not implemented here"):
        Mine([])


def test_each_module_is_reached_from_the_one_above_it() -> None:
    for module in MODULES:
        above, _, last = module.rpartition(".")
        assert module == "" or last in children(above), module
        assert above in MODULES, module


def test_nothing_at_the_top_of_a_path_is_called_deepspeed() -> None:
    """Else a script in that folder would import it by its name."""
    called = [path for path in (ROOT / "runtime").rglob("deepspeed*") if "checkpoint" not in path.parts]

    assert called == []


@pytest.mark.measures
def test_a_python_starts_as_fast_as_ever(tmp_path: Path) -> None:
    """Processor seconds of starts with and without; 0.1 s may be between them, and 0.04 are."""

    def seconds(path: str) -> float:
        variables = {**os.environ, "PYTHONPATH": path}
        taken = []
        for _ in range(5):
            child = subprocess.Popen([sys.executable, "-c", "pass"], env=variables)
            usage = os.wait4(child.pid, 0)[2]
            child.returncode = 0
            taken.append(usage.ru_utime + usage.ru_stime)
        return min(taken)

    assert seconds(f"{START}{os.pathsep}{ROOT}") - seconds(str(ROOT)) < 0.1
