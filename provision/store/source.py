"""A tree that the controller itself has, to be sent."""

from __future__ import annotations

import threading
from pathlib import Path

from provision.errors import BadInput
from provision.store.node.manifest import BadManifest, Manifest, digest_of, text_of
from provision.store.node.packing import packed
from provision.store.node.tree import Tree

_THREADS = 4


class FolderSource:
    """A folder of this machine as it is now; each chunk is proven when it is read to be sent."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.changed = threading.Condition()
        self.text = text_of(manifest)
        self.digest = digest_of(self.text)
        self.have = bytearray(b"\1" * len(manifest.chunks))
        self.order: list[int] = []
        self._trees = threading.local()

    def read(self, number: int) -> bytes:
        """Raises:
        OSError: a file is not what it was when the folder was packed; the words name it.
        """
        if not hasattr(self._trees, "tree"):
            self._trees.tree = Tree(str(self.folder))
        tree: Tree = self._trees.tree
        return tree.read(self.manifest.chunks[number])


def folder_source(folder: Path, kind: str, *, leave_out: tuple[str, ...] = ()) -> FolderSource:
    """Packs a folder.

    Raises:
        BadInput: it is none, or holds something that no tree may hold.
    """
    asked = f"pack {folder}"
    try:
        manifest = packed(str(folder), kind, leave_out=leave_out, threads=_THREADS)
    except BadManifest as e:
        raise BadInput(asked, found=str(e), fix="Take it out of the folder, or name another one.") from e
    except OSError as e:
        fix = "Name a folder that you can read, and that nobody writes to meanwhile."
        raise BadInput(asked, found=e.strerror or str(e), fix=fix) from e
    if not manifest.bytes:
        raise BadInput(asked, found="there is nothing in it", fix="Name the folder that holds the files.")
    return FolderSource(folder, manifest)
