"""Where the command line keeps what can be made again."""

from __future__ import annotations

import os
from pathlib import Path

ENVIRONMENTS = Path(__file__).parents[2] / "envs"  # of this checkout


def user_cache() -> Path:
    """The user's cache folder of this product, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clusterwright"
