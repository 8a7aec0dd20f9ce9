"""Answers questions that take Ansible: a program, since Ansible replaces `sys.intern` where it is imported.

After that torch._dynamo cannot be imported, so no test may have Ansible in its own process. A line of JSON is
a question, a line of JSON its answer.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PLAYBOOKS = Path(__file__).parents[3] / "playbooks"


class AnsibleSide:
    """The other end, for the time of a `with`."""

    def __enter__(self) -> AnsibleSide:
        self._process = subprocess.Popen(
            (sys.executable, __file__), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.communicate()

    def set_aside(self, path: Path, claim: str, state: str, *, at_once: bool = False) -> dict[str, Any]:
        """Module `set_aside` on a folder.

        Raises:
            OSError: it refuses.
        """
        said = self._ask(path=str(path), claim=claim, state=state, at_once=at_once)
        if "error" in said:
            raise OSError(said["error"])
        return said

    def role_says(self, role: str, names: list[str], variables: dict[str, Any]) -> dict[str, Any]:
        """What variables of a role come to, given others."""
        return self._ask(role=role, names=names, variables=variables)

    def _ask(self, **question: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def main() -> None:
    import ansible.module_utils
    from ansible.parsing.dataloader import DataLoader
    from ansible.template import Templar

    # Where Ansible puts on a node what modules share.
    ansible.module_utils.__path__.append(str(PLAYBOOKS / "module_utils"))
    spec = importlib.util.spec_from_file_location("set_aside", PLAYBOOKS / "library" / "set_aside.py")
    assert spec is not None
    assert spec.loader is not None
    set_aside = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(set_aside)

    for line in sys.stdin:
        asked = json.loads(line)
        if "role" in asked:
            vars_path = PLAYBOOKS / "roles" / asked["role"] / "vars" / "main.yml"
            own = DataLoader().load_from_file(str(vars_path), unsafe=True, trusted_as_template=True)
            templar = Templar(loader=DataLoader(), variables={**own, **asked["variables"]})
            answer = {name: templar.template(own[name]) for name in asked["names"]}
        else:
            try:
                place = (asked["path"], asked["claim"], asked["state"])
                does = set_aside.changes(*place)
                answer = set_aside.apply(*place, [], asked["at_once"]) if does else {}
            except OSError as e:
                answer = {"error": str(e)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
