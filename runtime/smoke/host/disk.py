"""Room on the disks: bytes and files."""

from __future__ import annotations

from runtime.smoke.host.registry import Findings, HostCheck, Nodes, size_text

_FREE_BYTES = 256 << 20
_FREE_FILES = 1000


def _judge(nodes: Nodes) -> Findings:
    for host, seen in nodes.surveys.items():
        for path, free in seen.free_bytes.items():
            if free < _FREE_BYTES:
                yield nodes.finding(
                    "disk", host, f"{path} has {size_text(free)} free", f"See `du -xh -d2 {path}`."
                )
        for path, free in seen.free_files.items():
            if free < _FREE_FILES:
                found = f"{path} has room for {free} more files"
                yield nodes.finding("disk", host, found, f"See `du -x --inodes -d2 {path}`.")


def _evidence(nodes: Nodes) -> str:
    return f"{size_text(min(min(seen.free_bytes.values()) for seen in nodes.surveys.values()))} free at least"


CHECK = HostCheck(id="host.disk", names=("disk",), place=210, judge=_judge, evidence=_evidence)
