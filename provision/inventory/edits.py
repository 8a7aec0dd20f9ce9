"""One node's line in a YAML inventory: added, changed or taken out; every other byte stays. Pure.

A parser says where things stand, and the text is cut there: comments, order and quoting are the person's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from provision.errors import BadInput
from provision.inventory import edit_rules as rules
from provision.inventory.edit_rules import DRAINED, NodeLine, NodeLines

_BARE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


_Entry = tuple[yaml.Node, Any]
_Place = tuple[yaml.Node, Any, yaml.MappingNode]
"""A node's key and value, and the list in which it stands."""


def add(
    text: str,
    name: str,
    *,
    address: str,
    slots: int | None,
    cluster_address: str | None = None,
    group: str | None = None,
) -> str:
    """The text with a line for a new node after the last one.

    Args:
        cluster_address: its address among the nodes, where that is another one.
        group: which of the cluster's groups takes it, where several list nodes.

    Raises:
        BadInput: the text has no such list, or the node stands there with another address.
    """
    listed = nodes(text)
    if rules.is_listed(listed, name, address):
        return text
    lists = [one for one in _lists(text) if one[0] in listed.groups]
    chosen = listed.group_for(name, group, {one[0] for one in lists})
    found = [hosts for one, hosts in lists if one == chosen]
    if len(found) != 1:
        raise rules.not_safe(name)
    values = rules.new_values(address, slots, cluster_address)
    line = f"{_quoted(name)}: {{{', '.join(f'{key}: {value}' for key, value in values.items())}}}"
    changed = _after(text, found[0], line)
    return _checked(text, changed, name, values, in_list=_number(found[0]))


def replace(text: str, name: str, *, address: str, keeps_cluster_address: bool = False) -> str:
    """The text with another address for a node, in the quotes of the old one.

    Args:
        keeps_cluster_address: only its ansible_host changes, as where the other is one of a mesh.

    Raises:
        BadInput: there is no such node, or it has two addresses.
    """
    known = nodes(text).one(name)
    variable = rules.replaced_variable(known.values, name, address, keeps_cluster_address)
    if variable is None:
        return text
    value = next((value for key, value in _entries(known.place[1]) if key.value == variable), None)
    if not isinstance(value, yaml.ScalarNode):
        raise rules.not_safe(name)
    mark = value.style if value.style in ("'", '"') else ""
    changed = _cut(text, value.start_mark.index, value.end_mark.index, f"{mark}{address}{mark}")
    return _checked(text, changed, name, {**known.values, variable: address}, in_list=_number(known.place[2]))


def remove(text: str, name: str) -> str:
    """The text without the node's lines.

    Raises:
        BadInput: it is the last node, or stands elsewhere in the text as well.
    """
    known = rules.removable(text, nodes(text), name)
    if known is None:
        return text
    key, value, hosts = known.place
    changed = _without_entry(text, hosts, (key, value))
    return _checked(text, changed, name, None, in_list=_number(hosts))


def drain(text: str, name: str) -> str:
    """The text in which the node is marked as one that takes no new jobs.

    Raises:
        BadInput: there is no such node, or no other would be left.
    """
    if not rules.takes_jobs(nodes(text), name):
        return text
    cleared = undrain(text, name)
    known = nodes(cleared).one(name)
    changed = _marked(cleared, known.place)
    return _checked(text, changed, name, {**known.values, DRAINED: True}, in_list=_number(known.place[2]))


def undrain(text: str, name: str) -> str:
    """The text in which the node takes jobs again.

    Raises:
        BadInput: there is no such node.
    """
    known = nodes(text).one(name)
    entries = list(_entries(known.place[1]))
    at = next((number for number, (key, _) in enumerate(entries) if key.value == DRAINED), None)
    if at is None:
        return text
    values = {key: value for key, value in known.values.items() if key != DRAINED}
    changed = _without_value(text, known.place[1], entries, at)
    return _checked(text, changed, name, values, in_list=_number(known.place[2]))


def nodes(text: str) -> NodeLines[_Place]:
    """The nodes of the text, of whichever group.

    Raises:
        BadInput: it cannot be read.
    """
    lines = [
        NodeLine(
            group=group,
            name=str(key.value),
            values=_values(value),
            number=key.start_mark.line + 1,
            place=(key, value, hosts),
        )
        for group, hosts in _lists(text)
        for key, value in hosts.value
    ]
    return NodeLines(lines=lines, groups=_below(text))


class _Constructor(yaml.constructor.SafeConstructor):
    """What only Ansible can read, as `!vault`, is compared as it is written."""


_Constructor.add_constructor(None, lambda _, node: (node.tag, yaml.serialize(node)))


def _lists(text: str) -> list[tuple[str, yaml.MappingNode]]:
    """Each mapping `hosts` that is not empty, with its group."""
    return [
        (name, value)
        for name, group in _groups(text)
        for key, value in _entries(group)
        if key.value == "hosts" and isinstance(value, yaml.MappingNode) and value.value
    ]


def _below(text: str) -> set[str]:
    """The group `cluster` and those below it: what is said of a group holds wherever it is named."""
    children: dict[str, set[str]] = {}
    for name, group in _groups(text):
        under = (value for key, value in _entries(group) if key.value == "children")
        children.setdefault(name, set()).update(str(key.value) for one in under for key, _ in _entries(one))
    return rules.groups_below(children)


