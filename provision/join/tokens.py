"""The tokens with which machines made from images call, and who has called with them."""

from __future__ import annotations

import fcntl
import json
import secrets as random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from provision.edges.files import write_file
from provision.errors import BadInput
from provision.join.protocol import Call, Token

# Of versions before tokens, when all machines showed one secret: nothing reads them.
_SUPERSEDED = ("join_secret", "arrived.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """One file: it is read at each call, so what another process makes void counts at once."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "join_tokens.json"

    def read(self) -> list[Token]:
        """All tokens, those that were used or have expired among them.

        Raises:
            BadInput: the file is damaged.
        """
        if not self.path.is_file():
            return []
        try:
            return [_token(found) for found in json.loads(self.path.read_text())["tokens"]]
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise BadInput(
                f"read {self.path}",
                found=f"it is damaged ({e!r})",
                fix="Delete it; tokens that were given count no more then (provision restore --user-data).",
            ) from e

    def find(self, id: str) -> Token | None:
        return next((token for token in self.read() if token.id == id), None)

    def make(self, machines: Mapping[str, str], *, shared: bool, expires: float) -> list[Token]:
        """Makes a token for each machine, or one for all; those that they had count no more.

        Args:
            machines: address by name.
            expires: when they end, in seconds since the epoch.
        """
        groups = [machines] if shared else [{name: address} for name, address in machines.items()]
        new = [
            Token(id=random.token_hex(8), secret=random.token_hex(32), expires=expires, machines=dict(group))
            for group in groups
        ]
        self._change(lambda tokens: [*_without(tokens, machines), *new])
        return new

    def note_call(self, id: str, name: str, call: Call) -> None:
        """Remembers the first machine that called with a token."""
        self._change(
            lambda tokens: [
                replace(token, calls={name: call, **token.calls}) if token.id == id else token
                for token in tokens
            ]
        )

    def finish(self, names: Collection[str]) -> None:
        """Machines are nodes: their tokens count no more, and stay known as used."""
        self._change(lambda tokens: [_finished(token, names) for token in tokens])

    def void(self, name: str) -> None:
        """Forgets every token that a machine was given, one that it shared with others too."""
        if self.path.is_file():
            self._change(lambda tokens: [token for token in tokens if name not in token.machines])

    def calls(self) -> dict[str, Call]:
        """Who has called and is no node yet, by name."""
        return {
            name: call
            for token in self.read()
            for name, call in token.calls.items()
            if name in token.machines and name not in token.nodes
        }

    def lacking(self, machines: Mapping[str, str], *, now: float) -> list[str]:
        """The machines that cannot call: no token for their address that counts, and no call before."""
        counting = {
            (name, address)
            for token in self.read()
            for name, address in token.machines.items()
            if name not in token.nodes and (token.expires > now or name in token.calls)
        }
        return [name for name, address in machines.items() if (name, address) not in counting]

    def remove_superseded(self) -> list[Path]:
        """Takes away what an earlier version kept here; what was there."""
        found = [path for name in _SUPERSEDED if (path := self.folder / name).is_file()]
        for path in found:
            path.unlink()
        return found

    def _change(self, change: Callable[[Sequence[Token]], Sequence[Token]]) -> None:
        with self._locked():
            tokens = change(self.read())
            text = json.dumps({"tokens": [asdict(token) for token in tokens]}, indent=2)
            write_file(self.path, text + "\n", mode=0o600)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / "join_tokens.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _without(tokens: Sequence[Token], names: Collection[str]) -> list[Token]:
    left = [
        replace(token, machines={name: at for name, at in token.machines.items() if name not in names})
        for token in tokens
    ]
    return [token for token in left if token.machines]


def _finished(token: Token, names: Collection[str]) -> Token:
    nodes = tuple(name for name in token.machines if name in names or name in token.nodes)
    secret = "" if len(nodes) == len(token.machines) else token.secret
    return replace(token, nodes=nodes, secret=secret)


def _token(found: Mapping[str, Any]) -> Token:
    calls = {
        name: Call(**{**call, "host_keys": tuple(call["host_keys"])}) for name, call in found["calls"].items()
    }
    return Token(**{**found, "calls": calls, "nodes": tuple(found["nodes"])})
