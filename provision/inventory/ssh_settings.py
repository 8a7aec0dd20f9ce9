"""What OpenSSH makes of a connection's settings: a question to `ssh -G`, a machine from its answer. Pure."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision.errors import BadInput
from provision.model import Fault, Machine, Sudo
from provision.privilege import sudo_of

_CONNECT_SECONDS = 10.0
_FIX = "ansible-playbook playbooks/validate.yml, or `ansible NODE -m ping`, says more."
# They change what would be asked: which ssh prints, or whether it does.
_VERSION = ("-V", "-Q")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a command runs: the person's home, as the system knows it, and name; and its environment."""

    home: Path
    user: str
    environment: Mapping[str, str]
    exists: Callable[[str], bool]


def question(login: Mapping[str, Any]) -> list[str]:
    """The words of ssh as Ansible gives them, in its order: the first value of an option counts.

    Args:
        login: the options of Ansible's ssh plugin.

    Raises:
        BadInput: there is no such connection for OpenSSH.
    """
    if login["connection"] != "ssh":
        raise _unusable(f"ansible_connection is {login['connection']}, by which only playbooks reach it")
    if login["private_key"]:
        raise _unusable("ansible_ssh_private_key holds the text of a key, which only playbooks can use")
    host = str(login["host"] or "")
    if not host.strip() or host.startswith("-"):
        raise _unusable(f"its address is {host!r}")
    words = [str(login["ssh_executable"] or "ssh"), "-G", *_split(login, "ssh_args")]
    for option, value in (("Port", login["port"]), ("IdentityFile", login["private_key_file"])):
        words += ["-o", f'{option}="{value}"'] if value not in (None, "") else []
    words += ["-o", f'User="{login["remote_user"]}"'] if login["remote_user"] else []
    words += ["-o", f"ConnectTimeout={login['timeout']}"] if login["timeout"] else []
    words += [*_split(login, "ssh_common_args"), *_split(login, "ssh_extra_args")]
    if any(word in _VERSION for word in words):
        raise _unusable("its ssh arguments ask for no connection (-V, -Q)")
    words += ["--", host]
    if any("\0" in word for word in words):  # which no program can be given
        raise _unusable("its settings hold a null byte")
    return words


def _split(login: Mapping[str, Any], name: str) -> list[str]:
    try:
        return shlex.split(str(login[name] or ""))
    except ValueError as e:
        raise _unusable(f"{name} is {login[name]!r}: {e}") from e


def _unusable(found: str) -> BadInput:
    return BadInput("read its connection", found=found, fix=_FIX)


def faulty(name: str, found: str, fix: str = _FIX) -> Machine:
    """A machine whose settings cannot be worked out."""
    return Machine(name=name, address=name, user="", fault=Fault(found=found, fix=fix))


def machine_of(name: str, login: Mapping[str, Any], answer: str, place: Place) -> Machine:
    """The machine that OpenSSH would reach.

    Args:
        login: as for `question`.
        answer: what `ssh -G` printed.

    Raises:
        BadInput: it is no answer, or says what provision cannot do.
    """
    said = _settings(answer)
    try:
        address, user, port = said["hostname"][0], said["user"][0], int(said["port"][0])
    except (LookupError, ValueError) as e:
        raise _unusable(f"`{login['ssh_executable']} -G` does not answer as OpenSSH's does") from e
    tokens = {"%": "%", "h": address, "n": str(login["host"]), "p": str(port), "r": user}
    files = {**tokens, "d": str(place.home), "u": place.user}
    known = _paths(said["userknownhostsfile"], place, files)
    return Machine(
        name=name,
        address=address,
        user=user,
        port=port,
        key_files=tuple(Path(_filled(one, place, files)) for one in said["identityfile"] if one != "none"),
        known_hosts=(*known, *_paths(said["globalknownhostsfile"], place, files)),
        host_key_alias=_filled(_one(said, "hostkeyalias"), place, files),
        agent=_agent(said, place, files),
        agent_offers_listed_keys_only=_one(said, "identitiesonly") == "yes",
        password=str(login["password"] or ""),
        way=_way(said, login, known, place, tokens),
        connect_seconds=_seconds(_one(said, "connecttimeout")),
        sudo=_sudo(login.get("become")),
    )


