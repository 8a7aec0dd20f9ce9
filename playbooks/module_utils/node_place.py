"""Where a node's file lies: folders opened one by one from /, so that no user decides where root writes.

A link counts in a folder that root alone can change, such as /etc/resolv.conf or /data. In any other folder a
link, a second name of a file (hard link), a FIFO and a device are refused, by name.
"""

from __future__ import annotations

import errno
import os
import pwd
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40  # as the kernel's own limit, path_resolution(7)
_MOST_BYTES = 16 << 20  # of a file that others than root can change


class Refused(Exception):
    """Something that root does not go through; the text says what it is and how to go on."""

    def __init__(self, path: str, found: str, fix: str) -> None:
        super().__init__(f"{path} {found}. Nothing was read or written through it. {fix}")


class Place:
    """A name in an opened folder.

    path: without links. missing: folders that are not there yet, the outermost first. foreign: the folders on
    the way that are not root's, each with its owner's number.
    """

    missing: list[str]
    foreign: list[tuple[str, int]]
    _at: list[str]

    def __init__(self, path: str) -> None:
        self.folder, self._at, self.foreign, self.missing = os.open("/", _FOLDER), [], [], []
        try:
            self.name = self._walk(_names(path))
        except BaseException:
            os.close(self.folder)
            raise

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.folder)

    @property
    def path(self) -> str:
        return "/" + "/".join([*self._at, *self.missing, self.name])

    def _walk(self, names: list[str]) -> str:
        links = 0
        while names:
            name = names.pop(0)
            status = self.status(name)
            if status is None:
                self.missing, last = [name, *names][:-1], [name, *names][-1]
                return last
            if stat.S_ISLNK(status.st_mode):
                self._trust_link(name)
                links += 1
                if links > _MOST_LINKS:
                    raise Refused(self._shown(name), "is a link that leads to itself", "Correct it.")
                names = self._follow(name) + names
            elif names:
                self._enter(name)
            else:
                return name
        raise Refused("/", "is no file", "Name a file.")

    def status(self, name: str) -> os.stat_result | None:
        """What a name of the folder is, without following it; None where there is none."""
        try:
            return os.stat(name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _follow(self, name: str) -> list[str]:
        target = os.readlink(name, dir_fd=self.folder)
        if target.startswith("/"):
            self._swap(os.open("/", _FOLDER))
            self._at = []
        return _names(target)

    def _trust_link(self, name: str) -> None:
        if is_changeable(self.folder):
            target = os.readlink(name, dir_fd=self.folder)
            found = f"is a link to {target}, in a folder that {_who(self.folder)} can change"
            raise Refused(
                self._shown(name), found, "Put a folder or a file of its own there instead of the link."
            )

    def _enter(self, name: str) -> None:
        try:
            self._swap(os.open(name, _FOLDER, dir_fd=self.folder))
        except NotADirectoryError as e:
            raise Refused(self._shown(name), "is no folder", "Move it away.") from e
        self._at = self._at[:-1] if name == ".." else [*self._at, name]
        uid = os.fstat(self.folder).st_uid
        if uid not in (0, os.geteuid()):
            self.foreign.append((self._shown(), uid))

    def _swap(self, folder: int) -> None:
        os.close(self.folder)
        self.folder = folder

    def _shown(self, *name: str) -> str:
        return "/" + "/".join([*self._at, *name])

    def read(self, reader: int | None = None) -> tuple[bytes, os.stat_result] | None:
        """Content and status of the file; None where there is none.

        reader: where others can change the folder, the number of the user who must be able to read the file;
        None for the folder's owner.
        """
        status = None if self.missing else self.status(self.name)
        if status is None:
            return None
        self._check(status)
        try:
            with _acting_as(self._reader(reader)):
                descriptor = os.open(
                    self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.folder
                )
        except OSError as e:
            raise self._unreadable(e, status) from e
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            self._check(status)
            if not (is_changeable(self.folder) or is_changeable(descriptor)):
                return stream.read(), status
            content = stream.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            found = f"has more than {_MOST_BYTES >> 20} MiB, and others than root can write it"
            raise Refused(self.path, found, "Move it away.")
        return content, status

    def _reader(self, reader: int | None) -> int:
        if not is_changeable(self.folder):
            return 0
        return os.fstat(self.folder).st_uid if reader is None else reader

    def _check(self, status: os.stat_result) -> None:
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self.path)
        if not stat.S_ISREG(status.st_mode):
            raise Refused(self.path, "is no regular file", "Move it away.")
        if status.st_nlink > 1 and is_changeable(self.folder):
            found = f"has {status.st_nlink} names, in a folder that {_who(self.folder)} can change"
            raise Refused(self.path, found, "Replace it by a copy: cp -p it aside, and move that over it.")

    def _unreadable(self, error: OSError, status: os.stat_result) -> OSError | Refused:
        if error.errno != errno.EACCES or not is_changeable(self.folder):
            return error
        found = f"belongs to {_name(status.st_uid)}, and whoever it is written for cannot read it"
        return Refused(self.path, found, "Give it to its user (chown), or move it away.")

    def check_owners(self, uid: int) -> None:
        """Refuses to write a user's file below a folder of another user."""
        for path, owner in self.foreign if uid != 0 else []:
            if owner != uid:
                found = f"belongs to {_name(owner)}, but a file for {_name(uid)} goes there"
                raise Refused(path, found, f"Give it to its user: chown {_name(uid)} {path}")

    def make_folders(self, uid: int, gid: int, mode: int) -> None:
        """Makes the missing folders: the last one as said, those above it 0755 and, outside homes, root's."""
        while self.missing:
            name, *self.missing = self.missing
            os.mkdir(name, 0o700, dir_fd=self.folder)
            new = os.open(
                name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.folder
            )
            try:
                # Somebody may have put another folder under the name meanwhile.
                if os.fstat(new).st_uid != os.geteuid() or os.listdir(new):
                    raise Refused(self._shown(name), "was replaced while it was made", "Try again.")
                of_user = self.foreign or not self.missing
                _give(new, *((uid, gid) if of_user else (-1, -1)), 0o755 if self.missing else mode)
                self._enter(name)
            finally:
                os.close(new)

    def write(self, content: bytes, uid: int, gid: int, mode: int) -> None:
        """Replaces the file by renaming; until it is complete only its writer can read it."""
        temporary = f".clusterwright-{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=self.folder)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                _give(descriptor, uid, gid, mode)
                os.fsync(descriptor)
            os.rename(temporary, self.name, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=self.folder)
            raise

    def unlink(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.name, dir_fd=self.folder)

    def rmdir(self) -> None:
        os.rmdir(self.name, dir_fd=self.folder)


def is_changeable(folder: int) -> bool:
    """Whether somebody else than root (or who runs this) can change what an opened folder or file holds."""
    status = os.fstat(folder)
    return status.st_uid not in (0, os.geteuid()) or bool(status.st_mode & 0o022)


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _who(folder: int) -> str:
    status = os.fstat(folder)
    return "everybody" if status.st_mode & 0o002 else _name(status.st_uid) if status.st_uid else "its group"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _give(descriptor: int, uid: int, gid: int, mode: int) -> None:
    """Owners first: a mode that is wider than 0600 must not come before them."""
    status = os.fstat(descriptor)
    if (uid, gid) != (-1, -1) and (uid, gid) != (status.st_uid, status.st_gid):
        os.fchown(descriptor, uid, gid)
    os.fchmod(descriptor, mode)


@contextmanager
def _acting_as(uid: int) -> Iterator[None]:
    """The kernel decides as it would for that user; without root's rights it decides for who runs this."""
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    own = pwd.getpwuid(uid).pw_gid if _name(uid) != str(uid) else group
    os.setgroups([own] if own != group else [])
    os.setegid(own)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
