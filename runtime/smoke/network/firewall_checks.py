"""Whether strangers are kept from the ports of jobs: what each firewall holds, and what was tried. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runtime.probes.finding import Finding, of_node
from runtime.probes.job_firewall import Fence, Intrusion

IDENTITY = "sockets.strangers"
_FIX = "Run the role job_firewall; see `nft list table inet clusterwright` there."

Fences = Mapping[str, Fence]
Intrusions = Mapping[str, Intrusion]


def is_wanted(fences: Fences) -> bool:
    """Whether the role has been on any node."""
    return any(fence.wanted for fence in fences.values())


def judge_fences(
    fences: Fences,
    tried: Intrusions,
    addresses: Mapping[str, str],
    ranks: Mapping[str, tuple[int, ...]],
) -> Iterator[Finding]:
    """What speaks against nodes, where the firewall is wanted.

    Args:
        addresses: those of the tested nodes.
        ranks: those that each node holds.
    """
    for host, fence in fences.items() if is_wanted(fences) else ():
        intrusion = tried.get(host, Intrusion())
        if not fence.wanted:
            found = "it has no firewall around the ports of jobs, as others have"
        elif intrusion.reached:
            found = f"a user without rights there connects to {', '.join(intrusion.reached)}"
        elif fence.problem and not intrusion.left_out:
            found = f"its firewall does not hold: {fence.problem}"
        elif not fence.problem and (odd := _odd(fence, addresses)):
            found = f"its firewall takes other machines than the cluster's for nodes: {odd}"
        else:
            continue
        yield of_node("strangers", host, ranks[host], found, _FIX)


def _odd(fence: Fence, addresses: Mapping[str, str]) -> str:
    """The addresses by which what is live differs from what it should be."""
    wanted = {*fence.members, *addresses.values()}
    more, fewer = set(fence.nodes) - wanted, wanted - set(fence.nodes)
    parts = [f"{', '.join(sorted(more))} is none"] * bool(more)
    parts += [f"{', '.join(sorted(fewer))} is missing"] * bool(fewer)
    return "; ".join(parts)


def evidence(fences: Fences, tried: Intrusions) -> dict[str, str]:
    """What the check saw where it found nothing."""
    if not is_wanted(fences):
        return {}
    refused = sum(len(one.refused) for one in tried.values())
    admitted = {len(fence.nodes) for fence in fences.values()}
    words = (
        f"each admits {max(admitted)} addresses as nodes; a user without rights was refused {refused} times"
    )
    return {IDENTITY: words}


def not_applicable(fences: Fences, tried: Intrusions) -> dict[str, str]:
    """Why the check was not, or not everywhere, carried out."""
    if not is_wanted(fences):
        return {IDENTITY: "no firewall on any node (role job_firewall)"}
    reasons = sorted({one.left_out for one in tried.values() if one.left_out})
    silent = [host for host in fences if host not in tried]
    if silent:
        reasons.append(f"{', '.join(silent)} did not answer")
    return {IDENTITY: "; ".join(reasons)} if reasons else {}
