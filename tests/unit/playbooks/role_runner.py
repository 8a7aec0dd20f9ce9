"""Runs tasks of roles and playbooks on a folder that stands for a node's /: a program, for Ansible is in it.

Ansible's own engine works out every `when`, every argument and every variable; played_node.py does what
modules do. Ansible replaces `sys.intern` where it is imported, and torch._dynamo cannot be imported after
that, so no test may have it in its own process. A line of JSON is a question, a line of JSON its answer.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.unit.playbooks.played_node import PLAYBOOKS, Modules, PlayedNode, load

KEYWORDS = {
    *("name", "when", "register", "changed_when", "failed_when", "loop", "vars", "block", "rescue", "always"),
    *("check_mode", "delegate_to", "become", "run_once", "environment", "no_log", "any_errors_fatal"),
}
NODE = "te1"


class RoleRunner:
    """The other end, for the time of a `with`."""

    def __enter__(self) -> RoleRunner:
        words = (sys.executable, "-m", "tests.unit.playbooks.role_runner")
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PLAYBOOKS.parent
        )
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.communicate()

    def run(self, what: str, root: Path, **asked: Any) -> dict[str, Any]:
        """Runs a role, or the playbook teardown.yml, on the tree; `failed` is what it says, "" for nothing.

        Args:
            asked: `variables`; `fails`, the name of a task that fails once it has done its work; `ends`, the
                name of one after which the run is cut off, so that nothing is put right.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"what": what, "root": str(root), **asked}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "crashed" not in answer, answer["crashed"]
        return answer


class Failed(Exception):
    def __init__(self, task: str, result: dict[str, Any]) -> None:
        super().__init__(result.get("msg", ""))
        self.task, self.result = task, result


class CutOff(Exception):
    """The run has ended as when its machine lost power."""


class Runner:
    """One node's run of some tasks."""

    def __init__(
        self, node: PlayedNode, engine: Engine, variables: dict[str, Any], *, fails: str, ends: str
    ) -> None:
        self.node, self.engine, self.fails, self.ends = node, engine, fails, ends
        self.facts: dict[str, Any] = {}
        self.variables = variables
        self.folder = Path()

    def tasks(self, tasks: list[dict[str, Any]], scope: dict[str, Any] | None = None) -> None:
        for task in tasks:
            self.task(task, scope or {})

    def say(self, value: Any, scope: dict[str, Any]) -> Any:
        known = {**self.variables, **self.facts, "hostvars": {NODE: self.facts}, **scope}
        return self.engine.template(value, known)

    def holds(self, condition: Any, scope: dict[str, Any]) -> bool:
        conditions = condition if isinstance(condition, list) else [condition]
        known = {**self.variables, **self.facts, "hostvars": {NODE: self.facts}, **scope}
        return all(self.engine.holds(one, known) for one in conditions)

    def task(self, task: dict[str, Any], outer: dict[str, Any]) -> None:
        scope = {**outer, **task.get("vars", {})}
        if "when" in task and "loop" not in task and not self.holds(task["when"], scope):
            if "register" in task:
                self.facts[task["register"]] = {"skipped": True, "changed": False}
            return
        if "block" in task:
            self.block(task, scope)
            return
        (module,) = [name for name in task if name not in KEYWORDS]
        if module.endswith("include_tasks"):
            self.tasks(self.engine.load(self.folder / self.say(task[module], scope)), scope)
        elif module.endswith("include_role"):
            given = task[module]
            path = PLAYBOOKS / "roles" / given["name"] / "tasks" / f"{given['tasks_from']}.yml"
            self.tasks(self.engine.load(path), scope)
        elif "loop" in task:
            self.loop(task, module, scope)
        else:
            self.act(task, module, scope)

    def loop(self, task: dict[str, Any], module: str, scope: dict[str, Any]) -> None:
        register, results = task.get("register", ""), []
        for item in self.say(task["loop"], scope):
            within = {**scope, "item": item}
            if "when" not in task or self.holds(task["when"], within):
                self.act(task, module, within)
                results.append({**self.facts.get(register, {}), "item": item})
        if register:
            self.facts[register] = {"changed": bool(results), "results": results}

    def block(self, task: dict[str, Any], scope: dict[str, Any]) -> None:
        try:
            self.tasks(task["block"], scope)
        except Failed as e:
            if "rescue" not in task:
                self.tasks(task.get("always", []), scope)
                raise
            self.facts["ansible_failed_task"] = {"name": e.task}
            self.facts["ansible_failed_result"] = e.result
            self.rescue(task["rescue"], task, scope)
        else:
            self.tasks(task.get("always", []), scope)

    def rescue(self, tasks: list[dict[str, Any]], block: dict[str, Any], scope: dict[str, Any]) -> None:
        failed = None
        try:
            self.tasks(tasks, scope)
        except Failed as e:
            failed = e
        self.tasks(block.get("always", []), scope)
        if failed:
            raise failed

    def act(self, task: dict[str, Any], module: str, scope: dict[str, Any]) -> None:
        name = module.rpartition(".")[2]
        given = task[module]
        if name == "apt" and task["name"] == self.fails:
            raise Failed(task["name"], {"msg": "it fails"})
        if name in ("debug", "meta", "import_role", "apt"):
            return
        if name == "assert":
            if not self.holds(given["that"], scope):
                raise Failed(task["name"], {"msg": self.say(given["fail_msg"], scope)})
            return
        given = self.say(given, scope)
        if name == "fail":
            raise Failed(task["name"], given)
        if name == "set_fact":
            self.facts.update(given)
            return
        result = {"rc": 0, "stdout": "", "stderr": "", "changed": False, **self.node.does(name, given, task)}
        if task["name"] == self.ends:
            raise CutOff
        if task["name"] == self.fails:
            result = {**result, "failed": True, "rc": 1, "msg": "it fails", "stderr": "it fails"}
        if "register" in task:
            self.facts[task["register"]] = result
        failed = result.get("failed") or (name == "command" and result["rc"] != 0)
        if "failed_when" in task:
            failed = self.holds(task["failed_when"], scope)
        if failed:
            raise Failed(task["name"], result)


