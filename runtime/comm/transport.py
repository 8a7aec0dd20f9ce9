"""Which network NCCL has chosen, by its own word: it says so in its log and nowhere else."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

SOCKETS = "Socket"
# "Using network IB" until NCCL 2.26, "Assigned NET plugin IB to comm" since (src/plugin/net.cc).
_CHOSEN = re.compile(r"NCCL INFO (?:Using network|Assigned NET plugin) (.+?)(?: to comm.*)?$", re.MULTILINE)


def keep_log(environ: MutableMapping[str, str]) -> Path:
    """Has NCCL log its initialisation to a file of this process; to be called before the group is formed."""
    descriptor, name = tempfile.mkstemp(prefix="clusterwright-nccl-")
    os.close(descriptor)
    environ.update(NCCL_DEBUG="INFO", NCCL_DEBUG_SUBSYS="INIT,NET", NCCL_DEBUG_FILE=name)
    return Path(name)


def chosen(log: str) -> str:
    """`IB`, `Socket` or a plugin's name, from the text of NCCL's log; empty where it does not say."""
    found = _CHOSEN.findall(log)
    return found[-1].strip() if found else ""
