"""What `python -m runtime` offers of ZeRO: config, checkpoint. Importing it does not import torch."""

from runtime.zero.commands.checkpoint import checkpoint_app
from runtime.zero.commands.config import config_app

__all__ = ["checkpoint_app", "config_app"]
