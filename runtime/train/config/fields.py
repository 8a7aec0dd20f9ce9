"""How a key of ds_config.json is declared: its default, what it is for, and what it means here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo


class Block(BaseModel):
    """A JSON object of the configuration: no unknown keys, no silent conversions, no infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def get(self, name: str, default: Any = None) -> Any:
        """A key's value as from the dict that the JSON object is; scripts ask `engine.config` so."""
        return getattr(self, name, default) if name in type(self).model_fields else default

    def __getitem__(self, name: str) -> Any:
        if name not in type(self).model_fields:
            raise KeyError(name)
        return getattr(self, name)


def _whole(value: object) -> object:
    """People write 5e8 for 500000000, which JSON reads as a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]


def key(default: Any, about: str, *, idle: str = "", only: str = "", **limits: Any) -> Any:
    """Declares a key.

    Args:
        idle: why the key is accepted and changes nothing here; `config explain` prints it.
        only: why no other value than the default is accepted.
        limits: passed to pydantic: gt, ge, le, min_length.
    """
    marks = {name: reason for name, reason in (("idle", idle), ("only", only)) if reason}
    return Field(default, description=about, json_schema_extra=dict(marks) or None, **limits)


def reason(field: FieldInfo, mark: str) -> str:
    """The text that a key was declared with under `mark`, or an empty string."""
    extra = field.json_schema_extra
    return str(extra.get(mark, "")) if isinstance(extra, dict) else ""


def walk(block: Block, path: str = "") -> Iterator[tuple[str, FieldInfo, Any]]:
    """Dotted path, declaration and value of every key that is not itself a block."""
    for name, field in type(block).model_fields.items():
        value = getattr(block, name)
        where = f"{path}.{name}" if path else name
        if isinstance(value, Block):
            yield from walk(value, where)
        else:
            yield where, field, value
