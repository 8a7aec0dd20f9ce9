"""The table of names in docs/from_deepspeed.md is the one that answers.

`python -m tests.unit.runtime.as_deepspeed.test_table` prints it anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from runtime.as_deepspeed.engine import DeepSpeedEngine
from runtime.as_deepspeed.names import ENGINE_NAMES, MODULES, Absent, Names

PAGE = Path(__file__).parents[4] / "docs" / "from_deepspeed.md"
BEGIN, END = "<!-- names: begin -->", "<!-- names: end -->"


def places() -> Iterator[tuple[list[str], Names]]:
    """Modules with the same names, together."""
    found: dict[int, tuple[list[str], Names]] = {}
    for module, names in MODULES.items():
        if names:
            found.setdefault(id(names), ([], names))[0].append(
                f"deepspeed.{module}" if module else "deepspeed"
            )
    yield from found.values()


def table() -> Iterator[str]:
    yield "| module | names | |"
    yield "|---|---|---|"
    for modules, names in places():
        where = ", ".join(f"`{module}`" for module in modules)
        groups: dict[str, list[str]] = {}
        for name, answer in names.items():
            told = f"not here: {answer.why}. {answer.instead}" if isinstance(answer, Absent) else "here"
            groups.setdefault(told, []).append(name)
        for told, listed in groups.items():
            yield f"| {where} | {', '.join(f'`{name}`' for name in sorted(listed))} | {told} |"
    has = DeepSpeedEngine.names()
    for told, chosen in (("here", ENGINE_NAMES & has), ("not here", ENGINE_NAMES - has)):
        yield f"| the engine | {', '.join(f'`{name}`' for name in sorted(chosen))} | {told} |"


def test_the_page_has_the_table_that_answers() -> None:
    text = PAGE.read_text()

    assert text.partition(BEGIN)[2].partition(END)[0].strip().splitlines() == list(table())


def test_what_an_engine_answers_is_among_its_names() -> None:
    assert {"module", "optimizer", "global_steps", "backward", "global_rank"} <= DeepSpeedEngine.names()
    assert "monitor" not in DeepSpeedEngine.names()


if __name__ == "__main__":
    print("\n".join(table()))
