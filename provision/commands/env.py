"""`provision env`: the environments that nodes get."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from provision.commands.env_add import add
from provision.commands.env_image import image
from provision.commands.env_lint import lint
from provision.commands.folders import ENVIRONMENTS, user_cache
from provision.edges.terminal import Console
from provision.environments.comparison import Comparison
from provision.environments.locks import (
    Lock,
    State,
    is_current,
    lock_conda,
    lock_wheels,
    locks_of,
    solver_on,
)
from provision.environments.on_nodes import compared, read_ledger
from provision.errors import BadInput, MissingRequirement, ProvisionError
from provision.inventory.site import read_whole
from provision.lab.mirror.installers import conda_of, installer_in
from provision.roles.cluster_nodes import ENVIRONMENT_VARIABLES, environment_prefix

app = typer.Typer(help="The environments that nodes get.", no_args_is_help=True)

_PYTHON = "3.11"
app.command()(add)
app.command()(image)
app.command()(lint)
_out = Console()
_progress = Console(stderr=True)


class Layer(StrEnum):
    all = "all"
    conda = "conda"
    wheels = "wheels"


@app.callback()
def _noun() -> None:
    pass


@app.command()
def lock(
    name: Annotated[str, typer.Argument(help="The environment: a folder of envs/.")],
    layer: Annotated[Layer, typer.Option(help="Which of its locks.")] = Layer.all,
    kind: Annotated[
        str, typer.Option(help="Wheels of this kind alone, as cuda130 or cpu.", show_default="all")
    ] = "",
    torch_index: Annotated[
        str,
        typer.Option(
            envvar="CLUSTERWRIGHT_TORCH_INDEX",
            help="Address of PyTorch's own index, above its folders, for kinds whose build only it has.",
        ),
    ] = "",
    architecture: Annotated[
        str, typer.Option(help="The nodes' processors: x86_64 or aarch64 (cluster_architecture).")
    ] = "x86_64",
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Solve those anew as well that are of their inputs.")
    ] = False,
    channel: Annotated[str, typer.Option(help="Name or address of the conda channel.")] = "conda-forge",
    conda: Annotated[
        Path | None, typer.Option(help="The conda, mamba or micromamba that solves; else the one on PATH.")
    ] = None,
    environments: Annotated[Path, typer.Option(help="The folder of environments.")] = ENVIRONMENTS,
    check: Annotated[
        bool, typer.Option("--check", help="Say which locks are not those of their inputs; status 1 if any.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the state of each lock as JSON.")] = False,
) -> None:
    """Solve an environment's locks: its conda layer for a channel, its wheels for each kind of machine.

    What is solved from its present inputs stays. One that cannot be solved does not keep the others from it.
    """
    conda_lock, wheel_locks = locks_of(environments / name, architecture)
    wheel_locks = _of_kind(wheel_locks, kind, name)
    if not kind and not torch_index:
        wheel_locks = _without_own_index(wheel_locks)
    chosen = [
        *([conda_lock] if layer is not Layer.wheels else []),
        *(wheel_locks if layer is not Layer.conda else []),
    ]
    failures: list[ProvisionError] = []
    for wanted in chosen if not check else ():
        if not upgrade and is_current(wanted, channel=channel if wanted is conda_lock else None):
            continue
        try:
            with _progress.status(f"{wanted.path.name}"):
                if wanted is conda_lock:
                    _solve_conda(wanted, channel=channel, conda=conda)
                else:
                    lock_wheels(wanted, python=_PYTHON, environment=os.environ, torch_index=torch_index)
        except ProvisionError as e:
            failures.append(e)
    states = {str(wanted.path): wanted.state for wanted in chosen}
    if as_json:
        typer.echo(json.dumps(states, indent=2))
    else:
        for path, state in states.items():
            _out.print(f"{state.value:8} {path}", highlight=False, soft_wrap=True)
    for failure in failures[:-1]:
        _progress.print(str(failure), highlight=False, markup=False)
    if failures:
        raise failures[-1]
    if any(state is not State.CURRENT for state in states.values()):
        raise typer.Exit(1)


@app.command()
def verify(
    inventory: Annotated[
        Path, typer.Option("--inventory", "-i", help="The site, for example inventory/lab.")
    ],
    full: Annotated[
        bool, typer.Option("--full", help="Read every file again, not only those that were touched since.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare each node's environment with its record, and name packages and files that are other ones now.

    It changes nothing. Exit status: 0 all are as they were built, 1 one is not or was not seen, 2 bad input.
    """
    site = read_whole(inventory, ENVIRONMENT_VARIABLES, environment=os.environ)
    ledger = read_ledger(site.secrets / "environments.yml")
    prefix = environment_prefix(next(iter(site.variables.values())))
    with _progress.status(f"comparing {len(site.machines)} nodes"):
        found = compared(site.machines, prefix=prefix, ledger=ledger, full=full)
    if as_json:
        typer.echo(json.dumps({"prefix": prefix, "nodes": [asdict(one) for one in found]}, indent=2))
    else:
        _show(found, prefix)
    raise typer.Exit(1 if any(one.problem for one in found) else 0)


