"""Keys that stand twice in one mapping of a YAML text, which a parser would take silently."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import yaml


def duplicate_keys(text: str) -> list[tuple[str, list[int]]]:
    """Each repeated key with its lines, counted from 1; nothing for a text that is not YAML."""
    try:
        root = yaml.compose(text)
    except (yaml.YAMLError, RecursionError):
        return []
    return [found for mapping in _mappings(root) for found in _repeated(mapping)]


def _mappings(root: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    """Each once, as they are written: by an alias a node is met again, and may hold itself."""
    waiting, met = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in met:
            continue
        met.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            waiting += [value for _, value in reversed(node.value)]
        elif isinstance(node, yaml.SequenceNode):
            waiting += reversed(node.value)


def _repeated(mapping: yaml.MappingNode) -> Iterator[tuple[str, list[int]]]:
    lines: defaultdict[str, list[int]] = defaultdict(list)
    for key, _ in mapping.value:
        lines[str(key.value)].append(key.start_mark.line + 1)
    return ((key, numbers) for key, numbers in lines.items() if len(numbers) > 1)
