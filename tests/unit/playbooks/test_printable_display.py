"""What a node says comes to the terminal as text alone, by whichever of Ansible's ways. By Ansible itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import RecordRefusal

ROOT = Path(__file__).parents[3]
# ESC and OSC of a title, C1's CSI, and a mark that turns the direction.
SAID = "\x1b]0;owned\x07\x1b[8mhid\x1b[0;32mden\x1b[2J\x9b31m\u202ereversed"
PLAY = """\
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - assert: {that: false, quiet: true, fail_msg: "te2 said: {{ said }}"}
      ignore_errors: true
    - debug: {msg: "{{ item }}"}
      loop: ["item {{ said }}"]
    - debug: {msg: "{{ said }}"}
      changed_when: true
"""


@pytest.mark.attack("node")
def test_a_terminal_obeys_nothing_of_what_a_node_said(tmp_path: Path, record_refusal: RecordRefusal) -> None:
    (tmp_path / "play.yml").write_text(PLAY)
    given = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PYTHONPATH": str(ROOT)}
    words = [
        Path(sys.executable).with_name("ansible-playbook"),
        "-i",
        "localhost,",
        "-e",
        json.dumps({"said": SAID}),
    ]

    finished = subprocess.run(
        [*words, tmp_path / "play.yml"],
        env={**given, "ANSIBLE_FORCE_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )

    said = finished.stdout + finished.stderr
    (line,) = [one for one in said.splitlines() if "[ERROR]" in one]
    record_refusal(line)
    assert "te2 said: hiddenreversed" in line
    assert "(item=item hiddenreversed)" in finished.stdout
    assert [mark for mark in ("\x07", "\x1b]", "\x1b[8", "\x1b[2J", "\x9b", "\u202e") if mark in said] == []
    assert "\x1b[0;33mchanged" in finished.stdout
    assert "\x1b[0;33mlocalhost\x1b[0m" in finished.stdout
