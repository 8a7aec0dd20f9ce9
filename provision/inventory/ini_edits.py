"""One node's line in an ini inventory: added, changed or taken out; every other byte stays. Pure.

The lines are taken apart as Ansible's plugin `ini` does, by shlex; see `edits` for YAML.
"""

from __future__ import annotations

import ast
import re
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provision.inventory import edit_rules as rules
from provision.inventory.edit_rules import DRAINED, NodeLine, NodeLines

SECTION = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?")
_GROUP = re.compile(r"([^:\]\s]+)\s*(?:#.*)?")
_PORT = re.compile(r"([^:\[\]]+):\d+")
_WORD = re.compile(r"""(?:[^ \t\r\n'"\\#]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+""")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Word:
    """A word of a line: what shlex makes of it, and where it stands in the text."""

    value: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A line of the text: its section, and the words of a node's line or nothing.

    `kind`: hosts, children, vars; header for the section's own line, "" for a comment.
    """

    group: str
    kind: str
    content: str
    begin: int
    end: int
    words: tuple[_Word, ...] = ()


def add(
    text: str,
    name: str,
    *,
    address: str,
    slots: int | None,
    cluster_address: str | None = None,
    group: str | None = None,
) -> str:
    """As `edits.add`: behind the last line of the group's section.

    Raises:
        BadInput: the text has no such group, or the node stands there with another address.
    """
    lines = _lines(text)
    listed = nodes(text)
    if rules.is_listed(listed, name, address):
        return text
    named = {line.group for line in listed.lines}
    empty = {line.group for line in lines if line.kind == "header" and line.content == "hosts" and group}
    groups = (named | empty) & set(listed.groups)
    chosen = listed.group_for(name, group, groups)
    place = [line for line in lines if line.group == chosen and line.kind == "hosts"]
    place = place or [line for line in lines if line.group == chosen and line.content == "hosts"]
    values = rules.new_values(address, slots, cluster_address)
    new = " ".join([shlex.quote(name), *(f"{key}={_written(value)}" for key, value in values.items())])
    last = place[-1]
    indent = text[last.begin : last.words[0].begin] if last.words else ""
    before = text[: last.end]
    line_end = "\r\n" if "\r\n" in text else "\n"
    gap = "" if before.endswith("\n") else line_end
    changed = f"{before}{gap}{indent}{new}{line_end}{text[last.end :]}"
    at = lines.index(last) + 1
    return _checked(text, changed, name, at, at, (chosen, "hosts", name, values))


def replace(text: str, name: str, *, address: str, keeps_cluster_address: bool = False) -> str:
    """As `edits.replace`.

    Raises:
        BadInput: there is no such node, or it has two addresses.
    """
    known = nodes(text).one(name)
    variable = rules.replaced_variable(known.values, name, address, keeps_cluster_address)
    if variable is None:
        return text
    word = _variable(known.place, variable)
    written = text[word.begin : word.end].partition("=")[2]
    mark = written[0] if written[:1] in ("'", '"') and written.endswith(written[0]) else ""
    instead = f"{variable}={mark}{address}{mark}"
    if _read_words(instead) != [f"{variable}={address}"] or _value(address) != address:
        instead = f"{variable}={_written(address)}"
    changed = f"{text[: word.begin]}{instead}{text[word.end :]}"
    return _checked_line(text, changed, known, {**known.values, variable: address})


def remove(text: str, name: str) -> str:
    """As `edits.remove`.

    Raises:
        BadInput: it is the last node, or stands elsewhere in the text as well.
    """
    known = rules.removable(text, nodes(text), name)
    if known is None:
        return text
    changed = text[: known.place.begin] + text[known.place.end :]
    return _checked(text, changed, name, known.number - 1, known.number, None)


def drain(text: str, name: str) -> str:
    """As `edits.drain`.

    Raises:
        BadInput: there is no such node, or no other would be left.
    """
    if not rules.takes_jobs(nodes(text), name):
        return text
    cleared = undrain(text, name)
    known = nodes(cleared).one(name)
    end = known.place.words[-1].end
    changed = f"{cleared[:end]} {DRAINED}={_written(True)}{cleared[end:]}"
    return _checked_line(cleared, changed, known, {**known.values, DRAINED: True})


def undrain(text: str, name: str) -> str:
    """As `edits.undrain`.

    Raises:
        BadInput: there is no such node.
    """
    known = nodes(text).one(name)
    if DRAINED not in known.values:
        return text
    word = _variable(known.place, DRAINED)
    before = known.place.words[known.place.words.index(word) - 1]
    changed = text[: before.end] + text[word.end :]
    values = {key: value for key, value in known.values.items() if key != DRAINED}
    return _checked_line(text, changed, known, values)


def nodes(text: str) -> NodeLines[_Line]:
    """The nodes of the text, of whichever group.

    Raises:
        BadInput: it cannot be read.
    """
    lines = _lines(text)
    found = [
        NodeLine(group=line.group, name=_name(line), values=_values(line), number=number, place=line)
        for number, line in enumerate(lines, start=1)
        if line.kind == "hosts"
    ]
    return NodeLines(lines=found, groups=_below(lines))


def _lines(text: str) -> list[_Line]:
    """The text's lines as Ansible splits them, each in its section."""
    found: list[_Line] = []
    group, kind, begin = "ungrouped", "hosts", 0
    for number, whole in enumerate(text.splitlines(keepends=True), start=1):
        end, content = begin + len(whole), whole.strip()
        header = SECTION.fullmatch(content)
        if header:
            group, kind = header[1], header[2] or "hosts"
            found.append(_Line(group=group, kind="header", content=kind, begin=begin, end=end))
        elif not content or content[0] in ";#":
            found.append(_Line(group=group, kind="", content=content, begin=begin, end=end))
        else:
            start = begin + whole.index(content[0])
            words = _words(content, start, number) if kind == "hosts" else ()
            found.append(_Line(group=group, kind=kind, content=content, begin=begin, end=end, words=words))
        begin = end
    return found