def _show(found: Sequence[Comparison], prefix: str) -> None:
    for one in found:
        _say(f"{one.node}: {one.problem or f'as it was built ({one.digest[:12]})'}")
        for line in one.differences if one.problem else ():
            _say(f"  {line}")
        if one.problem and one.different > len(one.differences) > 0:
            _say(f"  and {one.different - len(one.differences)} more")
    if any(one.problem and one.digest for one in found):
        _say(
            f"{prefix}: no certificate covers what changed, and the next site.yml builds it anew where files "
            "differ; what is there is kept beside it as NAME.before-TIME. Packages that are to stay belong "
            "into the locks, or into a layer of your own: envs/README.md."
        )


def _say(line: str) -> None:
    _out.print(line, highlight=False, markup=False, soft_wrap=True)


def _of_kind(locks: list[Lock], kind: str, name: str) -> list[Lock]:
    found = [lock for lock in locks if not kind or lock.kind == kind]
    if kind and not found:
        known = ", ".join(lock.kind for lock in locks) or "none"
        raise BadInput(f"lock wheels of {name} for {kind}", found=f"its kinds are {known}", fix="Name one.")
    return found


def _without_own_index(locks: list[Lock]) -> list[Lock]:
    """Without the kinds that nobody has locked here yet, and whose build only PyTorch's own index has."""
    find_links = os.environ.get("PIP_FIND_LINKS", "")
    left = [lock for lock in locks if lock.state is State.MISSING and lock.lacks_build(find_links)]
    if left:
        kinds = ", ".join(lock.kind for lock in left)
        _progress.print(
            f"left out: {kinds}, whose build only PyTorch's own index has: --torch-index says where it is",
            highlight=False,
            soft_wrap=True,
        )
    return [lock for lock in locks if lock not in left]


def _solve_conda(wanted: Lock, *, channel: str, conda: Path | None) -> None:
    with _solver(conda) as program:
        lock_conda(wanted, channel=channel, conda=program, environment=os.environ)


@contextmanager
def _solver(conda: Path | None) -> Iterator[Path]:
    """The conda that was named or is on PATH; else one from the lab mirror's installer, for this question."""
    found = conda or solver_on(os.environ.get("PATH", ""))
    if found is not None:
        yield found
        return
    installers = user_cache() / "mirror" / "current" / "miniconda"
    if not installers.exists():
        raise MissingRequirement(
            "solve a conda layer",
            found="there is no conda, mamba or micromamba on PATH",
            fix="conda alone solves it: install Miniconda, mamba or micromamba (one file), and name "
            "it with --conda. On a machine that can carry a lab `provision lab mirror` makes one, too.",
        )
    with conda_of(installer_in(installers), environment=os.environ) as program:
        yield program
