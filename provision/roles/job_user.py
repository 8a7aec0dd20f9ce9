"""Whether the user of jobs is there, may be made, or is somebody else's account. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Below are accounts of the system (Debian policy 9.2.2).
_LEAST_UID = 1000
_CHOOSE = "choose another name (cluster_user) or number (job_user_uid)"


def problems(
    commands: Mapping[str, Mapping[str, Any]],
    *,
    name: str,
    uid: int,
    made: Sequence[str],
    may_adopt: bool,
) -> list[str]:
    """Why this account cannot be the user of jobs, each with what to do.

    Args:
        commands: what getent said of the name and the number (`account`, `number`, `group`, `group_number`),
            and stat of the owner of a `home`.
        uid: of the user and of its group, where they are made.
        made: what `made_by` says of it.
        may_adopt: an account that is there may have another number.
    """
    if uid < _LEAST_UID:
        return [f"job_user_uid is {uid}, the system's own: take one from {_LEAST_UID} on"]
    account = _fields(commands["account"])
    if account:
        return list(_of_account(account, name=name, uid=uid, made=made, may_adopt=may_adopt))
    return list(_of_place(commands, name=name, uid=uid))


def _of_account(
    account: Sequence[str], *, name: str, uid: int, made: Sequence[str], may_adopt: bool
) -> Iterator[str]:
    found = int(account[2])
    if found == 0:
        yield f"{name} has the rights of root: {_CHOOSE}, or say cluster_user: root"
    elif list(made[:2]) == [name, str(found)]:
        return
    elif found != uid and not may_adopt:
        yield (
            f"there is a user {name} with the number {found}, which site.yml did not make: {_CHOOSE}; "
            f"where jobs may run as it, say job_user_adopted: true"
        )


def _of_place(commands: Mapping[str, Mapping[str, Any]], *, name: str, uid: int) -> Iterator[str]:
    owner, group = _fields(commands["number"]), _fields(commands["group"])
    of_group, home = _fields(commands["group_number"]), str(commands["home"]["stdout"]).strip()
    if owner:
        yield f"the number {uid} is {owner[0]}'s: {_CHOOSE}"
    if group and group[2] != str(uid):
        yield f"there is a group {name} with the number {group[2]}: {_CHOOSE}"
    if of_group and of_group[0] != name:
        yield f"the number {uid} is the group {of_group[0]}'s: {_CHOOSE}"
    if home not in ("", str(uid)):
        yield f"there is a folder /home/{name} of the user with the number {home}: move it away, or {_CHOOSE}"


def made_by(record: str, name: str) -> list[str]:
    """The fields of this account's line in the node's record of those that were made; none for none."""
    return next((words for words in map(str.split, record.splitlines()) if words[0] == name), [])


def record_with(record: str, commands: Mapping[str, Mapping[str, Any]], *, name: str, uid: int) -> str:
    """The record with this account, which is about to be made: its name, its number, and what stays of it.

    `home` and `group` were there before. Accounts that jobs had before stay in it, and go with a teardown.
    """
    others = [line for line in record.splitlines() if line.split()[:1] != [name]]
    words = made_by(record, name)
    if words[:2] != [name, str(uid)]:
        before = [one for one in ("home", "group") if commands[one]["rc"] == 0]
        words = [name, str(uid), *before]
    return "".join(f"{line}\n" for line in (*others, " ".join(words)))


def is_made(commands: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the account is still to be made."""
    return not _fields(commands["account"])


def _fields(said: Mapping[str, Any]) -> list[str]:
    """The fields of a line of passwd(5) or group(5); none where there is no such entry."""
    return str(said["stdout"]).split(":") if said["rc"] == 0 else []
