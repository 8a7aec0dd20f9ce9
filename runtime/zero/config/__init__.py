"""ds_config.json: read strictly, resolved and explained. Importing it does not import torch."""

from runtime.zero.config.auto import Situation
from runtime.zero.config.load import Resolved, read_config
from runtime.zero.config.problems import ConfigError, Problem
from runtime.zero.config.schema import Config

__all__ = ["Config", "ConfigError", "Problem", "Resolved", "Situation", "read_config"]
