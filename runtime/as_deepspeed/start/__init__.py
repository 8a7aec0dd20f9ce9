"""A folder for PYTHONPATH: a Python that starts with it answers `import deepspeed` from this runtime."""
