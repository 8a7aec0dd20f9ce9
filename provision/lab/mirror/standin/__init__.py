"""A Miniconda made of real parts, for machines that reach neither Anaconda's site nor a conda channel."""
