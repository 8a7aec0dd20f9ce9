"""What a node knows of the firewall around the ports of jobs (role job_firewall), and whether it holds.

Whether it holds is tried: a connection is opened as a user without rights would, to a port of the kind that
jobs use. The kernel judges a socket by the file-system user of the thread that made it (nft(8), meta skuid).

Only root may read the rules and be somebody else. Where another user runs jobs, systemd runs this module as
root, `python -m runtime.probes.job_firewall ADDRESS`, for whoever connects to a socket that is that user's
alone. It takes nothing from there.
"""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.edges.addresses import family_of, in_url
from runtime.edges.process import complete
from runtime.untrusted.conform import Lines, conform

RULES = Path("/usr/local/lib/clusterwright/job_firewall.nft")
# Of role job_firewall, where the user of jobs is not root.
PROBE = Path("/run/clusterwright-job-firewall-probe.socket")
_TABLE = ("inet", "clusterwright")
_CHAINS = ("forward", "input", "output")
_CONNECT_SECONDS = 2.0
_PROBE_SECONDS = 15.0
_PROBE_BYTES = 1 << 20
_STRANGER = "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """What is live on a node: addresses that may connect as nodes, and those that cluster.json names.

    `wanted`: the role has been there; `problem` says why what is live cannot be told, or what it lacks.
    """

    wanted: bool = False
    problem: str = ""
    nodes: tuple[str, ...] = ()
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Intrusion:
    """Ports, as "10.0.0.1:40000", that a user without rights was refused, or got; why it was not tried."""

    refused: tuple[str, ...] = ()
    reached: tuple[str, ...] = ()
    left_out: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What root found on this node: how nft ended, what it said, and whether a port there was reached."""

    status: int
    out: Lines
    errors: Lines
    intrusion: Intrusion


def look(config_path: Path, *, rules: Path = RULES) -> Fence:
    """Reads the table that is live."""
    if not rules.is_file():
        return Fence()
    status, out, errors = _listed()
    members = _members(config_path / "cluster.json")
    if status != 0:
        said = errors.strip().splitlines()[:1]
        return Fence(
            wanted=True, problem=f"`nft list table {' '.join(_TABLE)}`: {' '.join(said)}", members=members
        )
    nodes, problem = parse(out)
    return Fence(wanted=True, problem=problem, nodes=nodes, members=members)


def _listed() -> tuple[int, str, str]:
    """How nft ends that lists the table, what it prints, and its errors."""
    if os.geteuid() != 0 and (probed := _probed()) is not None:
        return probed.status, probed.out, probed.errors
    ended = complete(["nft", "--json", "list", "table", *_TABLE])
    return ended.status, ended.out, ended.errors


def _probed(path: Path = PROBE) -> Probed | None:
    """What root says; None where nobody answers: no role has been here, or this is not the user of jobs."""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(_PROBE_SECONDS)
            line.connect(str(path))
            said = b""
            while len(said) < _PROBE_BYTES and (piece := line.recv(1 << 16)):
                said += piece
        probed: Probed = conform(Probed, json.loads(said), "the probe")
    except (OSError, ValueError):
        return None
    return probed


def main(address: str) -> None:
    """Prints what root finds as JSON: the live rules, and one port of ours tried as somebody else."""
    status, out, errors = _listed()
    with socket.create_server((address, 0), family=family_of(address)) as listener:
        intrusion = intrude(address, [(address, listener.getsockname()[1])])
    probed = Probed(status=status, out=out, errors=errors, intrusion=intrusion)
    sys.stdout.write(json.dumps(asdict(probed)) + "\n")


def parse(listed: str) -> tuple[tuple[str, ...], str]:
    """The nodes' addresses in what `nft --json list table` prints, and what the table lacks."""
    entries = json.loads(listed)["nftables"]
    sets = {entry["set"]["name"]: entry["set"].get("elem", []) for entry in entries if "set" in entry}
    judging = {entry["rule"]["chain"] for entry in entries if "rule" in entry}
    hooked = {entry["chain"]["name"] for entry in entries if "hook" in entry.get("chain", {})}
    idle = [name for name in _CHAINS if name not in judging & hooked]
    problem = f"its chains {', '.join(idle)} judge nothing" if idle else ""
    return tuple(sorted(map(str, (*sets.get("nodes", ()), *sets.get("nodes6", ()))))), problem


def _members(path: Path) -> tuple[str, ...]:
    try:
        described = json.loads(path.read_text())
        return tuple(sorted(str(node["address"]) for node in described["nodes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def intrude(own_address: str, targets: Sequence[tuple[str, int]]) -> Intrusion:
    """Tries each port that we reach ourselves as a user without rights."""
    outcomes: dict[str, bool | None] = {}
    for address, port in targets:
        if _connects(own_address, address, port):
            outcomes[f"{in_url(address)}:{port}"] = _as_stranger(own_address, address, port)
    if not outcomes:
        return Intrusion(left_out="no port could be reached at all")
    if None in outcomes.values():
        if (probed := _probed()) is not None:
            return probed.intrusion
        return Intrusion(left_out="the test does not run as root, and so cannot be somebody without rights")
    return Intrusion(
        refused=tuple(where for where, got in outcomes.items() if not got),
        reached=tuple(where for where, got in outcomes.items() if got),
    )


def _connects(own_address: str, address: str, port: int) -> bool:
    try:
        socket.create_connection(
            (address, port), timeout=_CONNECT_SECONDS, source_address=(own_address, 0)
        ).close()
    except (OSError, ValueError, OverflowError):  # what another node calls its address may be none
        return False
    return True


def _as_stranger(own_address: str, address: str, port: int) -> bool | None:
    """Whether `nobody` gets a connection; None where we may not be `nobody`. Only this thread is."""
    got: list[bool] = []
    user = pwd.getpwnam(_STRANGER).pw_uid
    setfsuid: Any = ctypes.CDLL(None).setfsuid

    def attempt() -> None:
        setfsuid(user)
        # It answers with the user before, and refuses without an error (setfsuid(2)).
        if setfsuid(-1) == user:
            got.append(_connects(own_address, address, port))

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return got[0] if got else None


if __name__ == "__main__":
    main(sys.argv[1])
