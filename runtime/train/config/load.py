"""From what was written to what is in force: read, modernised, `auto` resolved, the batch solved, checked."""

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

from pydantic import ValidationError

from runtime.train.config.auto import AUTO_SIZE, Situation, resolve_auto
from runtime.train.config.explain import Resolved, translate
from runtime.train.config.fields import reason, walk
from runtime.train.config.legacy import dotted, modernise
from runtime.train.config.mend import mend
from runtime.train.config.off import Note
from runtime.train.config.problems import ConfigError, Problem
from runtime.train.config.rules import contradictions, without_effect
from runtime.train.config.schema import Config

GLOBAL, MICRO, STEPS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
)
# A string, or one of the three kinds of comment; strings come first, so that a comment sign in one is text.
# One that has no end is text to the end of its line: else each quote in it would be tried as a beginning.
_STRING_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*+"?|//[^\n]*|#[^\n]*|/\*.*?\*/', re.DOTALL)
_STRING_OR_TRAILING_COMMA = re.compile(r'"(?:\\.|[^"\\\n])*+"?|,(?=\s*[}\]])')


def read_config(source: str | Path | Mapping[str, Any], situation: Situation) -> Resolved:
    """Reads and checks a ds_config.json.

    Args:
        source: a path, a mapping, or JSON in URL-safe base64. A mapping is not changed.

    Raises:
        ConfigError: with every problem that was found.
    """
    document = read_document(source)
    values = document.values
    sources = dict.fromkeys(_paths(values), "written")
    ignored: dict[str, str] = {}
    problems = modernise(values, sources.__setitem__, ignored.__setitem__)
    resolve_auto(values, situation, sources.__setitem__)
    problems += _solve_batch(values, situation, sources)
    config = _validate(values, problems, sources.__setitem__, ignored.__setitem__)
    if config is not None:
        problems += _refused(config)
        problems += contradictions(config)
    if problems or config is None:
        raise ConfigError(document.origin, problems)
    ignored.update(without_effect(config))
    in_force = {path for path, _, _ in walk(config)}
    return Resolved(
        origin=document.origin,
        config=config,
        sources={path: text for path, text in sources.items() if path in in_force},
        idle={
            path: text
            for path, field, _ in walk(config)
            if (text := reason(field, "idle")) and path in sources
        },
        ignored=ignored,
    )


def _paths(values: Mapping[str, Any], path: str = "") -> list[str]:
    """Dotted paths of everything that was written."""
    found = []
    for name, value in values.items():
        where = dotted(path, str(name))
        found.append(where)
        if isinstance(value, Mapping):
            found += _paths(value, where)
    return found


def _solve_batch(values: dict[str, Any], situation: Situation, sources: dict[str, str]) -> list[Problem]:
    given = {name: values.get(name) for name in (GLOBAL, MICRO, STEPS)}
    numbers = {name: _number(value) for name, value in given.items()}
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in numbers.values() if n is not None):
        return []  # the schema says what is wrong with the number itself
    try:
        batch = solve(
            total=numbers[GLOBAL],
            micro=numbers[MICRO],
            steps=numbers[STEPS],
            world_size=situation.world_size,
        )
    except DoesNotFit as e:
        autos = [name for name in (GLOBAL, MICRO) if sources.get(name) == AUTO_SIZE]
        if autos and numbers[GLOBAL] is None and numbers[MICRO] is None:
            found = f'{" and ".join(autos)}: "auto", which a Trainer fills in, and there is none'
            return [Problem(where=e.where, found=found, fix=e.fix)]
        return [Problem(where=e.where, found=e.found, fix=e.fix)]
    for name, value in ((GLOBAL, batch.total), (MICRO, batch.micro), (STEPS, batch.steps)):
        if numbers[name] is None:
            values[name] = value
            sources[name] = f"solved: total = micro x steps x {situation.world_size} ranks"
    return []


def _number(value: Any) -> Any:
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _validate(values: dict[str, Any], problems: list[Problem], note: Note, ignore: Note) -> Config | None:
    """Through JSON, where strict types are those that a ds_config.json can hold."""
    while True:
        try:
            return Config.model_validate_json(json.dumps(values))
        except ValidationError as e:
            errors = e.errors(include_url=False)
        if not mend(values, errors, note, ignore):
            break
    said = {problem.where for problem in problems}
    found = [translate(Config, error, values) for error in errors]
    problems += [problem for problem in found if problem.where not in said]
    return None


def _refused(config: Config) -> list[Problem]:
    return [
        Problem(where=path, found=f"{json.dumps(value)} is not supported", fix=f"Leave it out: {text}.")
        for path, field, value in walk(config)
        if (text := reason(field, "only")) and value != field.get_default(call_default_factory=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Samples in an optimizer step (`total`) and in a rank's micro-step (`micro`); micro-steps in a step."""

    total: int
    micro: int
    steps: int
    world_size: int


class DoesNotFit(ValueError):
    """What was written contradicts itself; `fix` names what fits."""

    def __init__(self, found: str, fix: str, *, where: str = "batch sizes") -> None:
        super().__init__(found)
        self.where, self.found, self.fix = where, found, fix


def solve(*, total: int | None, micro: int | None, steps: int | None, world_size: int) -> Batch:
    """Fills in what is missing so that total = micro * steps * world_size.

    Raises:
        DoesNotFit: too little is given, or no whole numbers satisfy the equation.
    """
    if total is None:
        if micro is None:
            raise DoesNotFit(f"neither {GLOBAL} nor {MICRO} is given", f"Write {MICRO}, for example 1.")
        steps = steps or 1
        return Batch(total=micro * steps * world_size, micro=micro, steps=steps, world_size=world_size)
    if micro is None:
        steps = steps or 1
        micro = _divide(total, steps, world_size, names=f"{STEPS} {steps}")
    elif steps is None:
        steps = _divide(total, micro, world_size, names=f"{MICRO} {micro}")
    elif total != micro * steps * world_size:
        raise DoesNotFit(
            f"{GLOBAL} {total} is not {MICRO} {micro} x {STEPS} {steps} x {world_size} ranks "
            f"(= {micro * steps * world_size})",
            f"Leave one of the three out, or write {GLOBAL} {micro * steps * world_size}.",
        )
    return Batch(total=total, micro=micro, steps=steps, world_size=world_size)


def _divide(total: int, by: int, world_size: int, *, names: str) -> int:
    unit = by * world_size
    if total % unit:
        below, above = total // unit * unit, (total // unit + 1) * unit
        nearest = f"{below} or {above}" if below else f"{above}"
        raise DoesNotFit(
            f"{GLOBAL} {total} cannot be divided by {names} x {world_size} ranks (= {unit})",
            f"Write {GLOBAL} {nearest}.",
        )
    return total // unit


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
    except DoesNotFit as e:
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
        raise DoesNotFit("it is written twice in one object", "Keep one of the two.", where=twice)
    return values


def _no_constant(name: str) -> None:
    raise DoesNotFit("it is not a number of JSON", "Write a finite number.", where=name)
