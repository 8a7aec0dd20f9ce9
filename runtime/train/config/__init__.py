"""ds_config.json: read strictly, resolved and explained. Importing it does not import torch."""

from runtime.train.config.auto import Situation
from runtime.train.config.explain import Resolved
from runtime.train.config.load import read_config
from runtime.train.config.problems import ConfigError, Problem
from runtime.train.config.schema import Config

__all__ = ["Config", "ConfigError", "Problem", "Resolved", "Situation", "read_config"]
