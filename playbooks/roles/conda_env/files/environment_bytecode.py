"""Bytecode of an environment: it is no node's like another's, and runs in place of its source.

So it is compared with what the environment's own Python makes of that. A part of environment_digest.py;
standard library only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterable, Mapping

BYTECODE = "/__pycache__/"

# Runs in the environment's Python, which reads no bytecode then, and says of each pair: right, wrong, or
# unused (Python would compile anew). What is read may be hostile to marshal, so who loads it has no rights.
# marshal's version 2 writes no references, which differ by chance.
COMPARE = """
import json, marshal, os, sys
from importlib.util import MAGIC_NUMBER

def verdict(data, text, status, level):
    marks = [(int(mark) & 0xFFFFFFFF).to_bytes(4, "little") for mark in (status.st_mtime, status.st_size)]
    if data[:4] != MAGIC_NUMBER or (data[4:8] == bytes(4) and data[8:16] != b"".join(marks)):
        return "unused"
    code = marshal.loads(data[16:])
    made = compile(text, code.co_filename, "exec", dont_inherit=True, optimize=level)
    return "right" if marshal.dumps(made, 2) == marshal.dumps(code, 2) else "wrong"

pairs, read = json.load(sys.stdin), []
for cached, source, level in pairs:
    with open(cached, "rb") as first, open(source, "rb") as second:
        read.append((first.read(), second.read(), os.fstat(second.fileno()), level))
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
for pair, given in zip(pairs, read):
    try:
        said = verdict(*given)
    except Exception:
        said = "wrong"
    print(json.dumps([pair[0], said]))
"""


def clear_bytecode(prefix: str) -> None:
    """Takes away every `__pycache__`; Python makes its bytecode again when it needs it."""
    for folder, _, _ in os.walk(prefix):
        if os.path.basename(folder) == "__pycache__":
            shutil.rmtree(folder, ignore_errors=True)


def marks_of(status: os.stat_result) -> list[int]:
    """By which an untouched file is known: ctime cannot be set back."""
    return [status.st_mode, status.st_size, status.st_ino, status.st_ctime_ns]


def judged_bytecode(
    prefix: str, places: Collection[str], pythons: list[str], known: Mapping[str, list[list[int]]]
) -> tuple[list[str], dict[str, list[list[int]]]]:
    """Judges what Python would run and what is not in `known`, the marks of bytecode and source by path.

    `pythons` are the names of the folders in lib/ that packages lie in, as python3.11.

    Returns:
        Paths of bytecode that is not what its source compiles to, sorted; the marks of all other.
    """
    marks = marks_in(prefix, places, pythons)
    verdicts = verdicts_on(prefix, [pair for pair in marks if known.get(pair[0]) != marks[pair]])
    wrong = sorted(pair[0] for pair in marks if verdicts.get(pair) == "wrong")
    return wrong, {pair[0]: marks[pair] for pair in marks if verdicts.get(pair) != "wrong"}


def compiled(
    prefix: str,
    code: str,
    walk: Callable[[str], Iterable[tuple[str, os.stat_result]]],
    pythons: list[str],
) -> dict[str, list[list[int]]]:
    """Runs code in the environment's Python; the marks of all bytecode that it made, by path.

    That needs no judge: whoever may write here meanwhile can change the judge as well.
    """
    before = {path: marks_of(status) for path, status in walk(prefix)}
    subprocess.run([os.path.join(prefix, "bin", "python"), "-I", "-c", code], check=True)
    marks = marks_in(prefix, dict(walk(prefix)), pythons)
    return {pair[0]: found for pair, found in marks.items() if before.get(pair[0]) != found[0]}


def marks_in(
    prefix: str, places: Collection[str], pythons: list[str]
) -> dict[tuple[str, str, int], list[list[int]]]:
    """For each bytecode with its source, the marks of both, links followed as Python follows them."""
    pairs = pairs_in(prefix, places, pythons)
    return {pair: [marks_of(os.stat(os.path.join(prefix, path))) for path in pair[:2]] for pair in pairs}


def pairs_in(prefix: str, places: Collection[str], pythons: list[str]) -> list[tuple[str, str, int]]:
    """Bytecode that the environment's Python looks at (PEP 3147, 488), its source, and its level."""
    tag = "|".join(name.replace("python", "cpython-").replace(".", "") for name in pythons)
    pattern = re.compile(rf"(.+)\.(?:{tag})(?:\.opt-([12]))?\.pyc")
    found = []
    for path in (path for path in places if BYTECODE in f"/{path}"):
        folder, name = os.path.split(path)
        if match := pattern.fullmatch(name):
            source = os.path.join(os.path.dirname(folder), match[1] + ".py")
            if source in places and all(os.path.isfile(os.path.join(prefix, one)) for one in (path, source)):
                found.append((path, source, int(match[2] or 0)))
    return found


def verdicts_on(prefix: str, pairs: list[tuple[str, str, int]]) -> dict[tuple[str, str, int], str]:
    """What the environment's Python says of each; wrong where it says nothing."""
    prefix = os.path.abspath(prefix)
    python = [os.path.join(prefix, "bin", "python"), "-I", "-S", "-B", "-X", "pycache_prefix=/proc/none"]
    words, given, said = [*python, "-c", COMPARE], json.dumps(pairs).encode(), {}
    if pairs:
        ended = subprocess.run(words, cwd=prefix, input=given, stdout=subprocess.PIPE, check=False)
        said = dict(json.loads(line) for line in ended.stdout.decode().splitlines())
    return {pair: said.get(pair[0], "wrong") for pair in pairs}
