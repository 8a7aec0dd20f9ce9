"""Programs of several files that a node runs from one text."""

from __future__ import annotations

import json


def with_module(program: str, name: str, module: str) -> str:
    """One text of Python: the program, which finds `module` when it imports `name`."""
    return "\n".join(
        (
            "import sys, types",
            f"sys.modules[{name!r}] = types.ModuleType({name!r})",
            f"exec({json.dumps(module)}, sys.modules[{name!r}].__dict__)",
            f"exec({json.dumps(program)})",
            "",
        )
    )
