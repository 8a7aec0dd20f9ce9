"""torchrun's agent, whose store listens where its node has bound a socket for the job, and nowhere else.

`python -m runtime.launch.agent`, then the words of torchrun (torch.distributed.run), whose own store listens
on every address of the machine. The store asks nobody who he is: the firewall decides who gets there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from runtime.launch.argv import RENDEZVOUS

if TYPE_CHECKING:
    from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousParameters


def rendezvous(parameters: RendezvousParameters) -> RendezvousHandler:
    """torchrun's static rendezvous; on node 0 `listener` is the descriptor of the bound socket."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]
    from torch.distributed.elastic.rendezvous import static_tcp_rendezvous

    handler: Any = static_tcp_rendezvous.create_rdzv_handler(parameters)
    handler.get_backend = lambda: RENDEZVOUS
    handler.rank = int(parameters.config["rank"])  # it comes as text, and torch compares it with 0
    if "listener" in parameters.config:
        descriptor = int(parameters.config["listener"])
        os.set_inheritable(descriptor, False)
        handler._store = TCPStore(
            handler.master_addr,
            handler.master_port,
            handler.world_size,
            is_master=True,
            timeout=handler.timeout,
            master_listen_fd=descriptor,
        )
    return cast("RendezvousHandler", handler)


def main(arguments: Sequence[str]) -> None:
    """Runs the ranks of this node to their end, as torchrun does."""
    from torch.distributed.elastic.rendezvous.api import rendezvous_handler_registry
    from torch.distributed.run import main as torchrun

    rendezvous_handler_registry.register(RENDEZVOUS, rendezvous)
    torchrun(list(arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
