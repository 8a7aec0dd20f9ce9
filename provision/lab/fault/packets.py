"""Faults of packets: nftables in the node drops some of them. Each fault has a table of its own."""

from __future__ import annotations

from collections.abc import Sequence

from provision.lab.fault.model import Fault, Named, Part, Target
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


def _policed(target: Target, word: str) -> str:
    """What is above the rate is dropped, as a provider's policer does."""
    rate = f"limit rate over {target.value} mbytes/second burst 256 kbytes"
    return f"ip {word} {target.neighbour.address} {rate} drop"


def _slow_direction(target: Target) -> Sequence[Argv]:
    return _inject(target, _drop(_table("slow-direction", target), _policed(target, "saddr")))


def _slow_link(target: Target) -> Sequence[Argv]:
    table = _table("slow-link", target)
    out = _chain(f"netdev {table}", "out", 'egress device "eth0"', _policed(target, "daddr"))
    return _inject(target, _drop(table, _policed(target, "saddr")), out)


def _clear_both(fault: str, target: Target) -> Sequence[Argv]:
    return _clear(target, *(f"{family} {_table(fault, target)}" for family in ("inet", "netdev")))


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
        clear=lambda target: _clear_both("mtu-hole", target),
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
        clear=lambda target: _clear_both("slow-link", target),
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
