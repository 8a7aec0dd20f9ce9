"""Controller side of Clusterwright: turns an inventory into a proven cluster. Never imports torch."""

from importlib.metadata import version

__version__ = version("clusterwright")
