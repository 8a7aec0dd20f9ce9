"""The proxy of a site: what a node's programs are told of it, and who is reached without. Pure.

It is told per call, by files that root alone reads: nothing of it stands in a list of processes or in a log.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from urllib.parse import unquote, urlsplit

ALWAYS_DIRECT = ("localhost", "127.0.0.1", "::1")
HIDDEN = "********"
_SHORTEST = 4
# What neither a URL nor a line of a configuration can hold unescaped.
_UNFIT = re.compile(r"[\s\"'\\<>^`{|}\x00-\x20\x7f-\U0010ffff]")
_DIRECT = re.compile(r"\.?[0-9A-Za-z]([0-9A-Za-z.-]*[0-9A-Za-z])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")


def proxy_fault(address: str) -> str:
    """What is wrong with the address of a proxy; never a part of it, since it may hold a password."""
    if _UNFIT.search(address):
        return "it has characters that no URL has; in a password they are written as %20 and the like"
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return "it is no URL"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "it is no URL of http or https"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return "it has more than a host and a port; a / in a password is written as %2F"
    return "" if port is None or port else "its port is 0"


def direct_fault(host: str) -> str:
    """What is wrong with an entry of those that are reached without the proxy."""
    if "/" in host:
        return "apt and Python know no networks there, only names, domains and addresses"
    return "" if _DIRECT.fullmatch(host) else "it is no name, domain or address"


def secrets_of(address: str) -> list[str]:
    """The words that nobody may read, longest first: name and password, and a password by itself.

    Of an address that is none, all of it, where it looks as if it held a password.
    """
    if "@" not in address:
        return []
    if proxy_fault(address):
        return [address]
    stated = urlsplit(address).netloc.rpartition("@")[0]
    password = stated.partition(":")[2]
    # A shorter one would take parts of words out of everything; with its name it is hidden all the same.
    alone = {word for word in (password, unquote(password)) if len(word) >= _SHORTEST}
    return sorted({f"{stated}@", f"{unquote(stated)}@"} | alone, key=len, reverse=True)


def hidden(text: str, secrets: Iterable[str]) -> str:
    """The text without any of the words."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def direct_hosts(names_and_addresses: Iterable[str], stated: Sequence[str]) -> list[str]:
    """Who is reached without the proxy: this machine, the nodes, and whom the site names; each once."""
    return list(dict.fromkeys([*ALWAYS_DIRECT, *names_and_addresses, *map(str, stated)]))


def is_direct(address: str, direct: Iterable[str]) -> bool:
    """Whether an address (URL) is reached without the proxy, as curl and Python judge by no_proxy."""
    host = (urlsplit(address).hostname or "").lower()
    names = [entry.lower().lstrip(".") for entry in direct]
    return any(host == name or host.endswith(f".{name}") for name in names)


def environment_text(address: str, direct: Sequence[str]) -> str:
    """Lines for a shell: what curl, Python, conda and pip read."""
    values = {"http_proxy": address, "https_proxy": address, "no_proxy": ",".join(direct)}
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in values.items()]
    return "".join(lines) + "unset HTTP_PROXY HTTPS_PROXY ALL_PROXY all_proxy NO_PROXY\n"


def apt_text(address: str, direct: Sequence[str], sources: Iterable[str]) -> str:
    """A configuration of apt, which knows whole hosts alone: those of its sources are told one by one."""
    hosts = {urlsplit(source).hostname or "" for source in sources if source and is_direct(source, direct)}
    known = sorted((hosts | {host for host in direct if not host.startswith(".")}) - {""})
    lines = [f'Acquire::{kind}::Proxy "{address}";\n' for kind in ("http", "https")]
    for kind in ("http", "https"):
        lines += [f'Acquire::{kind}::Proxy::{host} "DIRECT";\n' for host in known if ":" not in host]
    return "".join(lines)
