"""`import deepspeed` answered from this runtime: `python -m runtime.as_deepspeed script.py`."""
