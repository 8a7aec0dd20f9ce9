"""Limits and kernel parameters: ours where they are larger, and what an owner set larger stays. Pure.

What files of others set counts, also where a file of ours wins over it now. What a value was before we raised
it stands in our file as a comment, so that later runs know it.
"""

from __future__ import annotations

import fnmatch
import math
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TITLE = "# Clusterwright: see role host_tuning; what was larger already is not listed."
_BEFORE = "# before: "
_UNLIMITED = ("unlimited", "infinity", "-1")
# Of which more is never worse; other parameters are set as the site says.
_AMOUNTS = (
    *("net.core.*mem_max", "net.core.*mem_default", "net.core.somaxconn", "net.core.netdev_max_backlog"),
    *("net.ipv4.tcp_?mem", "net.ipv4.tcp_max_syn_backlog", "vm.max_map_count", "fs.file-max", "fs.nr_open"),
    *("fs.aio-max-nr", "fs.inotify.max_*", "kernel.pid_max", "kernel.threads-max", "kernel.shm*"),
    "net.ipv4.neigh.default.gc_thresh?",
)
# The first of these that has a file of some name hides those of the others: sysctl.d(5).
_FOLDERS = ("/etc/", "/run/", "/usr/local/lib/", "/usr/lib/", "/lib/")

Files = Mapping[str, str]
Values = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What our file lists, what it says that values were before, and what has to be live afterwards."""

    listed: dict[str, str]
    before: dict[str, str]
    live: dict[str, str]


def plan(wanted: Values, *, live: Values, ours: str, theirs: Values) -> Plan:
    """Each value as it is wanted, or larger where it is larger.

    Args:
        live: what holds now.
        ours: the text of our file, empty where there is none.
        theirs: what files of others set.
    """
    written, noted = settings_in(ours), settings_in(ours, _BEFORE)
    listed, before, target = {}, {}, {}
    for name, want in wanted.items():
        is_ours = name in written and live.get(name) == written[name]
        was = noted.get(name, "") if is_ours else live.get(name, "")
        target[name] = larger(name, want, larger(name, theirs.get(name, ""), was))
        if not is_at_least(name, larger(name, theirs.get(name, ""), was), want):
            listed[name], before[name] = target[name], was
    return Plan(listed=listed, before={name: was for name, was in before.items() if was}, live=target)


def shortfalls(wanted: Values, live: Values) -> list[str]:
    """What is not as it has to be."""
    return [
        f"{name}: wanted {want}, found {live.get(name) or 'nothing'}"
        for name, want in wanted.items()
        if not is_at_least(name, live.get(name, ""), want)
    ]


def larger(name: str, one: str, other: str) -> str:
    """Field by field the larger of the two; `one` where they cannot be compared."""
    if not one or not other or not is_amount(name):
        return one or (other if is_amount(name) else "")
    pairs = _pairs(one, other)
    separator = ":" if ":" in one else " "
    return (
        separator.join(ours if _number(ours) >= _number(theirs) else theirs for ours, theirs in pairs) or one
    )


def is_at_least(name: str, have: str, want: str) -> bool:
    if not have or not is_amount(name):
        return have.split() == want.split()
    pairs = _pairs(have, want)
    return bool(pairs) and all(_number(ours) >= _number(theirs) for ours, theirs in pairs)


def is_amount(name: str) -> bool:
    """Limits are; of the kernel's parameters those of the list."""
    is_limit = " " in name or name.startswith("DefaultLimit")
    return is_limit or any(fnmatch.fnmatchcase(name, pattern) for pattern in _AMOUNTS)


def _pairs(one: str, other: str) -> list[tuple[str, str]]:
    fields, others = (re.split(r"[:\s]+", text.strip()) for text in (one, other))
    return list(zip(fields, others, strict=True)) if len(fields) == len(others) else []


def _number(text: str) -> float:
    try:
        return math.inf if text in _UNLIMITED else float(text)
    except ValueError:
        return -1.0


def settings_in(text: str, prefix: str = "") -> dict[str, str]:
    """`name = value` of each line with this prefix, the last one of each; blanks in a value count once."""
    lines = [line.removeprefix(prefix) for line in text.splitlines() if line.startswith(prefix)]
    plain = [line.strip().removeprefix("-") for line in lines if line.strip()[:1] not in ("#", ";", "[", "")]
    pairs = (line.partition("=") for line in plain)
    return {name.strip().replace("/", "."): " ".join(value.split()) for name, mark, value in pairs if mark}


def set_by_others(files: Files, ours: str) -> dict[str, str]:
    """What files beside ours set, in folders of that name: later names win, equal ones by folder."""
    folder = posixpath.basename(posixpath.dirname(ours))
    main = "limits.conf" if folder == "limits.d" else folder.removesuffix(".d")
    chosen: dict[str, str] = {}
    for path in files:
        above, name = posixpath.split(path)
        if path != ours and (posixpath.basename(above) == folder or name == main):
            present = chosen.get(name)
            chosen[name] = path if present is None or _rank(path) < _rank(present) else present
    found: dict[str, str] = {}
    for name in sorted(chosen, key=lambda name: (name != main, name)):
        found |= settings_in(files[chosen[name]])
    return found


def _rank(path: str) -> int:
    return next((rank for rank, folder in enumerate(_FOLDERS) if path.startswith(folder)), len(_FOLDERS))


def file_text(plan: Plan, *, head: Sequence[str] = (), mark: str = " = ") -> str:
    """Our file: `name = value`, or another mark between them."""
    before = [f"{_BEFORE}{name} = {value}" for name, value in plan.before.items()]
    lines = [TITLE, *head, *before, *(f"{name}{mark}{value}" for name, value in plan.listed.items())]
    return "".join(f"{line}\n" for line in lines)


def limits_as_settings(text: str) -> str:
    """A file of limits.conf(5) as lines `domain type item = value`, where `-` is soft and hard."""
    lines = []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        kinds = ("soft", "hard") if words[1:2] == ["-"] else words[1:2]
        lines += (
            [line] if len(words) != 4 else [f"{words[0]} {kind} {words[2]} = {words[3]}" for kind in kinds]
        )
    return "\n".join(lines)


def pairs_of_limits(text: str) -> str:
    """A file of systemd in which each limit is soft:hard; one value is both."""
    return re.sub(r"^(DefaultLimit\w+)\s*=\s*([^:\s]+)\s*$", r"\1 = \2:\2", text, flags=re.MULTILINE)


def limits_of_services(shown: str) -> dict[str, str]:
    """From what `systemctl show` says: DefaultLimitX is the hard one, DefaultLimitXSoft the other."""
    said = settings_in(shown)
    return {
        name: f"{said.get(f'{name}Soft', hard)}:{hard}" for name, hard in said.items() if name[-4:] != "Soft"
    }


def limits_of_session(domain: str, printed: str) -> dict[str, str]:
    """From four lines of ulimit: -Sl, -Hl, -Sn, -Hn."""
    names = [f"{domain} {kind} {item}" for item in ("memlock", "nofile") for kind in ("soft", "hard")]
    lines = printed.split()
    return dict(zip(names, lines, strict=True)) if len(lines) == len(names) else {}
