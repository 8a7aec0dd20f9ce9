"""What is in force, where it came from, and a JSON Schema for editors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime.train.config.auto import ANSWERS
from runtime.train.config.fields import walk
from runtime.train.config.legacy import RENAMED
from runtime.train.config.load import Resolved
from runtime.train.config.schema import Config


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
    return found


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
    """Lets the keys that may be "auto" be so."""
    changed: dict[str, Any] = json.loads(json.dumps(schema))
    names = {path.rpartition(".")[2] for path in ANSWERS} - {"enabled"}
    for owner in (changed, *changed["$defs"].values()):
        for name, entry in owner.get("properties", {}).items():
            if name in names:
                description = entry.pop("description", "")
                owner["properties"][name] = {"anyOf": [entry, {"const": "auto"}], "description": description}
    return changed
