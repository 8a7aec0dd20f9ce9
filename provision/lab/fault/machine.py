"""Faults of what a node has and runs: disk, processor, clock, ports, ranks."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from provision.errors import BadInput
from provision.lab.fault.model import Fault, Named, Part, Target, Words
from provision.lab.shape import Argv

# ext4 keeps 16 MiB back (4096 blocks), and counts them as free.
_FILL = """set -e; mountpoint -q /data; set -- "$1" $(stat -f -c '%f %S' /data)
fallocate -l $(($2 * $3 - (64 << 20))) "$1" """
_FILLING = "/data/.clusterwright-fault"

_LISTENER = """import signal, socket, sys
listener = socket.create_server(("", int(sys.argv[1])))
signal.pause()"""
_LISTENS = """for i in $(seq 50); do ss -ltnH "sport = :$1" | grep -q . && exit 0; sleep 0.1; done; exit 1"""
_UNIT = "clusterwright-fault-ports-taken"

# $1: the control group, $2: process 1 of the node; every process of its process namespace goes in.
_ENTER = """set -e; mine=$(readlink "/proc/$2/ns/pid")
for round in 1 2; do for all in /proc/[0-9]*; do
[ "$(readlink "$all/ns/pid" 2>/dev/null)" != "$mine" ] ||
echo "${all#/proc/}" >"$1/cgroup.procs" 2>/dev/null || true
done; done"""
_LEAVE = """[ -d "$1" ] || exit 0; for round in 1 2; do
while read -r pid; do echo "$pid" >"$2/cgroup.procs" 2>/dev/null || true; done <"$1/cgroup.procs"
done; for i in $(seq 50); do rmdir "$1" 2>/dev/null && break; sleep 0.1; done
[ ! -d "$1" ] && { rmdir "${1%/*}" "${1%/*/*}" 2>/dev/null || true; }"""
_PERIOD_MICROSECONDS = 100_000

# No namespace has a wall clock of its own: datefudge gives another one to what an ssh session starts, and to
# nothing else. PAM reads the file when a session begins. (libfaketime breaks sleeping in Python 3.11.)
_SKEW = """set -e; set -- "$1" /usr/lib/*/datefudge/datefudge.so; [ -f "$2" ]
printf '%s\\n' "LD_PRELOAD=$2" "DATEFUDGE=$1" >>/etc/environment"""
_OWN_CLOCK = "/^LD_PRELOAD=.*datefudge/d; /^DATEFUDGE=/d"

# $1: the signal, $2: seconds that a rank has run. A job's ranks, and nothing else, have LOCAL_RANK; the
# process of zerorun that says how its rank ended is left alone.
_SIGNAL_RANKS = """for i in $(seq 600); do struck=
for all in $(grep -lzs '^LOCAL_RANK=' /proc/[0-9]*/environ); do pid=${all#/proc/}; pid=${pid%/environ}
grep -qs runtime.launch.rank "/proc/$pid/cmdline" && continue
age=$(ps -o etimes= -p "$pid") && [ "$age" -ge "$2" ] && kill -"$1" "$pid" && struck=yes; done
[ -z "$struck" ] || exit 0; sleep 0.1; done; echo 'no rank ran here within 60 s' >&2; exit 1"""
_GO_ON = """for all in $(grep -lzs '^LOCAL_RANK=' /proc/[0-9]*/environ); do pid=${all#/proc/}
kill -CONT "${pid%/environ}" 2>/dev/null || true; done"""


def _limited(target: Target, controller: str, limit: str, *values: str) -> Sequence[Argv]:
    """A group with a limit, and the node's processes in it."""
    if controller not in target.groups:
        raise BadInput(
            f"limit {target.node.name}",
            found=f"this machine has no {controller} controller of version 1 of control groups",
            fix="Use another fault; version 2 is not supported here.",
        )
    group = str(target.groups[controller])
    return [
        ("sh", "-ec", f'mkdir -p "$1"; {limit}', "fault", group, *values),
        ("sh", "-c", _ENTER, "fault", group, str(target.init)),
    ]


def _slow_processor(target: Target) -> Sequence[Argv]:
    quota = int(target.value) * _PERIOD_MICROSECONDS // 100
    limit = 'echo "$2" >"$1/cpu.cfs_period_us"; echo "$3" >"$1/cpu.cfs_quota_us"'
    return _limited(target, "cpu", limit, str(_PERIOD_MICROSECONDS), str(quota))


def _slow_disk(target: Target) -> Sequence[Argv]:
    """What reaches the disk past the page cache: version 1 does not know whose the cached writes are."""
    number = shlex.join(target.within("stat", "--format=%Hr:%Lr", "/dev/vdb"))
    limit = f'number=$({number}); echo "$number $2" >"$1/blkio.throttle.write_bps_device"'
    return _limited(target, "blkio", limit, str(int(target.value) * 10**6))


def _free(controller: str) -> Words:
    """Back to the top of the hierarchy, where the lab's nodes are when no fault holds them."""

    def leave(target: Target) -> Sequence[Argv]:
        if controller not in target.groups:
            return []
        group = target.groups[controller]
        return [("sh", "-c", _LEAVE, "fault", str(group), str(group.parents[2]))]

    return leave


def _take_port(target: Target) -> Sequence[Argv]:
    run = ("systemd-run", f"--unit={_UNIT}", "--collect", "--quiet")
    return [
        target.within(*run, "python3", "-c", _LISTENER, target.value),
        target.within("sh", "-c", _LISTENS, "fault", target.value),
    ]


FAULTS = (
    Fault(
        name="disk-full",
        what="the node's data disk is full but for 64 MiB",
        named=Named(part=Part.node, cause="disk|space|full"),
        inject=lambda target: [target.within("sh", "-c", _FILL, "fault", _FILLING)],
        clear=lambda target: [target.within("rm", "-f", _FILLING)],
        needs_site=True,
    ),
    Fault(
        name="slow-disk",
        what="the node's data disk takes so many megabytes a second, past the page cache",
        named=Named(part=Part.node, cause="disk"),
        inject=_slow_disk,
        clear=_free("blkio"),
        default="5",
        value_pattern="[1-9][0-9]{0,3}",
    ),
    Fault(
        name="slow-cpu",
        what="the node gets a share (in percent) of one processor",
        named=Named(part=Part.node, cause="cpu|processor|comput"),
        inject=_slow_processor,
        clear=_free("cpu"),
        default="10",
        value_pattern="[1-9][0-9]?",
    ),
    Fault(
        name="clock-skew",
        what="every ssh session on the node sees a clock that is so many seconds off",
        named=Named(part=Part.node, cause="clock"),
        # DATEFUDGE is how far the clock goes back.
        inject=lambda target: [target.within("sh", "-c", _SKEW, "fault", str(-int(target.value)))],
        clear=lambda target: [target.within("sed", "-i", _OWN_CLOCK, "/etc/environment")],
        default="+90",
        value_pattern="[+-][1-9][0-9]{0,8}",
    ),
    Fault(
        name="ports-taken",
        what="another program on the node listens on the port that a job is told to take",
        named=Named(part=Part.node, cause="taken|in use"),
        inject=_take_port,
        # With a pattern, systemctl does not mind that there is no such unit.
        clear=lambda target: [target.within("systemctl", "stop", f"{_UNIT}*")],
        default="29500",
        value_pattern="[1-9][0-9]{0,4}",
        on_first=True,
        smoke_options=("--master-port", "29500"),
    ),
    Fault(
        name="rank-killed",
        what="the ranks on the node are killed once they have run for some seconds",
        named=Named(part=Part.rank, cause="SIGKILL|signal 9|killed"),
        inject=lambda target: [target.within("sh", "-c", _SIGNAL_RANKS, "fault", "KILL", target.value)],
        clear=lambda _: [],
        default="3",
        value_pattern="[0-9]{1,3}",
        needs_ranks=True,
    ),
    Fault(
        name="rank-stopped",
        what="the ranks on the node are stopped (SIGSTOP) once they have run for some seconds",
        named=Named(part=Part.rank, cause="said nothing|stopped|silent|SIGSTOP"),
        inject=lambda target: [target.within("sh", "-c", _SIGNAL_RANKS, "fault", "STOP", target.value)],
        clear=lambda target: [target.within("sh", "-c", _GO_ON)],
        default="3",
        value_pattern="[0-9]{1,3}",
        needs_ranks=True,
    ),
)
