"""`provision bundle serve`: what nodes of a site without internet install from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from provision.bundle.folder import differences, read
from provision.bundle.server import bundle_server
from provision.edges.terminal import Console
from provision.errors import BadInput, CommandFailed

PORT = 8090
_SHOWN = 5
_ALL = "0.0.0.0"
_out = Console(highlight=False)
_progress = Console(stderr=True, highlight=False)


def serve(
    folder: Annotated[Path, typer.Argument(help="The bundle's folder.", metavar="FOLDER")],
    address: Annotated[
        str, typer.Option(help="Of this machine, as the nodes reach it.", show_default="all of them")
    ] = _ALL,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where it listens.")] = PORT,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the two variables as JSON, in a line.")
    ] = False,
) -> None:
    """Serve a bundle over HTTP, read only, until Ctrl-C; and say what the inventory has to hold for that.

    Whoever asks gets what the manifest names and nothing else. Each file is proven before it is sent the
    first time, and again once it was touched; one that is not what the manifest says is named, and not sent.
    """
    bundle = read(folder.resolve())
    if found := differences(bundle, full=False):
        named = "; ".join(f"{one.path}: {one.what}" for one in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        fix = "Copy it again from where it was made, or make it whole: provision bundle create"
        raise CommandFailed(f"serve {folder}", found=f"{named}{more}", fix=fix)
    try:
        server = bundle_server(bundle, address=address, port=port, on_refusal=_warn)
    except OSError as e:
        fix = "Say another --address of this machine, or another --port."
        raise BadInput(f"listen on {address}, port {port}", found=e.strerror or str(e), fix=fix) from e
    host = "ADDRESS" if address == _ALL else f"[{address}]" if ":" in address else address
    variables = {
        "cluster_bundle_url": f"http://{host}:{server.server_port}/{bundle.digest}",
        "cluster_bundle_path": str(bundle.folder),
    }
    if as_json:
        typer.echo(json.dumps(variables))
    else:
        for name, value in variables.items():
            _out.print(f"{name}: {value}", markup=False, soft_wrap=True)
        if address == _ALL:
            _warn("ADDRESS is this machine's, as the nodes reach it")
        _warn(f"serving {len(bundle.contents.files)} files until Ctrl-C")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


def _warn(line: str) -> None:
    _progress.print(line, markup=False, soft_wrap=True)
