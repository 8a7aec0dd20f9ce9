"""The other one: rank 0 sends 1,000,000 floats to each other rank and gets them back, timed.

torchrun --nnodes 4 --node-rank N --master-addr A send_recv.py
"""

import time

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
floats = torch.randn(1_000_000)
for peer in range(1, dist.get_world_size()):
    started = time.monotonic()
    if rank == 0:
        dist.send(floats, dst=peer)
        dist.recv(floats, src=peer)
        seconds = time.monotonic() - started
        print(f"0 <-> {peer}: {2 * floats.nbytes / seconds / 1e6:.0f} MB/s", flush=True)
    elif rank == peer:
        dist.recv(floats, src=0)
        dist.send(floats, dst=0)
dist.barrier()
dist.destroy_process_group()
