"""From what was written to what is in force: modernise, resolve `auto`, solve the batch, validate, check."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runtime.train.config.auto import Situation, resolve_auto
from runtime.train.config.batch import GLOBAL, MICRO, STEPS, DoesNotFit, solve
from runtime.train.config.document import read_document
from runtime.train.config.explain_errors import translate
from runtime.train.config.fields import reason, walk
from runtime.train.config.legacy import dotted, modernise
from runtime.train.config.problems import ConfigError, Problem
from runtime.train.config.rules import contradictions
from runtime.train.config.schema import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A configuration in force.

    `sources` says for each dotted key that was not left at its default where its value came from;
    `idle` says for each key that was written and changes nothing here why that is so.
    """

    origin: str
    config: Config
    sources: Mapping[str, str]
    idle: Mapping[str, str]


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
    problems = modernise(values, sources.__setitem__)
    problems += resolve_auto(values, situation, sources.__setitem__)
    problems += _solve_batch(values, situation, sources)
    config = _validate(values, problems)
    if config is not None:
        problems += _refused(config)
        problems += contradictions(config)
    if problems or config is None:
        raise ConfigError(document.origin, problems)
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
    numbers = {name: int(value) if isinstance(value, float) else value for name, value in given.items()}
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
        return [Problem(where="batch sizes", found=e.found, fix=e.fix)]
    for name, value in ((GLOBAL, batch.total), (MICRO, batch.micro), (STEPS, batch.steps)):
        if numbers[name] is None:
            values[name] = value
            sources[name] = f"solved: total = micro x steps x {situation.world_size} ranks"
    return []


def _validate(values: dict[str, Any], problems: list[Problem]) -> Config | None:
    """Through JSON, where strict types are those that a ds_config.json can hold."""
    try:
        return Config.model_validate_json(json.dumps(values))
    except ValidationError as e:
        said = {problem.where for problem in problems}
        found = [translate(Config, error, values) for error in e.errors(include_url=False)]
        problems += [problem for problem in found if problem.where not in said]
        return None


def _refused(config: Config) -> list[Problem]:
    return [
        Problem(where=path, found=f"{json.dumps(value)} is not supported", fix=f"Leave it out: {text}.")
        for path, field, value in walk(config)
        if (text := reason(field, "only")) and value != field.get_default(call_default_factory=True)
    ]
