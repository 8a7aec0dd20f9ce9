"""From what a person hands over (a path, a dict, base64) to a JSON object; comments yes, duplicates no."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.train.config.problems import ConfigError, Problem

# A string, or one of the three kinds of comment; strings come first, so that a comment sign in one is text.
# One that has no end is text to the end of its line: else each quote in it would be tried as a beginning.
_STRING_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*+"?|//[^\n]*|#[^\n]*|/\*.*?\*/', re.DOTALL)
_STRING_OR_TRAILING_COMMA = re.compile(r'"(?:\\.|[^"\\\n])*+"?|,(?=\s*[}\]])')


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A configuration as it was written; `origin` is how to call it in a message."""

    origin: str
    values: dict[str, Any]


def read_document(source: str | Path | Mapping[str, Any]) -> Document:
    """Reads a path, a mapping, or JSON in URL-safe base64 (as the Hugging Face integrations pass it).

    Raises:
        ConfigError: there is no such file, it is not a JSON object, a key is written twice.
    """
    if isinstance(source, Mapping):
        return Document(origin="the configuration", values=_plain(source))
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as e:
        decoded = _from_base64(str(source))
        if decoded is None:
            raise _fault(str(source), "the file", _why(e), "Give the path of a ds_config.json.") from e
        return Document(origin="the configuration in base64", values=parse(decoded, "base64"))
    return Document(origin=str(path), values=parse(text, str(path)))


def parse(text: str, origin: str) -> dict[str, Any]:
    """Reads one JSON object; `//`, `#` and `/* */` comments and trailing commas are allowed."""
    plain = _STRING_OR_COMMENT.sub(_blank_comment, text)
    plain = _STRING_OR_TRAILING_COMMA.sub(lambda m: " " if m[0] == "," else m[0], plain)
    try:
        values = json.loads(plain, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as e:
        raise _fault(origin, f"line {e.lineno}, column {e.colno}", e.msg, "Correct the JSON there.") from e
    except _NotAllowed as e:
        raise _fault(origin, e.where, e.found, e.fix) from e
    except RecursionError as e:
        raise _fault(origin, "the document", "it is nested too deeply", "Write it flat.") from e
    except ValueError as e:
        raise _fault(origin, "the document", "it has a number of thousands of digits", "Correct it.") from e
    if not isinstance(values, dict):
        raise _fault(
            origin, "the document", f"it is a {type(values).__name__}", "Write one JSON object, { ... }."
        )
    return values


class _NotAllowed(ValueError):
    def __init__(self, where: str, found: str, fix: str) -> None:
        super().__init__(where)
        self.where, self.found, self.fix = where, found, fix


def _fault(origin: str, where: str, found: str, fix: str) -> ConfigError:
    return ConfigError(origin, [Problem(where=where, found=found, fix=fix)])


def _why(error: OSError | ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not text in UTF-8"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _from_base64(text: str) -> str | None:
    try:
        return base64.b64decode(text, altchars=b"-_", validate=True).decode() if len(text) > 8 else None
    except (binascii.Error, ValueError):
        return None


def _plain(source: Mapping[str, Any]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(source))
    except (TypeError, ValueError, RecursionError) as e:
        fix = "Use numbers, strings, booleans, lists and dicts only."
        raise _fault("the configuration", "the dict", f"it cannot be written as JSON ({e})", fix) from e
    return plain


def _blank_comment(match: re.Match[str]) -> str:
    """Spaces in place of a comment, so that lines and columns in messages stay right."""
    found = match[0]
    return found if found.startswith('"') else re.sub(r"[^\n]", " ", found)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = Counter(names).most_common(1)[0][0]
        raise _NotAllowed(twice, "it is written twice in one object", "Keep one of the two.")
    return values


def _no_constant(name: str) -> None:
    raise _NotAllowed(name, "it is not a number of JSON", "Write a finite number.")