def compile_once() -> None:
    """The same text is compiled to the same code: Ansible does it each time, half of all work."""
    import jinja2

    compiled: dict[tuple[type, str], Any] = {}
    first = jinja2.Environment.compile

    def compile(self: Any, source: Any, *rest: Any, **named: Any) -> Any:
        key = (type(self), str(source))
        if key not in compiled:
            compiled[key] = first(self, source, *rest, **named)
        return compiled[key]

    jinja2.Environment.compile = compile  # type: ignore[method-assign, assignment]


class Engine:
    """Ansible's: what YAML says, worked out with variables."""

    def __init__(self) -> None:
        import ansible.module_utils
        from ansible.parsing.dataloader import DataLoader
        from ansible.plugins.loader import add_all_plugin_dirs, init_plugin_loader
        from ansible.template import Templar

        init_plugin_loader([])
        add_all_plugin_dirs(str(PLAYBOOKS))
        # Where Ansible puts on a node what modules share.
        ansible.module_utils.__path__.append(str(PLAYBOOKS / "module_utils"))
        sys.path.insert(0, str(PLAYBOOKS / "roles" / "conda_env" / "files"))
        compile_once()
        self._loader = DataLoader()
        self._templar = Templar(loader=self._loader, variables={})
        self._files: dict[Path, Any] = {}
        self.modules = Modules()
        self._digest: Any = load("environment_digest", Path(sys.path[0]) / "environment_digest.py")

    def load(self, path: Path) -> Any:
        if path not in self._files:
            self._files[path] = self._loader.load_from_file(str(path), unsafe=True, trusted_as_template=True)
        return self._files[path]

    def template(self, value: Any, variables: dict[str, Any]) -> Any:
        self._templar.available_variables = variables
        return self._templar.template(value)

    def holds(self, condition: Any, variables: dict[str, Any]) -> bool:
        self._templar.available_variables = variables
        return bool(self._templar.evaluate_conditional(condition))

    def digest(self, words: list[str]) -> dict[str, Any]:
        said = io.StringIO()
        before, sys.argv = sys.argv, ["environment_digest.py", *words, "--files-only"]
        try:
            with contextlib.redirect_stdout(said):
                status = self._digest.main()
        finally:
            sys.argv = before
        return {"rc": status, "stdout": said.getvalue().strip()}

    def variables(self, *roles: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for role in roles:
            for kind in ("defaults", "vars"):
                path = PLAYBOOKS / "roles" / role / kind / "main.yml"
                found |= self.load(path) if path.exists() else {}
        return found


def tasks_of(what: str, engine: Engine) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    if what == "teardown":
        path = PLAYBOOKS / "teardown.yml"
        yield path, engine.load(path)[1]["tasks"]
    else:
        path = PLAYBOOKS / "roles" / what / "tasks" / "main.yml"
        yield path, engine.load(path)[1:]  # the first asks what a look at the start found


def answer(engine: Engine, asked: dict[str, Any]) -> dict[str, Any]:
    what, root = asked["what"], asked["root"]
    variables = engine.variables("cluster", *([what] if what != "teardown" else []))
    if what == "teardown":
        variables |= engine.load(PLAYBOOKS / "teardown.yml")[1]["vars"]
    variables |= {
        "inventory_hostname": NODE,
        "inventory_dir": root,
        "ansible_play_hosts": [NODE],
        "ansible_check_mode": False,
        "playbook_dir": str(PLAYBOOKS),
        "ansible_search_path": [str(PLAYBOOKS / "roles" / what), str(PLAYBOOKS)],
        "cluster_environment_digest_script": "the digest",
        "cluster_data_path": f"{root}/data",
        **asked["variables"],
    }
    node = PlayedNode(root, asked.get("mount", ""), engine.modules, engine.digest)
    runner = Runner(node, engine, variables, fails=asked.get("fails", ""), ends=asked.get("ends", ""))
    failed = ""
    try:
        for path, tasks in tasks_of(what, engine):
            runner.folder = path.parent
            runner.tasks(tasks)
    except Failed as e:
        failed = f"{e.task}: {e.result.get('msg', '')}"
    except CutOff:
        failed = "cut off"
    return {"failed": failed}


def main() -> None:
    engine = Engine()
    gc.freeze()
    out, sys.stdout = sys.stdout, sys.stderr  # who prints by mistake does not answer
    for line in sys.stdin:
        try:
            said = answer(engine, json.loads(line))
        except Exception:
            said = {"crashed": traceback.format_exc()}
        out.write(json.dumps(said) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
