"""Whether all nodes hold the same environment, and which do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


def odd_nodes(digests: Mapping[str, str]) -> list[str]:
    """The nodes whose digest is not that of the majority, sorted; all of them where there is no majority."""
    most = Counter(digests.values()).most_common(1)
    majority = {digest for digest, count in most if count * 2 > len(digests)}
    return sorted(node for node, digest in digests.items() if digest not in majority)
