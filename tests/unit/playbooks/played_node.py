"""A folder that stands for a node's /: our modules run on it as they are, programs of others are played."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

PLAYBOOKS = Path(__file__).parents[3] / "playbooks"


class Exit(Exception):
    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__()
        self.result = result


class Module:
    """Stands for AnsibleModule: parameters with their defaults, and how a module ends."""

    given: ClassVar[dict[str, Any]] = {}
    check_mode = False

    def __init__(self, argument_spec: dict[str, Any], **_: Any) -> None:
        self.params: dict[str, Any] = defaulted(argument_spec, type(self).given)

    def exit_json(self, **result: Any) -> None:
        raise Exit(result)

    def fail_json(self, **result: Any) -> None:
        raise Exit({"failed": True, **result})


def defaulted(spec: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    found = {name: given.get(name, option.get("default")) for name, option in spec.items()}
    for name, option in spec.items():
        if "options" in option and isinstance(found[name], list):
            found[name] = [defaulted(option["options"], one) for one in found[name]]
    return found


class PlayedNode:
    """What a module does on the node.

    `mount` is what findmnt says of /data; `digest` runs environment_digest.py.
    """

    def __init__(
        self, root: str, mount: str, modules: Modules, digest: Callable[[list[str]], dict[str, Any]]
    ) -> None:
        self.root, self.mount, self.modules, self.digest = root, mount, modules, digest
        self._asked: list[str] = []

    def does(self, name: str, given: Any, task: dict[str, Any]) -> dict[str, Any]:
        if name in ("set_aside", "write_files", "restore_files", "observe"):
            given = self.observed_words(given) if name == "observe" else self.within(given)
            result = self.modules.call(name, given, check_mode=bool(task.get("check_mode")))
            return self.without(result) if name == "observe" else result
        if name == "get_url":
            Path(given["dest"]).write_text("ours: an installer")
        elif name == "file":
            self.file(**given)
        elif name == "lineinfile":
            remove_lines(self.place(given["path"]), lambda line: line == given["line"])
        elif name == "mount":
            remove_lines(self.place("/etc/fstab"), lambda line: f" {given['path']} " in line)
        elif name == "command":
            return self.command([str(word) for word in given["argv"]], given.get("stdin", ""))
        else:
            raise NotImplementedError(f"module {name} of task {task['name']}")
        return {}

    def place(self, path: str) -> str:
        """Where a node's path lies in the tree."""
        return path if path.startswith(self.root) else f"{self.root}{path}"

    def within(self, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a module that writes, with every path in the tree."""
        found = dict(given)
        if "files" in given:
            found["files"] = [{**one, "path": self.place(one["path"])} for one in given["files"]]
        for name in ("path", "journal"):
            if given.get(name):
                found[name] = self.place(given[name])
        if "path" not in given:
            found.setdefault("journal", self.place("/var/lib/clusterwright/journal.json"))
        for name in ("keep", "only", "locks"):
            if name in given:
                found[name] = [self.place(path) for path in given[name]]
        return found

    def observed_words(self, given: dict[str, Any]) -> dict[str, Any]:
        self._asked = list(given.get("files", []))
        return {**given, "files": [self.place(path) for path in self._asked], "runs": self.looked}

    def looked(self, words: list[str]) -> dict[str, Any]:
        if words[0] == "findmnt":
            return {"rc": 0, "stdout": self.mount, "stderr": ""}
        if words[0] in ("dpkg-query", "sh", "uname", "apt-mark", "dkms", "mokutil", "nvidia-smi"):
            return {"rc": 0, "stdout": self.said_by(words), "stderr": ""}
        return self.command(words, "")

    def said_by(self, words: list[str]) -> str:
        """What a program prints here: a text of the tree, by its name or by that and its first word."""
        said = [Path(self.place(f"/said-by/{name}")) for name in (" ".join(words[:2]), words[0])]
        return next((path.read_text().strip() for path in said if path.is_file()), "")

    def without(self, result: dict[str, Any]) -> dict[str, Any]:
        """What was observed, under the names that were asked for."""
        if result.get("failed"):
            return result
        named = {self.place(path): path for path in self._asked}
        files = {
            named.get(path, path.removeprefix(self.root)): found for path, found in result["files"].items()
        }
        return {**result, "files": files}

    def file(self, path: str, state: str, src: str = "", **_: Any) -> None:
        """As ansible.builtin.file: `absent` takes a folder with all that it holds."""
        place = self.place(path)
        if state == "absent":
            if os.path.isdir(place) and not os.path.islink(place):
                shutil.rmtree(place)
            elif os.path.lexists(place):
                os.unlink(place)
        elif state == "directory":
            os.makedirs(place, exist_ok=True)
        else:
            raise NotImplementedError(state)

    def command(self, words: list[str], given: str) -> dict[str, Any]:
        program = words[0].rpartition("/")[2]
        if "--prefix" in words and program == "python3":
            return self.digest(words[words.index("--prefix") :])
        if words[:2] == ["python3", "-c"] or program in ("ls", "readlink", "grep", "stat", "cat"):
            places = [self.place(word) if word.startswith("/") else word for word in words]
            done = subprocess.run(places, capture_output=True, text=True, check=False)
            return {"rc": done.returncode, "stdout": done.stdout.strip(), "stderr": done.stderr}
        if program in ("chronyc", "systemctl"):  # of a daemon that is not there
            return {"rc": 1, "stdout": "", "stderr": ""}
        if program == "apt-get":
            return {"stdout": self.said_by(words)}
        if program == "test":
            return {"rc": 0 if os.path.exists(self.place(words[-1])) else 1}
        if program == "rmdir":
            return attempted(lambda: os.rmdir(self.place(words[1])))
        if program == "wipefs":
            shutil.rmtree(f"{self.root}/data")
            return {}
        if program == "bash":
            write(Path(words[-1]) / "bin" / "conda", "ours: conda")
            return {}
        if program == "conda":
            write(Path(words[words.index("--prefix") + 1]) / "conda-meta" / "history", "")
            return {}
        if program == "python":
            return self.python(words)
        if words[:2] == ["sh", "-ec"] and words[2].startswith("umask 022; exec"):
            return self.command(words[4:], given)
        if words[:2] == ["sh", "-ec"] and words[3:4] == ["remove"]:
            return self.job_user_removed(words)
        if words[:2] == ["sh", "-ec"] and words[3:4] == ["give_back"]:
            subprocess.run([*words[:-1], self.place(words[-1])], check=True)
            return {}
        if program in ("systemctl", "umount", "sh"):
            return {}
        raise NotImplementedError(str(words))

    def python(self, words: list[str]) -> dict[str, Any]:
        if words[1:3] == ["-m", "pip"]:
            packages = Path(words[0]).parents[1] / "lib" / "python3.11" / "site-packages"
            write(packages / "torch-2.13.0.dist-info" / "METADATA", "ours: Name: torch")
            write(packages / "torch-2.13.0.dist-info" / "RECORD", "torch-2.13.0.dist-info/METADATA,,\n")
        return {"stdout": "http://channel"}

    def job_user_removed(self, words: list[str]) -> dict[str, Any]:
        """The script itself, with programs that know one user, and folders of the tree."""
        home = f"{self.root}/home/{words[4]}"
        played = f"""id() {{ echo {words[5]}; }}; getent() {{ echo "u:x:1:1::{home}:/bin/sh"; }}
        systemctl() {{ :; }}; userdel() {{ :; }}; groupdel() {{ :; }}; chown() {{ :; }}; chmod() {{ :; }}
        """
        script = words[2].replace("/etc/skel", f"{self.root}/etc/skel")
        places = [self.place(word) if word.startswith("/") else word for word in words[4:]]
        command = ["sh", "-ec", played + script, "remove", *places]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return {"rc": done.returncode, "stdout": done.stdout.strip(), "stderr": done.stderr}


def attempted(does: Callable[[], None]) -> dict[str, Any]:
    try:
        does()
    except OSError as e:
        return {"rc": 1, "stderr": str(e)}
    return {"rc": 0}


def remove_lines(path: str, is_ours: Callable[[str], bool]) -> None:
    if os.path.exists(path):
        lines = Path(path).read_text().splitlines()
        Path(path).write_text("".join(f"{line}\n" for line in lines if not is_ours(line)))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class Modules:
    """Our modules, with `Module` in AnsibleModule's place."""

    def __init__(self) -> None:
        self._held = {
            name: load(name, PLAYBOOKS / "library" / f"{name}.py")
            for name in ("set_aside", "write_files", "restore_files", "observe")
        }

    def call(self, name: str, given: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
        runs = given.pop("runs", None)
        kind = type("Given", (Module,), {"given": given, "check_mode": check_mode})
        module: Any = self._held[name]
        module.AnsibleModule = kind
        if runs:
            module.run = lambda _, words, __: runs([str(word) for word in words])
        try:
            module.main()
        except Exit as e:
            return e.result
        raise NotImplementedError(f"module {name} does not end")


def load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
