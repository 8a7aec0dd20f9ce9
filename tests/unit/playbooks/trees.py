"""Trees of images of a few files, and the program that looks into them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from provision.images.programs import image_program, secret_kinds

SECRETS = ("--secrets", secret_kinds())


class Tree:
    """A system disk and a data disk."""

    def __init__(self, folder: Path, files: dict[str, str], image: dict[str, Any] | None = None) -> None:
        self.root, self.data = folder / "root", folder / "data disk"
        self.program = image_program("image_tree.py")
        (self.root / "data").mkdir(parents=True)
        self.data.mkdir()
        manifest = json.dumps({"image": {"id": "te1-1", **(image or {})}})
        for path, text in {**files, "etc/clusterwright/image.json": manifest}.items():
            place = self.place(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)

    def place(self, path: str) -> Path:
        return self.data / path.removeprefix("data/") if path.startswith("data/") else self.root / path

    def begin(self, action: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", "-", action, "--root", self.root, "--data", self.data, *SECRETS, *words],
            input=self.program,
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, action: str, *words: str | Path) -> Any:
        finished = self.begin(action, *words)
        assert finished.returncode in (0, 1), finished.stderr
        found = json.loads(finished.stdout)
        assert action == "clean" or finished.returncode == bool(found)
        return found

    def files(self) -> dict[str, str]:
        found = {str(path.relative_to(self.root)): path for path in self.root.rglob("*")}
        found |= {f"data/{path.relative_to(self.data)}": path for path in self.data.rglob("*")}
        del found["etc/clusterwright/image.json"]
        return {name: path.read_text() for name, path in sorted(found.items()) if path.is_file()}


def archive(*names: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as members:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 2
            members.addfile(member, io.BytesIO(b"x\n"))
    return packed.getvalue()