def _settings(answer: str) -> defaultdict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for line in answer.splitlines():
        keyword, _, value = line.partition(" ")
        found[keyword.lower()].append(value)
    return found


def _one(said: Mapping[str, Sequence[str]], keyword: str) -> str:
    found = (said.get(keyword) or [""])[0]
    return "" if found == "none" else found


def _seconds(text: str) -> float:
    return float(text) if text.isdigit() and int(text) else _CONNECT_SECONDS


def _filled(text: str, place: Place, tokens: Mapping[str, str]) -> str:
    """A path with `~`, tokens and variables in their place, as ssh_config(5) has them."""
    text = re.sub(r"^~(?=/|$)", lambda _: str(place.home), text)
    text = re.sub(r"\$\{(\w+)\}", lambda found: place.environment.get(found[1], found[0]), text)
    return _with_tokens(text, tokens)


def _with_tokens(text: str, tokens: Mapping[str, str]) -> str:
    return re.sub("%(.)", lambda found: tokens.get(found[1], found[0]), text)


def _paths(values: Sequence[str], place: Place, tokens: Mapping[str, str]) -> list[Path]:
    """ssh prints several in one line, and no quotes: a path with blanks is known by its being there."""
    found = []
    words = " ".join(one for one in values if one != "none").split()
    while words:
        starts = [_filled(" ".join(words[:end]), place, tokens) for end in range(1, len(words) + 1)]
        count = next((end for end in range(len(words), 0, -1) if place.exists(starts[end - 1])), 1)
        found.append(Path(starts[count - 1]))
        words = words[count:]
    return found


def _agent(said: Mapping[str, Sequence[str]], place: Place, tokens: Mapping[str, str]) -> str:
    stated = (said.get("identityagent") or ["SSH_AUTH_SOCK"])[0]
    if stated == "none":
        return ""
    if stated == "SSH_AUTH_SOCK":
        return place.environment.get("SSH_AUTH_SOCK", "")
    if re.fullmatch(r"\$\w+", stated):
        return place.environment.get(stated[1:], "")
    return _filled(stated, place, tokens)


def _way(
    said: Mapping[str, Sequence[str]],
    login: Mapping[str, Any],
    known: Sequence[Path],
    place: Place,
    tokens: Mapping[str, str],
) -> tuple[str, ...]:
    """The command that stands between here and the machine; empty where there is none."""
    if jumps := _one(said, "proxyjump"):
        *before, last = jumps.split(",")
        config = _config_file([*_split(login, "ssh_args"), *_split(login, "ssh_common_args")])
        # Those of the person count as well: a jump host is met by the site's own files or by theirs.
        own = [*known, place.home / ".ssh/known_hosts", place.home / ".ssh/known_hosts2"]
        files = " ".join(f'"{path}"' for path in dict.fromkeys(own))
        return (
            *(str(login["ssh_executable"] or "ssh"), *config),
            *("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={files}"),
            *("-o", f"ConnectTimeout={_seconds(_one(said, 'connecttimeout')):.0f}"),
            *(["-J", ",".join(before)] if before else []),
            *_jump_host(last),
            *("-W", f"[{tokens['h']}]:{tokens['p']}"),
        )
    command = _one(said, "proxycommand")
    return ("sh", "-c", f"exec {_with_tokens(command, tokens)}") if command else ()


def _config_file(words: Sequence[str]) -> list[str]:
    """What names another file than ~/.ssh/config, which OpenSSH hands on to the jump host's own ssh."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "-F":
            return ["-F", following]
        if word.startswith("-F"):
            return ["-F", word[2:]]
    return []


def _jump_host(text: str) -> list[str]:
    """The words of ssh for [user@]host[:port], as `ssh -G` prints it: an address may stand in brackets."""
    user, _, rest = text.removeprefix("ssh://").rpartition("@")
    found = re.fullmatch(r"\[(?P<host>[^]]+)\](?::(?P<port>\d+))?|(?P<name>[^:]+)(?::(?P<digits>\d+))?", rest)
    host = (found["host"] or found["name"]) if found else rest
    port = (found["port"] or found["digits"]) if found else None
    return [*(["-l", user] if user else []), *(["-p", port] if port else []), host]


def _sudo(become: Mapping[str, Any] | None) -> Sudo | None:
    return None if become is None else sudo_of(become)
