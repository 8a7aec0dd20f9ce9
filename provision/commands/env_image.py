"""`provision env image`: an image for containers, from the locks that nodes are built from."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from provision.commands.folders import ENVIRONMENTS
from provision.edges.terminal import Console
from provision.environments.kinds import wheels_name
from provision.environments.locks import how_to_have, locks_of
from provision.environments.oci import build
from provision.environments.oci.recipe import Wanted
from provision.environments.on_nodes import read_ledger
from provision.errors import BadInput
from provision.inventory.site import read_whole
from provision.roles.cluster_nodes import ENVIRONMENT_VARIABLES, environment_prefix

_VARIABLES = (
    *(*ENVIRONMENT_VARIABLES, "conda_env_channel", "conda_env_wheel_source", "conda_env_conda_lock"),
    *("miniconda_installer_source", "miniconda_installer_sha256"),
)
_out = Console()
_progress = Console(stderr=True)


def image(
    name: Annotated[str, typer.Argument(help="The environment: a folder of envs/.")],
    kind: Annotated[str, typer.Option(help="Of which machines its wheels are, as cuda130 or cpu.")],
    inventory: Annotated[
        Path | None,
        typer.Option(
            "--inventory", "-i", help="A site: its sources, its prefix, and the digest that its nodes have."
        ),
    ] = None,
    base: Annotated[
        str, typer.Option(help="An image to stand on, in place of a small root that is made here.")
    ] = "",
    channel: Annotated[str, typer.Option(help="The conda channel, name or address.")] = "",
    wheel_source: Annotated[str, typer.Option(help="Address of the index of wheels.")] = "",
    miniconda: Annotated[
        str, typer.Option(envvar="CLUSTERWRIGHT_MINICONDA", help="Address of Miniconda's installer.")
    ] = "",
    miniconda_sha256: Annotated[
        str, typer.Option(envvar="CLUSTERWRIGHT_MINICONDA_SHA256", help="Its sha256.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option(help="Write it to this file as well: an archive in OCI's format.")
    ] = None,
    environments: Annotated[Path, typer.Option(help="The folder of environments.")] = ENVIRONMENTS,
    check: Annotated[bool, typer.Option("--check", help="Say what would be made, and make nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make an OCI image of an environment with podman: one whose digest is that of the nodes.

    No daemon, no root needed. It is in podman's storage as localhost/clusterwright/NAME:KIND. What fails
    leaves no image.
    """
    values: Mapping[str, Any] = {}
    ledger: Mapping[str, str] = {}
    if inventory is not None:
        site = read_whole(inventory, _VARIABLES, environment=os.environ)
        node = site.machines[0]
        if node.fault is not None:
            raise BadInput(
                f"read what {inventory} says of {node.name}", found=node.fault.found, fix=node.fault.fix
            )
        values = site.variables[node.name]
        if values.get("cluster_environment_name", "llm") != name:  # that site's lock is of another one
            values = {**values, "cluster_environment_name": name, "conda_env_conda_lock": ""}
        ledger = read_ledger(site.secrets / "environments.yml")
    places = build.Places(
        channel=channel or str(values.get("conda_env_channel") or "conda-forge"),
        wheel_source=wheel_source or str(values.get("conda_env_wheel_source") or ""),
        installer=miniconda or str(values.get("miniconda_installer_source") or ""),
        installer_sha256=miniconda_sha256 or str(values.get("miniconda_installer_sha256") or ""),
    )
    folder = environments / name
    wanted = Wanted(
        name=name,
        kind=kind,
        prefix=environment_prefix(values or {"cluster_environment_name": name}),
        conda_lock=_conda_lock(folder, values),
        wheel_lock=_text(folder / wheels_name(kind, platform.machine())),
        base=base,
    )
    if not places.installer or not places.installer_sha256:
        raise BadInput(
            f"make an image of {name}",
            found="no installer of Miniconda is named, with its sha256",
            fix="Name a site with -i, or --miniconda and --miniconda-sha256: envs/miniconda_installers.tsv.",
        )
    agreed = ledger.get(f"{wanted.prefix} {wanted.built_from}", "")
    build.require(wanted)
    if check:
        found = {"image": wanted.tag, "prefix": wanted.prefix, "built_from": wanted.built_from}
        _tell({**found, "nodes": agreed}, as_json, f"would make {wanted.tag}: {wanted.prefix}")
        return
    checks = _text(folder / "checks.yml")
    with _progress.status("image") as status:
        made = build.make(wanted, places, checks=checks, agreed=agreed, report=status.update)
        if output is not None:
            status.update(f"{output}")
            build.save(made, output)
    same = "as nodes have it" if agreed else "no node of these locks is known here"
    said = f"{made.tag} ({made.bytes / 1e9:.1f} GB): {wanted.prefix}, digest {made.digest[:12]}, {same}"
    _tell({**asdict(made), "prefix": wanted.prefix, "nodes": agreed}, as_json, said)


def _tell(found: Mapping[str, object], as_json: bool, text: str) -> None:
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        _out.print(text, highlight=False, markup=False, soft_wrap=True)


def _conda_lock(folder: Path, values: Mapping[str, Any]) -> str:
    conda, _ = locks_of(folder, platform.machine())
    return _text(Path(str(values.get("conda_env_conda_lock") or conda.path)))


def _text(path: Path) -> str:
    if not path.is_file():
        raise BadInput(f"read {path}", found="there is no such file", fix=how_to_have(path))
    return path.read_text("utf-8")
