"""The smoke test that people write: every rank adds one float, and the sum is looked at.

torchrun --nnodes 4 --node-rank N --master-addr A one_float.py
"""

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
number = torch.ones(1)
dist.all_reduce(number)
if number.item() != dist.get_world_size():
    raise SystemExit(f"the sum is {number.item()}")
print(f"rank {dist.get_rank()}: all_reduce works")
dist.destroy_process_group()
