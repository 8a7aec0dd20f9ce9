"""Faults of files in a node: names, the environment, ssh's host keys. What was there is kept beside."""

from __future__ import annotations

from collections.abc import Sequence

from provision.lab.fault.model import Fault, Named, Part, Target
from provision.lab.shape import Argv

_KEPT = "/var/lib/clusterwright-fault"
_HOSTS = "/etc/hosts"
_TORCH = "/data/miniconda3/envs/*/lib/python3*/site-packages/torch"
_ENVIRONMENT = "/etc/clusterwright/environment.json"
_JOB_ENVIRONMENT = "/etc/clusterwright/job.env"
_BRIDGE = "docker0"

# $1: the copy to keep, $2: the file (a pattern). A copy that is there is the original: it stays.
_KEEP = """set -e; set -- "$1" $2; [ -f "$2" ]; [ ! -e "$1" ] || exit 0
mkdir -p "${1%/*}"; cp -a "$2" "$1.new"; mv "$1.new" "$1" """
# $1: the copy that was kept, $2: the file (a pattern).
_RESTORE = """set -e; set -- "$1" $2; rm -f "$1.new"
[ ! -e "$1" ] || { cp -a "$1" "$2.new"; mv "$2.new" "$2"; rm "$1"; }
rmdir "${1%/*}" 2>/dev/null || true"""
_CHANGE_KEYS = """set -e; cd /etc/ssh; [ ! -d kept ] || exit 0
mkdir -p kept.new; cp -a ssh_host_*_key ssh_host_*_key.pub kept.new/; mv kept.new kept
rm -f ssh_host_*_key ssh_host_*_key.pub; ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key
systemctl restart ssh"""
_RESTORE_KEYS = """set -e; cd /etc/ssh; rm -rf kept.new; [ -d kept ] || exit 0
rm -f ssh_host_*_key ssh_host_*_key.pub; cp -a kept/. .; rm -r kept; systemctl restart ssh"""


def _shell(target: Target, program: str, *words: str) -> Argv:
    return target.within("sh", "-c", program, "fault", *words)


def _edit(fault: str, target: Target, path: str, *script: str) -> Sequence[Argv]:
    """Keeps a file (a pattern that means one), then edits it in place with sed."""
    return [
        _shell(target, _KEEP, f"{_KEPT}/{fault}", path),
        _shell(target, 'sed -i "$2" $1', path, *script),
    ]


def _restore(fault: str, target: Target, path: str) -> Sequence[Argv]:
    return [_shell(target, _RESTORE, f"{_KEPT}/{fault}", path)]


def _stray_address(target: Target) -> str:
    """One that no node of any lab has: nodes begin at .11 and end below."""
    return str(target.lab.subnet[-2])


def _replaced(target: Target) -> str:
    """Of two entries the resolver prefers the one that it can reach: so the right one goes."""
    peer = target.neighbour.name
    return rf"1i {_stray_address(target)} {peer}" + "\n" + rf"/\b{peer}\b/d"


def _wrong_name(fault: str, target: Target, entry: str) -> Sequence[Argv]:
    return [target.within("sed", "-i", f"1i {entry} # clusterwright {fault}", _HOSTS)]


def _right_name(fault: str, target: Target) -> Sequence[Argv]:
    return [target.within("sed", "-i", f"/ # clusterwright {fault}$/d", _HOSTS)]


def _other_interface(target: Target) -> Sequence[Argv]:
    lines = rf"s/^\([A-Z]*_SOCKET_IFNAME==\?\).*/\1{_BRIDGE}/"
    return [
        target.within("ip", "link", "add", "name", _BRIDGE, "type", "bridge"),
        target.within("ip", "address", "add", "172.17.0.1/16", "dev", _BRIDGE),
        target.within("ip", "link", "set", "dev", _BRIDGE, "up"),
        *_edit("wrong-interface", target, _JOB_ENVIRONMENT, lines),
    ]


def _own_interface(target: Target) -> Sequence[Argv]:
    remove = 'ip link show dev "$1" >/dev/null 2>&1 || exit 0; ip link delete dev "$1"'
    return [
        *_restore("wrong-interface", target, _JOB_ENVIRONMENT),
        _shell(target, remove, _BRIDGE),
    ]


FAULTS = (
    Fault(
        name="loopback-name",
        what="/etc/hosts of the node says that its own name is 127.0.1.1, as Debian's installer does",
        named=Named(part=Part.node, cause=r"127\.0\.1\.1|loopback"),
        inject=lambda target: _wrong_name("loopback-name", target, f"127.0.1.1 {target.node.name}"),
        clear=lambda target: _right_name("loopback-name", target),
    ),
    Fault(
        name="wrong-hosts",
        what="/etc/hosts of the node has an address of nobody for another node",
        named=Named(part=Part.node, cause="resolves|/etc/hosts|the name"),
        inject=lambda target: _edit("wrong-hosts", target, _HOSTS, _replaced(target)),
        clear=lambda target: _restore("wrong-hosts", target, _HOSTS),
        two_nodes=True,
    ),
    Fault(
        name="other-torch",
        what="the environment of the node has another version of torch",
        named=Named(part=Part.node, cause="torch"),
        inject=lambda target: _edit(
            "other-torch",
            target,
            f"{_TORCH}/version.py",
            f"s/^__version__ = .*/__version__ = '{target.value}'/",
        ),
        clear=lambda target: _restore("other-torch", target, f"{_TORCH}/version.py"),
        default="2.5.0",
        value_pattern="[0-9][0-9a-z.+]*",
        needs_site=True,
    ),
    Fault(
        name="changed-file",
        what="a file in the node's environment was changed by hand; what the node reports is as before",
        named=Named(part=Part.node, cause="digest|changed|differ"),
        inject=lambda target: _edit(
            "changed-file", target, f"{_TORCH}/functional.py", "$a # changed by hand"
        ),
        clear=lambda target: _restore("changed-file", target, f"{_TORCH}/functional.py"),
        needs_site=True,
    ),
    Fault(
        name="other-digest",
        what="the node reports another digest of its environment, as after an update of one node only",
        named=Named(part=Part.node, cause="digest|environment"),
        inject=lambda target: _edit(
            "other-digest", target, _ENVIRONMENT, f's/"digest": "[^"]*"/"digest": "{"0" * 64}"/'
        ),
        clear=lambda target: _restore("other-digest", target, _ENVIRONMENT),
        needs_site=True,
    ),
    Fault(
        name="wrong-interface",
        what=f"jobs on the node use a container engine's bridge ({_BRIDGE}), which no other node reaches",
        named=Named(part=Part.node, cause=f"interface|{_BRIDGE}|cannot reach"),
        inject=_other_interface,
        clear=_own_interface,
        needs_site=True,
    ),
    Fault(
        name="host-key-changed",
        what="the node answers ssh with another host key",
        named=Named(part=Part.node, cause="host key"),
        inject=lambda target: [_shell(target, _CHANGE_KEYS)],
        clear=lambda target: [_shell(target, _RESTORE_KEYS)],
    ),
)
