"""`provision restore`: machines made from an image become nodes, unattended."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from provision.edges.terminal import Console
from provision.errors import BadInput
from provision.inventory.site import read_whole
from provision.join.protocol import Call
from provision.join.server import listening, own_address_towards
from provision.join.user_data import write_user_data
from provision.model import Machine
from provision.nodes.arrivals import Arrivals, RestoredSite, answers, make_nodes
from provision.nodes.life import Reporter
from provision.nodes.steps import Step

PORT = 8765
_out = Console(highlight=False)


def restore(
    inventory: Annotated[
        Path, typer.Option("--inventory", "-i", help="The site, for example inventory/lab.")
    ],
    nodes: Annotated[list[str] | None, typer.Argument(help="Nodes to wait for; all without any.")] = None,
    user_data: Annotated[
        Path | None,
        typer.Option(
            "--user-data", help="Write a token for each node, NODE.json, into this folder, and end."
        ),
    ] = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="With --user-data: one token for all these nodes, shared.json.")
    ] = False,
    token_hours: Annotated[
        float, typer.Option(min=0.01, max=720.0, help="With --user-data: how long tokens count.")
    ] = 24.0,
    controller: Annotated[
        str, typer.Option(help="With --user-data: ADDRESS:PORT where machines reach this one, behind NAT.")
    ] = "",
    address: Annotated[
        str, typer.Option("--address", help="Where to listen.", show_default="the address towards the nodes")
    ] = "",
    port: Annotated[int, typer.Option("--port", help="The port that the image or user data names.")] = PORT,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds to wait for the last one.")] = 3600.0,
) -> None:
    """Wait for machines made from an image, give them their names, make them nodes, and test them.

    First with --user-data: each machine shows a token of its own, from its user data, that counts once. It
    gets its name, and the host keys that it called with are trusted from then on, no others. Then
    playbooks/restore.yml runs on those machines alone, each other node gets one call, and the smoke test of
    the new nodes' pairs is the end. Cut off, it is run again: machines that had called are remembered.
    """
    if user_data is None and (shared or controller):
        raise BadInput("use --shared or --controller", found="no --user-data", fix="Name its folder.")
    read = read_whole(inventory, environment=os.environ)
    machines, secrets = _chosen(read.machines, nodes or []), read.secrets
    site = RestoredSite(inventory=inventory, secrets=secrets, members=read.members)
    key = _key(secrets / "join_key")
    for path in site.tokens.remove_superseded():
        _say(f"{path} is gone: machines show tokens of their own now; images of before are to be baked anew")
    address = address or _own_address(machines)
    if user_data:
        told = controller or (f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
        expires = time.time() + token_hours * 3600
        for path in write_user_data(
            user_data, machines, site.tokens, controller=told, shared=shared, expires=expires
        ):
            _say(f"{path}  counts once, for {token_hours:g} h")
        return
    _wait_and_make_nodes(machines, site, key, address=address, port=port, timeout=timeout)


def _wait_and_make_nodes(
    machines: list[Machine], site: RestoredSite, key: Path, *, address: str, port: int, timeout: float
) -> None:
    started = time.monotonic()
    _refuse_to_wait_in_vain(machines, site)

    def on_arrival(name: str, call: Call) -> None:
        _say(f"{time.monotonic() - started:6.1f} s  {name} calls from {call.address}, image {call.image}")

    arrivals = Arrivals(machines, site.tokens, key, on_arrival)
    arrivals.recall(answers)
    expected = [machine.calls_from for machine in machines]
    with listening(address, port, expected=expected, on_call=arrivals.on_call, report=_say):
        _say(f"waiting at {address} port {port} for {', '.join(machine.name for machine in machines)}")
        arrivals.wait(timeout)
    pending = make_nodes(arrivals.arrived, site, os.environ, Reporter(on_step=_say_step, on_line=_say))
    if pending:
        _say(f"pending: {', '.join(pending)} did not answer; the next node command or site.yml tells them")
    _say(f"{time.monotonic() - started:6.1f} s  restored and tested: {', '.join(sorted(arrivals.arrived))}")


def _chosen(machines: list[Machine], names: list[str]) -> list[Machine]:
    known = {machine.name: machine for machine in machines}
    if unknown := [name for name in names if name not in known]:
        raise BadInput(
            f"wait for {', '.join(unknown)}",
            found=f"the nodes are {', '.join(known)}",
            fix="Name some of them.",
        )
    return [known[name] for name in names] or machines


def _key(path: Path) -> Path:
    if not path.is_file():
        raise BadInput(
            "wait for machines made from an image",
            found=f"there is no {path}, whose public half an image holds: it signs what machines are told",
            fix="playbooks/image.yml makes it, on the controller where an image is baked.",
        )
    return path


def _own_address(machines: list[Machine]) -> str:
    addresses = {own_address_towards(machine.address) for machine in machines}
    if len(addresses) != 1:
        raise BadInput(
            "find the address where machines reach this one",
            found=f"there are {', '.join(sorted(addresses))}",
            fix="Name --address.",
        )
    return addresses.pop()


def _refuse_to_wait_in_vain(machines: list[Machine], site: RestoredSite) -> None:
    wanted = {machine.name: machine.calls_from for machine in machines}
    if lacking := site.tokens.lacking(wanted, now=time.time()):
        names = " ".join(lacking)
        raise BadInput(
            f"wait for {', '.join(lacking)}",
            found="no token that counts was made, so a machine has nothing to show",
            fix=f"provision restore {names} -i {site.inventory} --user-data DIR makes them, for user data.",
        )


def _say(line: str) -> None:
    _out.print(line, markup=False, soft_wrap=True)


def _say_step(step: Step) -> None:
    _say(f"{shlex.join(step.words)}  # {step.reason}")
