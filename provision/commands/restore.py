"""`provision restore`: machines made from an image become nodes, unattended."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from provision.core.join import Call
from provision.core.node_life import Step
from provision.edges.join_server import listening
from provision.edges.terminal import Console
from provision.errors import BadInput
from provision.fleet.node_life import Reporter
from provision.fleet.restore import Arrivals, RestoredSite, answers, make_nodes
from provision.fleet.site import read_members, read_site, secrets_of
from provision.model import Machine

PORT = 8765
_out = Console(highlight=False)


def restore(
    inventory: Annotated[
        Path, typer.Option("--inventory", "-i", help="The site, for example inventory/lab.")
    ],
    nodes: Annotated[list[str] | None, typer.Argument(help="Nodes to wait for; all without any.")] = None,
    address: Annotated[str, typer.Option("--address", help="Where to listen.")] = "0.0.0.0",
    port: Annotated[int, typer.Option("--port", help="The port that the image was told.")] = PORT,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds to wait for the last one.")] = 3600.0,
) -> None:
    """Wait for machines made from an image, give them their names, make them nodes, and test them.

    A machine is known by the secret in its image. It gets the name that the inventory gives to its address,
    and its host keys are trusted from then on. Then playbooks/restore.yml runs on those machines alone, each
    other node gets one call, and the smoke test of the new nodes' pairs is the end. Cut off, it is run again:
    machines that had called before are remembered.
    """
    started = time.monotonic()
    machines = _chosen(read_site(inventory, environment=os.environ), nodes or [])
    site = RestoredSite(
        inventory=inventory,
        secrets=secrets_of(inventory, environment=os.environ),
        members=read_members(inventory, environment=os.environ),
    )
    secret = _secret(site.secrets / "join_secret")

    def on_arrival(name: str, call: Call) -> None:
        _out.print(
            f"{time.monotonic() - started:6.1f} s  {name} calls from {call.address}, image {call.image}",
            markup=False,
        )

    arrivals = Arrivals(machines, on_arrival, site.calls)
    arrivals.recall(answers)
    with listening(address, port, secret=secret, on_call=arrivals.on_call):
        _out.print(f"waiting at port {port} for {', '.join(machine.name for machine in machines)}")
        arrivals.wait(timeout)
    pending = make_nodes(arrivals.arrived, site, os.environ, Reporter(on_step=_say_step, on_line=_say))
    if pending:
        _say(f"pending: {', '.join(pending)} did not answer; the next node command or site.yml tells them")
    _out.print(
        f"{time.monotonic() - started:6.1f} s  restored and tested: {', '.join(sorted(arrivals.arrived))}"
    )


def _chosen(machines: list[Machine], names: list[str]) -> list[Machine]:
    known = {machine.name: machine for machine in machines}
    if unknown := [name for name in names if name not in known]:
        raise BadInput(
            f"wait for {', '.join(unknown)}",
            found=f"the nodes are {', '.join(known)}",
            fix="Name some of them.",
        )
    return [known[name] for name in names] or machines


def _secret(path: Path) -> str:
    if not path.is_file():
        raise BadInput(
            "wait for machines made from an image",
            found=f"there is no {path}, the secret that they show",
            fix="playbooks/image.yml makes it, on the controller where an image is baked.",
        )
    return path.read_text().strip()


def _say(line: str) -> None:
    _out.print(line, markup=False, soft_wrap=True)


def _say_step(step: Step) -> None:
    _say(f"{shlex.join(step.words)}  # {step.reason}")
