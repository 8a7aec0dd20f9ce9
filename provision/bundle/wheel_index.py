"""A static index of wheels (PEP 503): a page for each project, whose links carry sha256. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from html import escape
from urllib.parse import quote

_PAGE = "<!DOCTYPE html>\n<html><body>\n{links}</body></html>\n"


def normal_name(name: str) -> str:
    """A project's name as indices compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pages(wheels: Mapping[str, str], *, files: str) -> dict[str, str]:
    """The pages of an index by their paths.

    Args:
        wheels: sha256 (hex) of each wheel, or archive of sources, by its file name.
        files: the folder of the wheels, relative to a project's page.
    """
    projects: defaultdict[str, list[str]] = defaultdict(list)
    for wheel, sha256 in sorted(wheels.items()):
        link = f"{files}/{quote(wheel)}#sha256={sha256}"
        projects[_project(wheel)].append(_link(link, wheel))
    found = {f"{name}/index.html": _PAGE.format(links="".join(links)) for name, links in projects.items()}
    found["index.html"] = _PAGE.format(links="".join(_link(f"{name}/", name) for name in sorted(projects)))
    return found


def _project(file: str) -> str:
    """A wheel's name has no hyphen (PEP 427), an archive's version has none (PEP 625)."""
    return normal_name(file.split("-")[0] if file.endswith(".whl") else file.rpartition("-")[0])


def _link(address: str, text: str) -> str:
    return f'<a href="{escape(address)}">{escape(text)}</a><br>\n'