def _groups(text: str) -> list[tuple[str, yaml.Node]]:
    """Each group by its name, once for each place where it is written."""
    try:
        root = yaml.compose(text)
    except (yaml.YAMLError, RecursionError) as e:
        raise rules.unreadable(e) from e
    found: dict[tuple[int, str], yaml.Node] = {}
    waiting = list(_entries(root))[::-1]
    while waiting:
        key, group = waiting.pop()
        if (id(group), str(key.value)) in found:  # by an alias one is met again, and may hold itself
            continue
        found[id(group), str(key.value)] = group
        for word, value in _entries(group):
            if word.value == "children":
                waiting.extend(list(_entries(value))[::-1])
    return [(name, group) for (_, name), group in found.items()]


def _number(hosts: yaml.MappingNode) -> int:
    """The byte at which a list begins, by which it is known: the edits of one node lie behind it."""
    number: int = hosts.start_mark.index
    return number


def _entries(node: yaml.Node | None) -> Iterator[tuple[yaml.Node, Any]]:
    if isinstance(node, yaml.MappingNode):
        yield from node.value


def _values(node: yaml.Node) -> dict[str, Any]:
    line = f"line {node.start_mark.line + 1}"
    try:
        found = _Constructor().construct_document(node)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as e:
        raise rules.unreadable(f"{line} has a value that YAML does not know: {e}") from e
    if found is not None and not isinstance(found, dict):
        raise rules.unreadable(f"{line} has {found!r} where a node's variables belong")
    return found or {}


def _quoted(name: str) -> str:
    return name if _BARE.fullmatch(name) and isinstance(yaml.safe_load(name), str) else f'"{name}"'


def _cut(text: str, start: int, end: int, instead: str = "") -> str:
    return text[:start] + instead + text[end:]


def _line_end(text: str, index: int) -> int:
    """Where the next line begins."""
    found = text.find("\n", index)
    return len(text) if found < 0 else found + 1


def _after(text: str, hosts: yaml.MappingNode, line: str) -> str:
    last = hosts.value[-1]
    if hosts.flow_style:
        end = last[1].end_mark.index
        return _cut(text, end, end, f", {line}")
    at = _line_end(text, _last_byte(last))
    before = "" if text[:at].endswith("\n") else "\n"
    return _cut(text, at, at, f"{before}{' ' * last[0].start_mark.column}{line}\n")


def _last_byte(entry: _Entry) -> int:
    """The last byte of an entry. A block's own end mark lies behind comments that follow it."""
    key, value = entry
    inner = list(_entries(value))
    if inner and not value.flow_style:
        return _last_byte(inner[-1])
    last: int = max(key.end_mark.index, value.end_mark.index - 1)
    return last


def _without_entry(text: str, hosts: yaml.MappingNode, entry: _Entry) -> str:
    if hosts.flow_style:
        return _without_value(text, hosts, hosts.value, hosts.value.index(entry))
    begin = text.rfind("\n", 0, entry[0].start_mark.index) + 1
    return _cut(text, begin, _line_end(text, _last_byte(entry)))


def _without_value(text: str, mapping: yaml.MappingNode, entries: list[_Entry], at: int) -> str:
    """One entry of a mapping taken out, with the comma that belongs to it."""
    key, value = entries[at]
    if not mapping.flow_style:
        if len(entries) == 1:
            raise BadInput("edit the inventory", found="nothing else would be left", fix="Edit it by hand.")
        begin = text.rfind("\n", 0, key.start_mark.index) + 1
        return _cut(text, begin, _line_end(text, _last_byte((key, value))))
    if at:
        return _cut(text, entries[at - 1][1].end_mark.index, value.end_mark.index)
    end = entries[1][0].start_mark.index if len(entries) > 1 else value.end_mark.index
    return _cut(text, key.start_mark.index, end)


def _marked(text: str, place: _Place) -> str:
    key, value, _ = place
    entries = list(_entries(value))
    words = f"{DRAINED}: true"
    if not entries:
        end = value.end_mark.index
        if isinstance(value, yaml.MappingNode):
            return _cut(text, value.start_mark.index, end, f"{{{words}}}")
        colon = text.index(":", key.end_mark.index) + 1
        return _cut(text, colon, max(colon, end), f" {{{words}}}")
    if value.flow_style:
        end = entries[-1][1].end_mark.index
        return _cut(text, end, end, f", {words}")
    at = _line_end(text, _last_byte(entries[-1]))
    before = "" if text[:at].endswith("\n") else "\n"
    return _cut(text, at, at, f"{before}{' ' * entries[-1][0].start_mark.column}{words}\n")


def _checked(text: str, changed: str, name: str, values: Mapping[str, Any] | None, *, in_list: int) -> str:
    """`changed`, once a parser has found in it what was wanted and nothing else.

    Args:
        in_list: the list that was edited.

    Raises:
        BadInput: the text is written in a way that cannot be edited safely.
    """
    wanted, is_met = [], False
    for group, hosts in _lists(text):
        found = _hosts_in(hosts)
        if _number(hosts) == in_list and not is_met:  # by an alias it would be the list of two groups
            is_met = True
            found[name] = values
            if values is None:
                del found[name]
        if found:
            wanted.append((group, found))
    try:
        is_right = [(group, _hosts_in(hosts)) for group, hosts in _lists(changed)] == wanted
    except (BadInput, RecursionError):  # an alias may hold itself
        is_right = False
    if not is_right:
        raise rules.not_safe(name)
    return changed


def _hosts_in(hosts: yaml.MappingNode) -> dict[str, Any]:
    return {str(key.value): _values(value) for key, value in hosts.value}
