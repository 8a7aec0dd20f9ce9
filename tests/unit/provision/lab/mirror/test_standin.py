from __future__ import annotations

from email.parser import HeaderParser
from pathlib import Path

import pytest

from provision.lab.mirror.standin import build, python

LDD = """\
/usr/bin/python3.11:
\tlinux-vdso.so.1 (0x00007f4c90980000)
\tlibpython3.11.so.1.0 => /opt/python/lib/libpython3.11.so.1.0 (0x00007f4c90200000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f4c9001e000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f4c90982000)
/opt/python/lib/python3.11/lib-dynload/_ssl.so:
\tlibssl.so.3 => /lib/x86_64-linux-gnu/libssl.so.3 (0x00007f4c9001e000)
\tlibgone.so.1 => not found
\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f4c9088a000)
"""
METADATA = """\
Name: Requests
Version: 2.34.2
License-Expression: Apache-2.0
Requires-Dist: charset_normalizer<4,>=2
Requires-Dist: ruamel.yaml>=0.17
Requires-Dist: PySocks!=1.5.7,>=1.5.6; extra == "socks"
Requires-Dist: backports-old; python_version < "3"
"""


def test_the_libraries_of_the_c_library_stay_the_nodes_own() -> None:
    assert python.linked_libraries(LDD) == {
        "libpython3.11.so.1.0": "/opt/python/lib/libpython3.11.so.1.0",
        "libssl.so.3": "/lib/x86_64-linux-gnu/libssl.so.3",
        "libgone.so.1": "not found",
    }


@pytest.mark.parametrize(
    ("vendored", "own"),
    [
        ("from conda_lock._vendor.conda.models import x", "from conda.models import x"),
        ("`conda_lock.vendor.conda.base.context`", "`conda.base.context`"),
        ('(".conda_lock", "x")', '(".conda_lock", "x")'),
    ],
)
def test_conda_gets_its_own_name_back(vendored: str, own: str) -> None:
    assert build.rename(vendored) == own


def test_conda_is_laid_out_under_its_own_name_with_sha256_in_explicit_files(tmp_path: Path) -> None:
    tree = build.build_conda(tmp_path)

    package = tree.folder / "lib" / "python3.11" / "site-packages" / "conda"
    texts = {path: path.read_text() for path in package.rglob("*.py")}
    assert len(texts) > 150
    assert not [path for path, text in texts.items() if "conda_lock._vendor" in text]
    assert "(?P<sha256>[0-9a-f]{64})" in texts[package / "misc.py"]
    assert (tree.index.name, tree.index.version) == ("conda", "24.7.1")


def test_a_wheels_needs_become_the_packages_for_this_python_without_extras() -> None:
    index = build.index_of(HeaderParser().parsestr(METADATA))

    assert index.dist == "requests-2.34.2-0"
    assert index.depends[1:] == ("charset-normalizer", "ruamel.yaml")
    assert index.depends[0].startswith("python >=3.11,<3.12")
