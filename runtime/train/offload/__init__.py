"""Optimizer states and master weights in files: what `offload_optimizer` with device nvme does.

Masters (and, with `offload_param` on nvme, frozen weights) are shards mapped from a file: the kernel pages
them, so that they cost no memory of the process. Moments pass through a few page-aligned buffers, one
sub-group at a time, read ahead and written behind by threads, around PyTorch's fused Adam. No compiler.
"""