def _words(content: str, start: int, number: int) -> tuple[_Word, ...]:
    """The words of a node's line and their places, refused where shlex sees others."""
    found, at = [], 0
    while at < len(content) and content[at] != "#":
        word = _WORD.match(content, at)
        if word:
            value = "".join(_read_words(word[0]))
            found.append(_Word(value=value, begin=start + at, end=start + word.end()))
            at = word.end()
        elif content[at] in " \t\r\n":
            at += 1
        else:
            raise rules.unreadable(f"line {number} has a quote that does not end")
    if not found or [word.value for word in found] != _read_words(content):
        raise rules.unreadable(f"line {number} is written in a way that cannot be taken apart safely")
    if wrong := [word.value for word in found[1:] if "=" not in word.value]:
        raise rules.unreadable(f"line {number} has {wrong[0]!r} where a node's variable=value belongs")
    return tuple(found)


def _read_words(content: str) -> list[str]:
    try:
        return shlex.split(content, comments=True)
    except ValueError as e:
        raise rules.unreadable(e) from e


def _name(line: _Line) -> str:
    """The name of a line's node, without a port."""
    with_port = _PORT.fullmatch(line.words[0].value)
    return with_port[1] if with_port else line.words[0].value


def _variable(line: _Line, variable: str) -> _Word:
    """The word that sets a variable: the last one, as Ansible takes it."""
    return next(word for word in line.words[:0:-1] if word.value.partition("=")[0] == variable)


def _values(line: _Line) -> dict[str, Any]:
    pairs = (word.value.partition("=") for word in line.words[1:])
    return {key: _value(value) for key, _, value in pairs}


def _value(written: str) -> Any:
    """What Ansible takes a value for: a literal of Python where it is one, else a text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return ast.literal_eval(written)
    except (ValueError, SyntaxError):
        return written
    except (TypeError, MemoryError, RecursionError) as e:
        raise rules.unreadable(f"a value that Python does not know: {e}") from e


def _written(value: object) -> str:
    """A value as it is read again: quoted where it would be taken for something else."""
    if isinstance(value, str) and _value(value) == value:
        return shlex.quote(value)
    literal = repr(value)
    return f'"{literal}"' if literal.startswith("'") and not {*'"\\'} & {*literal} else shlex.quote(literal)


def _below(lines: Sequence[_Line]) -> set[str]:
    children: dict[str, set[str]] = {}
    for line in lines:
        child = _GROUP.fullmatch(line.content) if line.kind == "children" else None
        if child:
            children.setdefault(line.group, set()).add(child[1])
    return rules.groups_below(children)


_Read = tuple[object, ...]


def _read(lines: Sequence[_Line]) -> list[_Read]:
    """What each line says, wherever it stands."""
    return [
        (line.group, line.kind, line.words[0].value, _values(line))
        if line.words
        else (line.group, line.kind, line.content)
        for line in lines
    ]


def _checked_line(text: str, changed: str, known: NodeLine[_Line], values: Mapping[str, Any]) -> str:
    written = (known.group, "hosts", known.place.words[0].value, values)
    return _checked(text, changed, known.name, known.number - 1, known.number, written)


def _checked(text: str, changed: str, name: str, begin: int, end: int, instead: _Read | None) -> str:
    """`changed`, once it says line by line what the text did, and between two lines what was wanted.

    Raises:
        BadInput: it does not.
    """
    wanted = _read(_lines(text))
    wanted[begin:end] = [instead] if instead else []
    if _read(_lines(changed)) != wanted:
        raise rules.not_safe(name)
    return changed
