"""What machines to come are told as user data: where the controller is, and the token that they show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from provision.edges.files import write_file
from provision.errors import BadInput
from provision.join.protocol import Token
from provision.join.tokens import Tokens
from provision.model import Machine


def write_user_data(
    folder: Path,
    machines: Sequence[Machine],
    tokens: Tokens,
    *,
    controller: str,
    shared: bool,
    expires: float,
) -> list[Path]:
    """Makes tokens and writes one file a machine, or one for all, readable by their owner alone.

    Args:
        controller: ADDRESS:PORT where machines reach it.
        expires: in seconds since the epoch.

    Raises:
        BadInput: the controller's address is none, or a file of somebody's own is in the way.
    """
    _refuse_no_address(controller)
    names = [machine.name for machine in machines]
    paths = {name: folder / ("shared.json" if shared else f"{name}.json") for name in names}
    for path in paths.values():
        _refuse_over(path)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = tokens.make(
        {machine.name: machine.calls_from for machine in machines}, shared=shared, expires=expires
    )
    for token in made:
        write_file(paths[next(iter(token.machines))], user_data(token, controller), mode=0o600)
    return list(dict.fromkeys(paths.values()))


def user_data(token: Token, controller: str) -> str:
    """The text of a machine's user data; for whom and until when are for people."""
    told = {
        "controller": controller,
        "token": token.words,
        "machines": sorted(token.machines),
        "expires": datetime.fromtimestamp(token.expires, UTC).isoformat(timespec="seconds"),
    }
    return json.dumps(told, indent=2) + "\n"


def _refuse_no_address(controller: str) -> None:
    host, _, port = controller.rpartition(":")
    is_port = port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 1 << 16
    if not host or host in ("0.0.0.0", "::") or not is_port:
        raise BadInput(
            "tell machines where the controller is",
            found=f"{controller} is no ADDRESS:PORT that they could reach",
            fix="Name --controller, or an --address of this machine.",
        )


def _refuse_over(path: Path) -> None:
    """Overwrites earlier user data alone."""
    if not path.exists():
        return
    try:
        ours = {"controller", "token"} <= set(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        ours = False
    if not ours:
        raise BadInput(
            f"write {path}", found="there is a file that is no user data of ours", fix="Name another folder."
        )
