"""A configuration in words: what is in force, where it came from, what is wrong; and as a JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from runtime.train.config.fields import walk
from runtime.train.config.legacy import RENAMED
from runtime.train.config.problems import Problem, did_you_mean
from runtime.train.config.schema import Config
from runtime.train.config.training import ELSEWHERE


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A configuration in force.

    `sources` says for each dotted key that was not left at its default where its value came from;
    `idle` says for each key that was written and changes nothing here why that is so; `ignored` says so of
    what was left out whole: features that are off, other programs' settings.
    """

    origin: str
    config: Config
    sources: Mapping[str, str]
    idle: Mapping[str, str]
    ignored: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One key in force; `note` says why it changes nothing here, where that is so."""

    key: str
    value: Any
    source: str
    note: str


def rows(resolved: Resolved, *, every: bool = False) -> list[Row]:
    """The keys that were written, solved or resolved, in the schema's order; `every` adds the defaults."""
    found = []
    for path, _, value in walk(resolved.config):
        source = resolved.sources.get(path, "default")
        if every or source != "default":
            found.append(Row(key=path, value=value, source=source, note=resolved.idle.get(path, "")))
    left_out = [
        Row(key=path, value=None, source="left out", note=why) for path, why in resolved.ignored.items()
    ]
    return found + left_out


def in_json(value: Any) -> str:
    """A value as it would be written in a ds_config.json."""
    return json.dumps(value)


def json_schema() -> dict[str, Any]:
    """JSON Schema of a ds_config.json, with the other names that are accepted and "auto"."""
    schema = Config.model_json_schema()
    for (block, old), new in RENAMED.items():
        properties = _properties(schema, block)
        if properties is not None and new in properties:
            properties[old] = {**properties[new], "deprecated": True, "description": f"Other name of {new}."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ds_config.json",
        **_with_auto(schema),
    }


def _properties(schema: dict[str, Any], block: str) -> dict[str, Any] | None:
    found: dict[str, Any] = schema
    for part in block.split(".") if block else ():
        entry = found["properties"].get(part, {})
        name = entry.get("$ref", "").rpartition("/")[2]
        if name not in schema["$defs"]:
            return None
        found = schema["$defs"][name]
    properties: dict[str, Any] = found["properties"]
    return properties


def _with_auto(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Lets keys be "auto"; blocks may not."""
    changed: dict[str, Any] = json.loads(json.dumps(schema))
    for owner in (changed, *changed["$defs"].values()):
        for name, entry in owner.get("properties", {}).items():
            if "$ref" not in json.dumps(entry) and name != "type":
                description = entry.pop("description", "")
                owner["properties"][name] = {"anyOf": [entry, {"const": "auto"}], "description": description}
    return changed


def translate(root: type[BaseModel], error: ErrorDetails, values: Mapping[str, Any]) -> Problem:
    """One error of pydantic as a problem that names the key and the way out."""
    keys, block = follow(root, error["loc"], values)
    where = ".".join(str(part) for part in keys) or "the document"
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        known = set(block.model_fields) | {
            old for path, old in RENAMED if path == ".".join(map(str, keys[:-1]))
        }
        belongs = homes(str(keys[-1])) if block is root else []
        fix = f"It belongs in {belongs[0]}." if belongs else did_you_mean(str(keys[-1]), known)
        return Problem(where=where, found="unknown key", fix=fix)
    if kind == "union_tag_invalid":
        known = {tag.strip("' ") for tag in context["expected_tags"].split(",")}
        if where == "optimizer" and context["tag"].lower() in ELSEWHERE:
            return Problem(
                where="optimizer.type",
                found=f"{context['tag']} is not implemented here",
                fix="Write AdamW, or pass one that you have made to runtime.initialize(optimizer=...).",
            )
        fix = did_you_mean(str(context["tag"]), known) + " " + _own_object(where)
        return Problem(where=f"{where}.type", found=f"unknown type {context['tag']!r}", fix=fix)
    if kind == "union_tag_not_found":
        return Problem(where=f"{where}.type", found="it is missing", fix='Write "type", for example "AdamW".')
    if kind == "missing":
        return Problem(where=where, found="it is missing", fix="Write it; there is no default.")
    return Problem(where=where, found=f"{_shown(error['input'])} is not {_wanted(error)}", fix=_advice(error))


def _own_object(where: str) -> str:
    name = "optimizer" if where == "optimizer" else "lr_scheduler"
    return f"Another one is passed to runtime.initialize({name}=...)."


def follow(
    root: type[BaseModel], loc: tuple[int | str, ...], values: Mapping[str, Any]
) -> tuple[list[int | str], type[BaseModel]]:
    """The keys of a location without the tags of unions, and the innermost block on the way."""
    keys: list[int | str] = []
    block, choices = root, [root]
    for part in loc:
        tagged = [c for c in choices if _tag_matches(c, part)] if len(choices) > 1 else []
        if tagged:
            block, choices = tagged[0], tagged
            continue
        if not keys or isinstance(part, int) or _exists(values, [*keys, part]) or part in block.model_fields:
            keys.append(part)
        field = block.model_fields.get(str(part))
        choices = _blocks(field.annotation) if field is not None else []
        if len(choices) == 1:
            block = choices[0]
    return keys, block


def _exists(values: Any, keys: list[int | str]) -> bool:
    for part in keys:
        if not (isinstance(values, Mapping) and part in values):
            return False
        values = values[part]
    return True


def homes(name: str) -> list[str]:
    """The blocks at the top that have a key of this name."""
    return [one for one, field in Config.model_fields.items() if _has(field.annotation, name)]


def _has(annotation: Any, name: str) -> bool:
    blocks = _blocks(annotation)
    return len(blocks) == 1 and name in blocks[0].model_fields and name != "enabled"


def _tag_matches(block: type[BaseModel], part: int | str) -> bool:
    field = block.model_fields.get("type")
    return field is not None and part in get_args(field.annotation)


def _blocks(annotation: Any) -> list[type[BaseModel]]:
    """The blocks that a type allows, through Annotated and unions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is None:
        return []
    arguments = get_args(annotation)
    if get_origin(annotation) in (Union, type(int | str)):
        return [block for argument in arguments for block in _blocks(argument)]
    return _blocks(arguments[0]) if hasattr(annotation, "__metadata__") else []


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "dict_type": "an object",
    "list_type": "a list",
    "tuple_type": "a list",
    "finite_number": "a finite number",
    "none_required": "null",
}
_BOUNDS = {
    "greater_than": "greater than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "one of {expected}",
}


def _wanted(error: ErrorDetails) -> str:
    if error["type"] in _BOUNDS:
        return _BOUNDS[error["type"]].format(**error.get("ctx", {})).replace("'", '"').replace(" or ", ", ")
    return _KINDS.get(error["type"], f"what is expected ({error['msg']})")


def _advice(error: ErrorDetails) -> str:
    value = error["input"]
    if isinstance(value, str) and error["type"] in ("int_type", "float_type", "bool_type", "literal_error"):
        try:
            return f"Write {json.dumps(json.loads(value.lower()))}, without quotes."
        except ValueError:
            pass
    return f"Write {_wanted(error)}."
