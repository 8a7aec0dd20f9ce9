"""A model of a hub: its revision pinned to a commit, resumed after a cut, files proven by the hub's hashes.

huggingface_hub does the downloading; it is installed with the extra `hub`.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from provision.errors import BadInput, CommandFailed, MissingRequirement, ProvisionError
from provision.printable import one_line
from provision.store.node.manifest import Manifest, is_digest

TRIES = 5
_AGAIN_SECONDS = 2.0
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_COMMIT = re.compile("[0-9a-f]{40}")
_SHOWN = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file as the hub lists it: its SHA-256 where it is a large one, else git's hash of it."""

    path: str
    size: int
    sha256: str
    blob: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A revision of a repository on this machine."""

    folder: Path
    commit: str
    files: tuple[HubFile, ...]


def is_repository(text: str) -> bool:
    """Whether it names a repository of a hub: OWNER/NAME."""
    return _REPOSITORY.fullmatch(text) is not None


def fetched(
    repository: str, revision: str, cache: Path, *, token: str, on_try: Callable[[int], None] = lambda _: None
) -> Snapshot:
    """Downloads a revision; run again, it goes on where it ended.

    Args:
        cache: the folder of all snapshots; each has its own, named by its commit.
        token: for the hub, or ""; it is said to nobody else.
        on_try: gets the number of each try.

    Raises:
        MissingRequirement: huggingface_hub is not installed.
        BadInput: there is no such repository or revision, or the token does not open it.
        CommandFailed: the hub was not reached, or what came is not what it says.
    """
    try:
        from huggingface_hub import HfApi, errors
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as e:
        raise MissingRequirement(
            f"fetch {repository} from a hub",
            found="huggingface_hub is not installed",
            fix="Install it beside provision: .venv/bin/python -m pip install 'huggingface_hub>=1'.",
        ) from e
    disable_progress_bars()
    asked = f"fetch {repository} at {revision}"
    api = HfApi(token=token or False)
    for number in range(1, TRIES + 1):
        on_try(number)
        try:
            commit = str(api.repo_info(repository, revision=revision).sha)
            if not _COMMIT.fullmatch(commit):
                raise CommandFailed(asked, found="the hub names no commit", fix="Correct HF_ENDPOINT.")
            folder = cache / f"{repository.replace('/', '--')}-{commit}"
            listed = [
                one
                for one in api.list_repo_tree(repository, recursive=True, revision=commit)
                if hasattr(one, "blob_id")
            ]
            files = tuple(_file(one, asked) for one in listed)
            api.snapshot_download(repository, revision=commit, local_dir=folder)
            return Snapshot(folder=folder, commit=commit, files=files)
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.DisabledRepoError) as e:
            raise _refused(asked, e, bool(token)) from e
        except ProvisionError:
            raise
        except errors.HFValidationError as e:
            raise BadInput(asked, found=one_line(str(e))[:_SHOWN], fix="Name it as OWNER/NAME.") from e
        except Exception as e:  # the client lets through whatever its libraries raise
            if number == TRIES:
                raise CommandFailed(
                    asked,
                    found=f"{type(e).__name__}: {one_line(str(e))[:_SHOWN]}",
                    fix="Run it again: what has come stays. HF_ENDPOINT names another hub.",
                ) from e
            time.sleep(_AGAIN_SECONDS)
    raise AssertionError("the last try returns or raises")


def refuse_changed(snapshot: Snapshot, manifest: Manifest, repository: str) -> None:
    """Holds what lies here against what the hub says of it.

    Raises:
        CommandFailed: a file is missing, or another one; it is deleted, so that the next run fetches it.
    """
    here = {file.path: file for file in manifest.files}
    wrong = [file.path for file in snapshot.files if not _is_as_listed(file, here, snapshot.folder)]
    if not wrong:
        return
    for path in wrong:
        (snapshot.folder / path).unlink(missing_ok=True)
    raise CommandFailed(
        f"fetch {repository}",
        found=f"not as the hub says: {', '.join(wrong[:5])}{' and more' if len(wrong) > 5 else ''}",
        fix="Run it again: these are fetched anew.",
    )


def _is_as_listed(listed: HubFile, here: Mapping[str, object], folder: Path) -> bool:
    file = here.get(listed.path)
    if file is None or getattr(file, "size", -1) != listed.size:
        return False
    if listed.sha256:
        return getattr(file, "sha256", "") == listed.sha256
    data = (folder / listed.path).read_bytes()
    # As git names it: gitglossary(7), "blob object".
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == listed.blob


def _file(listed: object, asked: str) -> HubFile:
    large = getattr(listed, "lfs", None)
    found = HubFile(
        path=str(getattr(listed, "path", "")),
        size=getattr(listed, "size", -1),
        sha256=str(getattr(large, "sha256", "")) if large else "",
        blob=str(getattr(listed, "blob_id", "")),
    )
    if type(found.size) is not int or found.size < 0 or (large and not is_digest(found.sha256)):
        raise CommandFailed(
            asked, found="the hub lists a file without its size or hash", fix="Correct HF_ENDPOINT."
        )
    return found


def _refused(asked: str, error: Exception, has_token: bool) -> BadInput:
    gated = type(error).__name__ == "GatedRepoError"
    token = (
        "the token is to be of somebody who may read it"
        if has_token
        else "set HF_TOKEN, or cluster_hub_token in a vault"
    )
    fix = f"Correct its name and revision; where it is private or gated, {token}."
    what = "it is gated" if gated else "the hub has no such repository or revision for you"
    return BadInput(asked, found=what, fix=fix)
