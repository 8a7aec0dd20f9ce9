from __future__ import annotations

from typing import Any

import pytest

from provision.bundle.wheels import chosen
from provision.errors import CommandFailed

A, B, C = "a" * 64, "b" * 64, "c" * 64
LOCK = f"""\
# for: cp311-manylinux_2_35_x86_64, published until 2026-11-27T00:00:00Z
a==1 \\
    --hash=sha256:{A}
b==2+cpu \\
    --hash=sha256:{B}
"""


def file(name: str, sha256: str, **parts: Any) -> dict[str, Any]:
    return {"url": f"http://i.example/{name}", "hashes": {"sha256": sha256}, **parts}


def test_files_of_the_lock_are_taken_by_their_hash_and_no_others() -> None:
    solved = {
        "packages": [
            {"name": "a", "wheels": [file("a-1-win.whl", C), file("a-1-any.whl", A, size=7)]},
            {"name": "b", "wheels": [file("b-2%2Bcpu-any.whl", B)], "sdist": file("b.tar.gz", C)},
        ]
    }

    found = chosen(LOCK, solved, asked="find")

    assert [(one.name, one.sha256, one.size) for one in found] == [
        ("a-1-any.whl", A, 7),
        ("b-2+cpu-any.whl", B, None),
    ]


def test_an_index_that_lacks_one_is_said_with_its_name() -> None:
    with pytest.raises(CommandFailed, match=r"no b==2\+cpu of that hash"):
        chosen(LOCK, {"packages": [{"name": "a", "wheels": [file("a-1-any.whl", A)]}]}, asked="find")
