"""Everything on this machine that a lab may leave, and commands that are killed on their way."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from provision.commands.folders import user_cache
from provision.lab.cgroups import hierarchies
from provision.lab.layout import STATE_ROOT


def shown(*words: str) -> list[str]:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


def processes(lab: str) -> Iterator[str]:
    """Processes of labs: by their control group (those inside a node) or by their command line."""
    for entry in Path("/proc").iterdir():
        try:
            groups = (entry / "cgroup").read_text()
            words = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if not words:  # a kernel thread, or one that has ended and waits for process 1 to notice
            continue
        if "clusterwright" in groups or " -m provision.lab." in words or f"/{lab}/" in words:
            yield f"process {entry.name}: {words} {groups.replace(chr(10), ' ')}"


def traces(lab: str) -> set[str]:
    """Everything on this machine that the lab called `lab` may leave, other labs' left out."""
    others = [path.name for path in STATE_ROOT.glob("*") if path.name != lab]
    found = {f"link {line.split(':')[1].strip().split('@')[0]}/" for line in shown("ip", "-o", "link")}
    found |= {f"network namespace {line}" for line in shown("ip", "netns", "list")}
    # No lab makes a block device of an image of nodes, but a test of another lane does.
    files = shown("losetup", "--list", "--noheadings", "-O", "BACK-FILE")
    found |= {f"loop device {file}" for file in files if not file.startswith(f"{user_cache()}/images/")}
    found |= {f"mount {line}" for line in Path("/proc/self/mounts").read_text().splitlines()}
    found |= set(processes(lab))
    found |= {
        f"control group {path}/"
        for hierarchy in hierarchies(Path("/proc/self/mounts").read_text())
        for path in [*hierarchy.glob("*"), *hierarchy.glob("clusterwright/*")]
        if path.is_dir() and path.name != "clusterwright"
    }
    found |= {f"file {path}/" for path in [*STATE_ROOT.glob("*"), *Path("/run/systemd").glob("nspawn*/*/*")]}
    return {trace for trace in found if not any(_is_of(trace, other) for other in others)}


def _is_of(trace: str, lab: str) -> bool:
    marks = (f"/{lab}/", f"cw{lab}/", f"cw{lab}-", f"/labs/{lab} ", f"clusterwright-{lab}-")
    return any(mark in trace for mark in marks)


def killed(words: Sequence[str], until: str) -> None:
    """Starts `provision WORDS` and kills it without warning when it announces the step `until`."""
    argv = [sys.executable, "-m", "provision.cli", *words]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as command:
        assert command.stderr is not None
        for line in command.stderr:
            if line.startswith(until):
                break
        command.kill()
        command.stderr.close()
    assert command.returncode == -signal.SIGKILL, f"it ended before it came to {until!r}"
