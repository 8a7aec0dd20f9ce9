"""Faults of packets: nftables in the node drops some of them. Each fault has a table of its own."""

from __future__ import annotations

from collections.abc import Sequence

from provision.errors import BadInput
from provision.lab.fault.model import Fault, Named, Part, Target
from provision.lab.layout import LabNode
from provision.lab.shape import Argv

_BLOCKED = "cannot reach|unreachable|firewall|filtered|no connection"
_SSH = ("tcp dport 22 accept", "tcp sport 22 accept")


def _table(fault: str, target: Target) -> str:
    peer = f"_{target.peer.name}" if target.peer else ""
    return f"clusterwright_{fault.replace('-', '_')}{peer}"


def _drop(table: str, *rules: str) -> str:
    """A ruleset that applies the rules to what comes in; the kernel takes all of it or nothing."""
    return _chain(f"inet {table}", "in", "input", *rules)


def _chain(table: str, name: str, hook: str, *rules: str) -> str:
    body = "\n".join([f"type filter hook {hook} priority 0;", *rules])
    return f"table {table} {{\nchain {name} {{\n{body}\n}}\n}}"


def _inject(target: Target, *rulesets: str) -> Sequence[Argv]:
    return [target.within("nft", ruleset) for ruleset in rulesets]


def _clear(target: Target, *tables: str) -> Sequence[Argv]:
    """`add` first: nft refuses to delete a table that is not there."""
    return [target.within("nft", f"add table {table}; delete table {table}") for table in tables]


def _hole(target: Target) -> Sequence[Argv]:
    """Both ways, without a word to the sender, as a switch between the two would drop."""
    table, rules = _table("mtu-hole", target), (*_SSH, f"meta length > {target.value} drop")
    out = _chain(f"netdev {table}", "out", 'egress device "eth0"', *rules)
    return _inject(target, _drop(table, "iif lo accept", *rules), out)


def _policed(target: Target, source: LabNode) -> str:
    """What comes above the rate is dropped, as a provider's policer does."""
    rate = f"limit rate over {target.value} mbytes/second burst 256 kbytes"
    return f"ip saddr {source.address} {rate} drop"


def _slow_direction(target: Target) -> Sequence[Argv]:
    return _inject(target, _drop(_table("slow-direction", target), _policed(target, target.neighbour)))


def _slow_link(target: Target) -> Sequence[Argv]:
    """Each end drops what comes: dropped where it is sent, it would keep the sender's processor busy."""
    if not target.peer_init:
        found, name = f"{target.neighbour.name} is off", target.lab.name
        raise BadInput(
            "slow a link down",
            found=found,
            fix=f"provision lab power on {target.neighbour.name} --name {name}",
        )
    here = _drop(_table("slow-link", target), _policed(target, target.neighbour))
    there = _drop(_at_peer("slow-link", target), _policed(target, target.node))
    return [*_inject(target, here), target.within_peer("nft", there)]


def _at_peer(fault: str, target: Target) -> str:
    return f"clusterwright_{fault.replace('-', '_')}_{target.node.name}"


def _free_link(target: Target) -> Sequence[Argv]:
    """What a peer that is off had is gone with its power."""
    table = f"inet {_at_peer('slow-link', target)}"
    there = (
        [target.within_peer("nft", f"add table {table}; delete table {table}")] if target.peer_init else []
    )
    return [*_clear(target, f"inet {_table('slow-link', target)}"), *there]


FAULTS = (
    Fault(
        name="firewall-all",
        what="a firewall on the node drops everything that comes in but ssh",
        named=Named(part=Part.node, cause=_BLOCKED),
        inject=lambda target: _inject(
            target, _drop(_table("firewall-all", target), "iif lo accept", *_SSH, "drop")
        ),
        clear=lambda target: _clear(target, f"inet {_table('firewall-all', target)}"),
    ),
    Fault(
        name="firewall-ports",
        what="a firewall on the node drops what comes in for one range of TCP ports",
        named=Named(part=Part.node, cause=_BLOCKED),
        inject=lambda target: _inject(
            target,
            _drop(
                _table("firewall-ports", target),
                f"iif != lo tcp flags syn / syn,ack tcp dport {target.value} drop",
            ),
        ),
        clear=lambda target: _clear(target, f"inet {_table('firewall-ports', target)}"),
        default="32768-60999",
        value_pattern="[0-9]{1,5}-[0-9]{1,5}",
    ),
    Fault(
        name="firewall-peer",
        what="a firewall on the node drops what comes from one other node",
        named=Named(part=Part.link, cause=_BLOCKED),
        inject=lambda target: _inject(
            target, _drop(_table("firewall-peer", target), f"ip saddr {target.neighbour.address} drop")
        ),
        clear=lambda target: _clear(target, f"inet {_table('firewall-peer', target)}"),
        two_nodes=True,
    ),
    Fault(
        name="mtu-hole",
        what="the way to the node swallows packets (but ssh's) above a size that its interface promises",
        named=Named(part=Part.node, cause="mtu|black hole|larger than|large (messages|packets)"),
        inject=_hole,
        clear=lambda target: _clear(
            target, *(f"{family} {_table('mtu-hole', target)}" for family in ("inet", "netdev"))
        ),
        default="1400",
        value_pattern="[1-9][0-9]{2,4}",
    ),
    Fault(
        name="slow-direction",
        what="the node takes so many megabytes a second of one other node and drops the rest",
        named=Named(part=Part.direction, cause=r" -> "),
        inject=_slow_direction,
        clear=lambda target: _clear(target, f"inet {_table('slow-direction', target)}"),
        default="20",
        value_pattern="[1-9][0-9]{0,3}",
        two_nodes=True,
    ),
    Fault(
        name="slow-link",
        what="two nodes carry so many megabytes a second to each other, each way; the rest is dropped",
        named=Named(part=Part.link, cause=r" <-> "),
        inject=_slow_link,
        clear=_free_link,
        default="20",
        value_pattern="[1-9][0-9]{0,3}",
        two_nodes=True,
    ),
    Fault(
        name="packet-loss",
        what="a share (in percent) of the packets that come to the node, but for those of ssh, is lost",
        named=Named(part=Part.receive, cause="loss|lost|retransmi|receiv"),
        inject=lambda target: _inject(
            target,
            _drop(
                _table("packet-loss", target),
                "iif lo accept",
                *_SSH,
                f"numgen random mod 100 < {target.value} drop",
            ),
        ),
        clear=lambda target: _clear(target, f"inet {_table('packet-loss', target)}"),
        default="20",
        value_pattern="[1-9][0-9]?",
    ),
)
