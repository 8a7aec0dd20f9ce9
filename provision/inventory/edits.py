"""One node's line in a hosts.yml: added, changed or taken out; every other byte stays. Pure.

A parser says where things stand, and the text is cut there: comments, order and quoting are the person's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from provision.errors import BadInput

DRAINED = "cluster_drained"
_ADDRESSES = ("ansible_host", "cluster_address")
_Entry = tuple[yaml.Node, Any]
_BARE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def add(text: str, name: str, *, address: str, slots: int | None, cluster_address: str | None = None) -> str:
    """The text with a line for a new node after the last one.

    Args:
        cluster_address: its address among the nodes, where that is another one.

    Raises:
        BadInput: the text has no such list, or the node stands there with another address.
    """
    hosts = _hosts(text, name)
    known = _find(hosts, name)
    if known is not None:
        if (has := _address_of(known[1], name)) == address:
            return text
        raise BadInput(
            f"add node {name} at {address}",
            found=f"it is in the inventory already, at {has}",
            fix=f"provision node replace {name} --address {address}",
        )
    values: dict[str, Any] = {"ansible_host": address}
    if cluster_address is not None:
        values["cluster_address"] = cluster_address
    if slots is not None:
        values["cluster_slots"] = slots
    line = f"{_quoted(name)}: {{{', '.join(f'{key}: {value}' for key, value in values.items())}}}"
    changed = _after(text, hosts, line)
    return _checked(text, changed, name, values)


def replace(text: str, name: str, *, address: str, keeps_cluster_address: bool = False) -> str:
    """The text with another address for a node, in the quotes of the old one.

    Args:
        keeps_cluster_address: only its ansible_host changes, as where the other is one of a mesh.

    Raises:
        BadInput: there is no such node, or it has two addresses.
    """
    known = _known(text, name)
    wanted = _ADDRESSES[:1] if keeps_cluster_address else _ADDRESSES
    found = {key.value: value for key, value in _entries(known[1]) if key.value in wanted}
    if found and all(value.value == address for value in found.values()):
        return text
    if len(found) != 1:
        raise BadInput(
            f"give node {name} the address {address}",
            found="it has ansible_host and cluster_address" if found else "its line has no address",
            fix="Where only its ansible_host is another one, as with a mesh: --keep-cluster-address; "
            "else write its line by hand, then run this command again with its ansible_host.",
        )
    (variable, value), *_ = found.items()
    mark = value.style if value.style in ("'", '"') else ""
    changed = _cut(text, value.start_mark.index, value.end_mark.index, f"{mark}{address}{mark}")
    return _checked(text, changed, name, {**_values(known[1]), variable: address})


def remove(text: str, name: str) -> str:
    """The text without the node's lines.

    Raises:
        BadInput: it is the last node, or stands elsewhere in the text as well.
    """
    if name not in _hosts_in(text):
        return text
    hosts = _hosts(text, name)
    known = _find(hosts, name)
    assert known is not None
    if len(_hosts_in(text)) == 1:
        raise BadInput(
            f"remove node {name}",
            found="it is the only one of the cluster",
            fix="ansible-playbook playbooks/teardown.yml takes everything off it.",
        )
    if others := [line for line in _lines_naming(text, name) if line != known[0].start_mark.line + 1]:
        raise BadInput(
            f"remove node {name}",
            found=f"line {', '.join(map(str, others))} of hosts.yml names it as well",
            fix="Take it out there first.",
        )
    changed = _without_entry(text, hosts, known)
    return _checked(text, changed, name, None)


def drain(text: str, name: str) -> str:
    """The text in which the node is marked as one that takes no new jobs.

    Raises:
        BadInput: there is no such node, or no other would be left.
    """
    _known(text, name)
    hosts = _hosts_in(text)
    if hosts[name].get(DRAINED) is True:
        return text
    if all(values.get(DRAINED) is True for other, values in hosts.items() if other != name):
        raise BadInput(
            f"drain node {name}",
            found="no other node would take jobs",
            fix="Take one back first: provision node undrain NODE",
        )
    cleared = undrain(text, name)
    return _checked(text, _marked(cleared, name), name, {**_values(_known(cleared, name)[1]), DRAINED: True})


def undrain(text: str, name: str) -> str:
    """The text in which the node takes jobs again.

    Raises:
        BadInput: there is no such node.
    """
    known = _known(text, name)
    entries = list(_entries(known[1]))
    at = next((number for number, (key, _) in enumerate(entries) if key.value == DRAINED), None)
    if at is None:
        return text
    values = {key: value for key, value in _values(known[1]).items() if key != DRAINED}
    return _checked(text, _without_value(text, known[1], entries, at), name, values)


class _Constructor(yaml.constructor.SafeConstructor):
    """What only Ansible can read, as `!vault`, is compared as it is written."""


_Constructor.add_constructor(None, lambda _, node: (node.tag, yaml.serialize(node)))


def _unreadable(found: object) -> BadInput:
    return BadInput("read hosts.yml", found=str(found), fix="Correct it, then run the command again.")


def _lists(text: str) -> list[yaml.MappingNode]:
    """The mappings `hosts` of the group `cluster` and of those that it is made of, wherever they stand."""
    try:
        root = yaml.compose(text)
    except (yaml.YAMLError, RecursionError) as e:
        raise _unreadable(e) from e
    groups = list(_groups(root, set()))
    inside = {"cluster"}
    pairs = [(name, str(key.value)) for name, _, own in groups for key, _ in own]
    while more := {child for name, child in pairs if name in inside} - inside:
        inside |= more
    found = [hosts for name, hosts, _ in groups if name in inside and hosts is not None]
    filled = [hosts for hosts in found if isinstance(hosts, yaml.MappingNode) and hosts.value]
    if not filled:
        raise BadInput(
            "find the nodes in hosts.yml",
            found=f"{len(found)} lists `hosts` below `cluster`, and one that is not empty is needed",
            fix="Write the nodes as inventory/example/hosts.yml does.",
        )
    return filled


def _hosts(text: str, name: str) -> yaml.MappingNode:
    """The list that has this node, or the only one."""
    lists = _lists(text)
    found = [hosts for hosts in lists if _find(hosts, name) is not None] or lists
    if len(found) != 1:
        raise BadInput(
            f"find the line of {name} in hosts.yml",
            found=f"it can be in each of {len(found)} lists `hosts` below `cluster`",
            fix="Edit it in that group by hand, then run this command again.",
        )
    return found[0]


def _groups(
    node: yaml.Node | None, met: set[tuple[int, str]], name: str = ""
) -> Iterator[tuple[str, yaml.Node | None, list[_Entry]]]:
    """Each mapping with its `hosts` and `children`, once by a name: by an alias it is met again."""
    if (id(node), name) in met:
        return
    met.add((id(node), name))
    own = {key.value: value for key, value in _entries(node)}
    yield name, own.get("hosts"), list(_entries(own.get("children")))
    for key, value in _entries(node):
        if key.value != "hosts":
            yield from _groups(value, met, str(key.value))


def _entries(node: yaml.Node | None) -> Iterator[tuple[yaml.Node, Any]]:
    if isinstance(node, yaml.MappingNode):
        yield from node.value


def _find(hosts: yaml.MappingNode, name: str) -> _Entry | None:
    return next(((key, value) for key, value in hosts.value if key.value == name), None)


def _known(text: str, name: str) -> _Entry:
    names = [str(key.value) for hosts in _lists(text) for key, _ in hosts.value]
    found = _find(_hosts(text, name), name) if name in names else None
    if found is None:
        raise BadInput(
            f"find node {name} in hosts.yml",
            found=f"its nodes are {', '.join(names)}",
            fix="Name one of them, or add it: provision node add.",
        )
    return found


def _values(node: yaml.Node) -> dict[str, Any]:
    line = f"line {node.start_mark.line + 1}"
    try:
        found = _Constructor().construct_document(node)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as e:
        raise _unreadable(f"{line} has a value that YAML does not know: {e}") from e
    if found is not None and not isinstance(found, dict):
        raise _unreadable(f"{line} has {found!r} where a node's variables belong")
    return found or {}


def _address_of(node: yaml.Node, name: str) -> str:
    values = _values(node)
    return str(next((values[variable] for variable in _ADDRESSES if variable in values), name))


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
            raise BadInput("edit hosts.yml", found="nothing else would be left", fix="Edit it by hand.")
        begin = text.rfind("\n", 0, key.start_mark.index) + 1
        return _cut(text, begin, _line_end(text, _last_byte((key, value))))
    if at:
        return _cut(text, entries[at - 1][1].end_mark.index, value.end_mark.index)
    end = entries[1][0].start_mark.index if len(entries) > 1 else value.end_mark.index
    return _cut(text, key.start_mark.index, end)


def _marked(text: str, name: str) -> str:
    key, value = _known(text, name)
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


def _lines_naming(text: str, name: str) -> list[int]:
    """The lines, comments apart, that hold the name as a word."""
    word = re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])")
    lines = enumerate(text.splitlines(), start=1)
    return [number for number, line in lines if word.search(line.partition("#")[0])]


def _checked(text: str, changed: str, name: str, values: Mapping[str, Any] | None) -> str:
    """`changed`, once a parser has found in it what was wanted and nothing else.

    Raises:
        BadInput: the text is written in a way that cannot be edited safely.
    """
    wanted = {**_hosts_in(text), name: values}
    if values is None:
        del wanted[name]
    try:
        is_right = _hosts_in(changed) == wanted
    except (BadInput, RecursionError):  # an alias may hold itself
        is_right = False
    if not is_right:
        raise BadInput(
            f"edit the line of {name} in hosts.yml",
            found="the file is written in a way that cannot be edited safely; nothing was changed",
            fix="Edit it by hand, then run ansible-playbook playbooks/site.yml.",
        )
    return changed


def _hosts_in(text: str) -> dict[str, Any]:
    return {str(key.value): _values(value) for hosts in _lists(text) for key, value in _entries(hosts)}
