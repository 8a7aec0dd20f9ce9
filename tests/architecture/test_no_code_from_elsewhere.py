"""What comes from elsewhere is data: nothing unpickles it, runs it, or hands it to a shell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.test_layers import ROOT, nodes

# Each with its reason; a new line here wants one as good.
UNPICKLERS = {
    "runtime/untrusted/pickles.py": "Python's reader, left with the operations that make plain values",
    "runtime/train/checkpoint/deepspeed/pickles.py": "the errors that torch.load raises, by name",
}
RUNNERS = {
    "playbooks/roles/conda_env/files/relay.py": "its own text, which its caller passes on over ssh",
    "playbooks/roles/conda_env/files/run_checks.py": "checks that the role's own variables hold",
}
PICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
OBJECTS = {
    "all_gather_object",
    "broadcast_object_list",
    "gather_object",
    "scatter_object_list",
    "send_object_list",
    "recv_object_list",
}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
LOADERS = {"SafeLoader", "CSafeLoader"}
# torch.distributed.checkpoint unpickles `.metadata`, and its ranks exchange pickles.
READERS = {"FileSystemReader", "state_dict_loader", "state_dict_saver", "dcp_to_torch_save"}

FILES = sorted(
    path
    for folder in ("provision", "runtime", "playbooks")
    for path in (ROOT / folder).rglob("*.py")
    if "__pycache__" not in path.parts
)


def dotted(node: ast.AST) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return ".".join([node.id, *parts]) if isinstance(node, ast.Name) else ".".join(parts)


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((one.value for one in call.keywords if one.arg == name), None)


def is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def faults_of_call(call: ast.Call, name: str) -> Iterator[str]:
    called = dotted(call.func)
    last = called.rpartition(".")[2]
    if called == "torch.load" and not is_true(keyword(call, "weights_only")):
        yield "torch.load without weights_only=True"
    if (
        called in ("yaml.load", "yaml.load_all")
        and dotted(keyword(call, "Loader") or ast.Constant(value=None)).rpartition(".")[2] not in LOADERS
    ):
        yield "yaml.load without SafeLoader"
    if keyword(call, "shell") is not None and not isinstance(call.func, ast.Name) and "yaml" not in called:
        shell = keyword(call, "shell")
        if not (isinstance(shell, ast.Constant) and shell.value is False):
            yield "a shell"
    if called in SHELLS:
        yield called
    if called in ("eval", "exec") and name not in RUNNERS:
        yield called
    if last in OBJECTS:
        yield last


def faults(path: Path) -> list[str]:
    name = str(path.relative_to(ROOT))
    found: list[str] = []
    for node in nodes(path):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = (getattr(node, "module", None) or "").split(".")[0]
            names = {alias.name.split(".")[0] for alias in node.names} | {module}
            found += [f"imports {one}" for one in names & PICKLES if name not in UNPICKLERS]
            found += [f"imports {one}" for one in {alias.name for alias in node.names} & (OBJECTS | READERS)]
        elif isinstance(node, ast.Call):
            found += faults_of_call(node, name)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_from_elsewhere_is_run(path: Path) -> None:
    assert faults(path) == []


@pytest.mark.parametrize("name", [*UNPICKLERS, *RUNNERS])
def test_an_exception_is_still_one(name: str) -> None:
    text = (ROOT / name).read_text()

    assert any(word in text for word in ("import pickle", "exec("))


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "dist.all_gather_object(values, value)",
        "from torch.distributed import broadcast_object_list as tell",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "subprocess.run('ls', shell=True)",
        "os.system(words)",
        "eval(text)",
        "from torch.distributed.checkpoint import FileSystemReader",
    ],
)
def test_the_rule_sees(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module.py").write_text(text)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)

    assert faults(tmp_path / "module.py")
