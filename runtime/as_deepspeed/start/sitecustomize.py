"""What Python imports as it starts where this folder is on PYTHONPATH; then another one's, if there is one.

https://docs.python.org/3/library/site.html#module-sitecustomize
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_PACKAGES = str(_HERE.parents[2])


def _other() -> None:
    """Debian and sites have one of their own, which this one hides."""
    rest = [one for one in sys.path if Path(one or ".").resolve() != _HERE]
    spec = PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))


def _answer() -> None:
    if _PACKAGES not in sys.path:
        sys.path.append(_PACKAGES)
    from runtime.as_deepspeed.finder import install

    install()


_answer()
_other()
