"""The modules that all roles share, run by Ansible itself on this machine."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
ME = {"owner": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name}


def run_module(name: str, arguments: dict[str, Any], *flags: str) -> dict[str, Any]:
    """What the module returned; its `failed` is True where it failed."""
    ansible = Path(sys.executable).parent / "ansible"
    interpreter = json.dumps({"ansible_python_interpreter": sys.executable})
    words = [ansible, "localhost", "-c", "local", "-m", name, "-a", json.dumps(arguments), "-e", interpreter]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "False",
    }
    finished = subprocess.run(
        [*words, *flags], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    start = finished.stdout.index("=> {") + 3
    result: dict[str, Any] = json.JSONDecoder().raw_decode(finished.stdout[start:])[0]
    return {**result, "failed": finished.returncode != 0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def test_observe_reads_files_patterns_and_secrets_in_one_call(folder: Path) -> None:
    (folder / "a.conf").write_text("one\n")
    (folder / "b.conf").write_text("two\n")
    (folder / "key").write_text("secret\n")
    asked = {"files": [f"{folder}/*.conf", f"{folder}/absent"], "secrets": [f"{folder}/key"]}

    found = run_module("observe", asked)

    assert found["files"][f"{folder}/a.conf"]["text"] == "one\n"
    assert found["files"][f"{folder}/b.conf"]["owner"] == ME["owner"]
    assert found["files"][f"{folder}/absent"] is None
    assert "secret" not in json.dumps(found)
    assert len(found["files"][f"{folder}/key"]["sha256"]) == 64


def test_observe_tells_a_missing_program_and_a_slow_one_from_an_answer() -> None:
    commands = {"said": ["echo", "a  b"], "absent": ["no-such-program"], "slow": ["sleep", "9"]}

    found = run_module("observe", {"commands": commands, "timeout_seconds": 1}, "--check")

    assert (found["commands"]["said"]["rc"], found["commands"]["said"]["stdout"]) == (0, "a  b")
    assert found["commands"]["absent"]["rc"] == 127
    assert found["commands"]["slow"]["rc"] == 124
    assert not found["changed"]


def test_files_are_written_once_with_their_folder_and_mode(folder: Path) -> None:
    target = folder / "new" / "a.conf"
    files = [{"path": str(target), "content": "text\n", "mode": "0640", **ME}]
    arguments = {"files": files, "journal": str(folder / "journal.json")}

    foreseen = run_module("write_files", arguments, "--check")
    assert not target.parent.exists()
    first = run_module("write_files", arguments)
    second = run_module("write_files", arguments)

    assert [foreseen["changed"], first["changed"], second["changed"]] == [True, True, False]
    assert target.read_text() == "text\n"
    assert target.stat().st_mode & 0o777 == 0o640
    assert list(target.parent.iterdir()) == [target]


def test_files_that_their_check_refuses_are_put_back(folder: Path) -> None:
    old, new = folder / "old.conf", folder / "new.conf"
    old.write_text("good\n")
    files = [{"path": str(path), "content": "bad\n", **ME} for path in (old, new)]
    refuse = [
        sys.executable,
        "-c",
        f"import sys; sys.exit(open({str(old)!r}).read() == 'bad\\n' and 'line 1')",
    ]

    arguments = {"files": files, "validate": refuse, "journal": str(folder / "journal.json")}
    refused = run_module("write_files", arguments)

    assert refused["failed"]
    assert "line 1" in refused["msg"]
    assert old.read_text() == "good\n"
    assert not new.exists()


def test_a_block_and_lines_are_edited_on_the_node_and_the_rest_stays(folder: Path) -> None:
    hosts, keys = folder / "hosts", folder / "keys"
    hosts.write_text("127.0.0.1 localhost\n\n# BEGIN x\n1.2.3.4 te1\n# END x\n# mine\n")
    keys.write_text("key of a person\nold key\n")
    files = [
        {"path": str(hosts), "block": "# BEGIN x\n1.2.3.5 te1\n# END x\n", **ME},
        {"path": str(keys), "lines": ["new key"], "without": ["old key"], "mode": "0600", **ME},
    ]
    arguments = {"files": files, "journal": str(folder / "journal.json")}

    first = run_module("write_files", arguments)
    second = run_module("write_files", arguments)

    assert [first["changed"], second["changed"]] == [True, False]
    assert hosts.read_text() == "127.0.0.1 localhost\n\n# mine\n\n# BEGIN x\n1.2.3.5 te1\n# END x\n"
    assert keys.read_text() == "key of a person\nnew key\n"


def test_a_file_of_the_site_keeps_its_mode_where_a_line_of_ours_comes_into_it(folder: Path) -> None:
    theirs, new = folder / "theirs", folder / "new"
    theirs.write_text("a key\n")
    theirs.chmod(0o640)
    files = [{"path": str(path), "lines": ["ours"], "stays": True, **ME} for path in (theirs, new)]

    run_module("write_files", {"files": files, "journal": str(folder / "journal.json")})

    assert theirs.read_text() == "a key\nours\n"
    assert [path.stat().st_mode & 0o777 for path in (theirs, new)] == [0o640, 0o644]


def test_files_are_restored_to_what_they_were_before_the_first_change(folder: Path) -> None:
    old, new, part = folder / "old.conf", folder / "made" / "here" / "new.conf", folder / "hosts"
    kept, journal = folder / "data" / "kept.conf", folder / "state" / "journal.json"
    old.write_bytes(b"caf\xe9\n")
    old.chmod(0o640)
    part.write_text("127.0.1.1 te1\n")
    for text in ("one\n", "two\n"):
        block = f"# BEGIN\n{text}# END\n"
        files = [
            *({"path": str(path), "content": text, **ME} for path in (old, new, kept)),
            {"path": str(part), "content": f"localhost\n{block}", "block": block, **ME},
        ]
        run_module("write_files", {"files": files, "journal": str(journal)})
    arguments = {"journal": str(journal), "keep": [str(folder / "data")]}

    foreseen = run_module("restore_files", arguments, "--check")
    assert old.read_text() == "two\n"
    restored = run_module("restore_files", arguments)
    again = run_module("restore_files", arguments)

    assert foreseen["paths"] == restored["paths"] == sorted(map(str, (old, new, part)))
    assert not again["changed"]
    assert (old.read_bytes(), old.stat().st_mode & 0o777) == (b"caf\xe9\n", 0o640)
    assert part.read_text() == "127.0.1.1 te1\n"
    assert not (folder / "made").exists()
    assert kept.read_text() == "two\n"


def test_a_file_that_somebody_else_changed_loses_our_part_only(folder: Path) -> None:
    part, journal = folder / "hosts", folder / "state" / "journal.json"
    part.write_text("127.0.1.1 te1\n")
    files = [{"path": str(part), "block": "# BEGIN\n1.2.3.4 te1\n# END\n", "lines": ["ours"], **ME}]
    run_module("write_files", {"files": files, "journal": str(journal)})
    part.write_text(part.read_text() + "# of a person\n")

    restored = run_module("restore_files", {"journal": str(journal)})

    assert restored["edited"] == [str(part)]
    assert part.read_text() == "127.0.1.1 te1\n\n# of a person\n"
    assert not journal.exists()


def test_some_files_alone_are_put_back_and_what_others_wrote_there_stays(folder: Path) -> None:
    keys, private, changed_key, other, journal = (
        folder / name for name in ("keys", "private", "changed", "other", "journal.json")
    )
    keys.write_text("a person's\n")
    files = [
        {"path": str(keys), "lines": ["ours"], "mode": "0600", **ME},
        *({"path": str(path), "content": "ours\n", **ME} for path in (private, changed_key, other)),
    ]
    run_module("write_files", {"files": files, "journal": str(journal)})
    keys.write_text("a person's\nours\nanother's\n")
    changed_key.write_text("of a person\n")
    only = {"only": [str(path) for path in (keys, private, changed_key)], "journal": str(journal)}

    foreseen = run_module("restore_files", only, "--check")
    assert private.exists()
    taken = run_module("restore_files", only)
    again = run_module("restore_files", only)

    assert foreseen["paths"] == taken["paths"] == sorted(only["only"])
    assert not again["changed"]
    assert not private.exists()
    assert changed_key.read_text() == "of a person\n"
    assert other.read_text() == "ours\n"
    assert keys.read_text() == "a person's\nanother's\n"
    assert set(json.loads(journal.read_text())) == {str(other)}
