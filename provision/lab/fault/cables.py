"""Faults of a node's cable: down, or slow in one direction or both."""

from __future__ import annotations

from collections.abc import Sequence

from provision.lab.fault.model import Fault, Named, Part, Target
from provision.lab.shape import Argv, Shape, limit, unlimit

_RATE = "[1-9][0-9]{0,8}[kmg]?bit"


def _slow(target: Target, shape: Shape) -> list[Argv]:
    return limit(target.node, pid=target.keeper, shape=shape)


def _as_asked(target: Target, slow: Shape) -> list[Argv]:
    """Takes the ends that `slow` limits back to the limits that a person asked for, if any.

    tc refuses to delete what is not there; so the limit is laid again before it is deleted.
    """
    ends = zip((slow.ingress, slow.egress), unlimit(target.node, pid=target.keeper), strict=True)
    freed = [words for rate, words in ends if rate]
    asked = Shape(
        ingress=target.shape.ingress if slow.ingress else None,
        egress=target.shape.egress if slow.egress else None,
    )
    return [*_slow(target, slow), *freed, *_slow(target, asked)]


def _send(target: Target) -> Shape:
    return Shape(egress=target.value)


def _receive(target: Target) -> Shape:
    return Shape(ingress=target.value)


def _both(target: Target) -> Shape:
    return Shape(ingress=target.value, egress=target.value)


def _link(target: Target, state: str) -> Sequence[Argv]:
    return [("ip", "link", "set", "dev", target.node.link, state)]


FAULTS = (
    Fault(
        name="link-down",
        what="the node's cable is pulled: it has no carrier, and no ssh reaches it",
        named=Named(
            part=Part.node, cause="unreachable|no answer|does not answer|not been heard|cannot be reached"
        ),
        inject=lambda target: _link(target, "down"),
        clear=lambda target: _link(target, "up"),
    ),
    Fault(
        name="slow-send",
        what="what the node sends is limited to a rate; what it receives is not",
        named=Named(part=Part.send, cause="send|transmit|egress|outgoing"),
        inject=lambda target: _slow(target, _send(target)),
        clear=lambda target: _as_asked(target, _send(target)),
        default="50mbit",
        value_pattern=_RATE,
        holds=frozenset({"egress"}),
    ),
    Fault(
        name="slow-receive",
        what="what the node receives is limited to a rate; what it sends is not",
        named=Named(part=Part.receive, cause="receiv|ingress|incoming"),
        inject=lambda target: _slow(target, _receive(target)),
        clear=lambda target: _as_asked(target, _receive(target)),
        default="50mbit",
        value_pattern=_RATE,
        holds=frozenset({"ingress"}),
    ),
    Fault(
        name="slow-both",
        what="the node's cable is limited to a rate in both directions",
        named=Named(part=Part.node, cause="slow|bandwidth|MB/s|Mbit/s"),
        inject=lambda target: _slow(target, _both(target)),
        clear=lambda target: _as_asked(target, _both(target)),
        default="50mbit",
        value_pattern=_RATE,
        holds=frozenset({"ingress", "egress"}),
    ),
)
