"""What nodes run, as one text: the modules of `provision.store.node`, each after those that it needs."""

from __future__ import annotations

import base64
import json
import zlib
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).with_name("node")
_PACKAGE = "provision.store.node"
_MODULES = (
    *("manifest", "tree", "packing", "links", "store", "arrival", "exchange", "lock", "hold", "main"),
)
# Each is run where others find it by its name; nothing else of ours is there.
_TEXT = """import base64, json, sys, types, zlib
for name, text in json.loads(zlib.decompress(base64.b64decode({packed!r}))):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
sys.modules[{main!r}].main(sys.argv[1:])
"""


@cache
def node_program() -> str:
    """For `python3 -c TEXT WORD PLAN`; packed, since Linux takes no word longer than 128 KiB."""
    modules = [(f"{_PACKAGE}.{name}", (_FOLDER / f"{name}.py").read_text()) for name in _MODULES]
    packed = base64.b64encode(zlib.compress(json.dumps(modules).encode(), 9)).decode()
    return _TEXT.format(packed=packed, main=f"{_PACKAGE}.main")
