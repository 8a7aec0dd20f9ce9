"""`provision model`: models on the nodes, delivered once to all of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from provision.commands.folders import user_cache
from provision.commands.model_source import source_of
from provision.edges import cluster_lock
from provision.edges.terminal import Console
from provision.errors import BadInput, CommandFailed
from provision.inventory.site import Site, read_whole
from provision.store.delivery import Delivered, Part, Plan
from provision.store.models import bytes_per_second, generation_before, models_in, refuse_bad_name
from provision.store.on_nodes import HUB_VARIABLES, PLACE_VARIABLES, Place, ask, deliver, place_in, switch
from provision.store.source import FolderSource

app = typer.Typer(help="Models on the nodes.", no_args_is_help=True)
_out = Console(highlight=False)
_progress = Console(stderr=True, highlight=False)

Inventory = Annotated[Path, typer.Option("--inventory", "-i", help="The site, for example inventory/lab.")]
Name = Annotated[str, typer.Argument(help="What it is called on the nodes.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def _noun() -> None:
    pass


@app.command()
def fetch(
    model: Annotated[
        str, typer.Argument(help="A folder of this machine with its files, or OWNER/NAME of a hub.")
    ],
    inventory: Inventory,
    revision: Annotated[
        str, typer.Option("--revision", help="Of a hub's repository: a branch, tag or commit.")
    ] = "main",
    name: Annotated[
        str,
        typer.Option("--name", help="What it is called on the nodes.", show_default="the last of its name"),
    ] = "",
    limit: Annotated[
        str, typer.Option("--limit", help="The most that this machine, and each node, sends: 200Mbit.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Deliver a model to every node, and have its name lead to it on all of them at once.

    This machine sends it once; nodes pass it on while they receive it. Run again, it goes on where it ended.
    A hub is the one of HF_ENDPOINT; its token is in HF_TOKEN, or in a vault as cluster_hub_token.
    Exit status: 0 all nodes have it, 1 one does not, 2 bad input.
    """
    rate = bytes_per_second(limit)
    called = refuse_bad_name(name or Path(model).resolve().name)
    site, place = _site(inventory)
    source = source_of(model, revision, token=_token(site), cache=user_cache() / "models", progress=_progress)
    plan = Plan(name=called, digest=source.digest, store=place.store, user=place.user, bytes_per_second=rate)
    with cluster_lock.hold(site.secrets, f"provision model fetch {called}"):
        with _bars(source) as on_change:
            ended = deliver(site.machines, plan, source, on_change)
        whole = _refuse_failed(called, ended)
        switch([machine for machine in site.machines if machine.name in whole], called, source.digest, place)
    _tell(called, source, ended, as_json)
    if ended.lost:
        raise CommandFailed(
            f"deliver {called} to every node",
            found="; ".join(f"{node}: {why}" for node, why in ended.lost.items()),
            fix="The others have it and use it. Run it again once these are reached: only they are sent to.",
        )


def _token(site: Site) -> str:
    variables = next(iter(site.variables.values()))
    return os.environ.get("HF_TOKEN") or str(variables.get("cluster_hub_token", ""))


@app.command("list")
def show(inventory: Inventory, as_json: AsJson = False) -> None:
    """Show the models on the nodes: each generation, who holds it, and whose name leads to it."""
    site, place = _site(inventory)
    answers = ask(site.machines, "list", {"store": place.store})
    models = models_in(answers.said)
    if as_json:
        typer.echo(json.dumps({"models": [asdict(one) for one in models], "unseen": dict(answers.failed)}))
    for one in models if not as_json else ():
        used = "in use" if len(one.used_by) == len(site.machines) else ", ".join(one.used_by) or "kept"
        held = "all nodes" if len(one.held_by) == len(site.machines) else ", ".join(one.held_by)
        _say(f"{one.name}  {one.digest[:12]}  {_size(one.bytes)}  on {held}  {used}")
    _refuse_unseen("see the models of every node", answers.failed)


