"""The store at which the ranks of a job meet: `python -m runtime.launch.store DESCRIPTOR ADDRESS PORT`.

It listens on the socket that the node of rank 0 has bound for the job, and nowhere else; torchrun's own
listens on every address of the machine. It asks nobody who he is: the firewall decides who gets there. It
ends with the process that started it, after the last rank of all nodes.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Serves until a signal ends it."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    descriptor, address, port = arguments
    store = TCPStore(
        address, int(port), is_master=True, wait_for_workers=False, master_listen_fd=int(descriptor)
    )
    while store:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])
