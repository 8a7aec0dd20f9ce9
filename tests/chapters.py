"""The plays of a playbook, those of the chapters that it imports in their places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def plays_of(playbook: Path) -> list[dict[str, Any]]:
    """All plays, in their order; hold.yml and validate.yml are chapters, too."""
    found: list[dict[str, Any]] = []
    for play in yaml.safe_load(playbook.read_text()):
        chapter = play.get("ansible.builtin.import_playbook")
        found += plays_of(playbook.parent / chapter) if chapter else [play]
    return found