@app.command()
def verify(
    name: Name,
    inventory: Inventory,
    full: Annotated[bool, typer.Option("--full", help="Read every byte, not only names and sizes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare a model on each node with its manifest, and name the files that differ.

    It changes nothing. Exit status: 0 as it was delivered everywhere, 1 not, 2 bad input.
    """
    site, place = _site(inventory)
    plan = {"store": place.store, "links": place.models, "name": refuse_bad_name(name), "full": full}
    with _progress.status(f"comparing {len(site.machines)} nodes"):
        answers = ask(site.machines, "verify", plan, long=full)
    if as_json:
        typer.echo(json.dumps({"nodes": dict(answers.said), "unseen": dict(answers.failed)}))
    for node, answer in answers.said.items() if not as_json else ():
        differences = [str(line) for line in answer.get("differences", [])]
        _say(f"{node}: {'differs' if differences else 'as delivered'} ({str(answer.get('digest'))[:12]})")
        for line in differences:
            _say(f"  {line}")
    _refuse_unseen(f"verify {name} on every node", answers.failed)
    spoilt = [node for node, answer in answers.said.items() if answer.get("different")]
    if spoilt and not as_json:
        words = " ".join(f"--node {node}" for node in spoilt)
        _say(
            f"mend  provision model remove {name} {words} -i {inventory}, then fetch it again: others send it"
        )
    if spoilt:
        raise typer.Exit(1)


@app.command()
def rollback(name: Name, inventory: Inventory) -> None:
    """Have a name lead to the generation before, on all nodes at once."""
    site, place = _site(inventory)
    refuse_bad_name(name)
    with cluster_lock.hold(site.secrets, f"provision model rollback {name}"):
        answers = ask(site.machines, "list", {"store": place.store})
        _refuse_unseen(f"have {name} lead to what it led to before", answers.failed)
        digest = generation_before(name, answers.said)
        switch(site.machines, name, digest, place)
    _say(f"{name} leads to {digest[:12]} on {len(site.machines)} nodes")


@app.command()
def remove(
    name: Name,
    inventory: Inventory,
    node: Annotated[
        list[str] | None,
        typer.Option("--node", help="From this node alone; several times.", show_default="all"),
    ] = None,
) -> None:
    """Take a model off the nodes, with every generation of it."""
    site, place = _site(inventory)
    machines = [machine for machine in site.machines if not node or machine.name in node]
    if unknown := set(node or ()) - {machine.name for machine in machines}:
        found = f"the site has no {', '.join(sorted(unknown))}"
        raise BadInput(f"remove {name} from nodes", found=found, fix="provision status names its nodes.")
    plan = {"store": place.store, "links": place.models, "name": refuse_bad_name(name)}
    with cluster_lock.hold(site.secrets, f"provision model remove {name}"):
        answers = ask(machines, "remove", plan)
    for called, answer in answers.said.items():
        _say(f"{called}: {len(answer.get('removed', []))} generations removed")
    _refuse_unseen(f"remove {name} from every node", answers.failed)


def _site(inventory: Path) -> tuple[Site, Place]:
    site = read_whole(inventory, (*PLACE_VARIABLES, *HUB_VARIABLES), environment=os.environ)
    return site, place_in(next(iter(site.variables.values())))


def _refuse_failed(name: str, ended: Delivered) -> list[str]:
    """The nodes that hold it whole, where no node that was reached failed."""
    failed = {node: said for node, said in ended.said.items() if said.state != "whole"}
    if not failed and len(ended.said):
        return list(ended.said)
    reasons = {node: said.error or "it did not end" for node, said in failed.items()} | dict(ended.lost)
    raise CommandFailed(
        f"deliver {name} to every node",
        found="; ".join(f"{node}: {why}" for node, why in reasons.items()),
        fix="Mend that, then run it again: what has arrived stays, and no node uses it before all have it.",
    )


def _refuse_unseen(asked: str, failed: Mapping[str, str]) -> None:
    if failed:
        found = "; ".join(f"{node}: {why}" for node, why in failed.items())
        raise CommandFailed(asked, found=found, fix="Mend that, then run it again.")


@contextmanager
def _bars(source: FolderSource) -> Iterator[Callable[[Mapping[str, Part]], None]]:
    """Each node's share of the tree, as it grows."""
    total = source.manifest.bytes
    with _progress.status("asking the nodes") as status:

        def on_change(parts: Mapping[str, Part]) -> None:
            status.update("  ".join(f"{name} {_share(part, total)}" for name, part in parts.items()))

        yield on_change


def _share(part: Part, total: int) -> str:
    if part.lost or part.said is None:
        return "not reached"
    return "failed" if part.has_failed else f"{100 * part.said.bytes // total} %"


def _tell(name: str, source: FolderSource, ended: Delivered, as_json: bool) -> None:
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "name": name,
                    "digest": source.digest,
                    "bytes": source.manifest.bytes,
                    "source_bytes": ended.source_bytes,
                    "seconds": round(ended.seconds, 2),
                    "nodes": {node: asdict(said) for node, said in ended.said.items()},
                    "lost": dict(ended.lost),
                }
            )
        )
        return
    for node, said in ended.said.items():
        for note in said.notes:
            _say(f"{node}: {note}")
    sent = ended.source_bytes / source.manifest.bytes
    what = f"{name} ({source.digest[:12]}, {_size(source.manifest.bytes)})"
    _say(f"{what} is in use on {len(ended.said)} nodes: {ended.seconds:.0f} s, sent {sent:.2f} times")


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.1f} MiB"


def _say(line: str) -> None:
    _out.print(line, markup=False, soft_wrap=True)
