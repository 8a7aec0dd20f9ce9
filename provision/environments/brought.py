"""What people bring, an environment.yml or requirements, as the inputs of an environment of wheels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from provision.environments.lint.entries import canonical
from provision.environments.lint.reading import tree_of
from provision.errors import BadInput
from provision.printable import one_line

# conda's names whose wheel has another one.
_WHEELS = {
    "pytorch": "torch",
    "pytables": "tables",
    "matplotlib-base": "matplotlib",
    "opencv": "opencv-python-headless",
    "py-opencv": "opencv-python-headless",
    "pyqt": "pyqt5",
    "msgpack-python": "msgpack",
    "python-graphviz": "graphviz",
    "tensorflow-base": "tensorflow",
    "dask-core": "dask",
    "seaborn-base": "seaborn",
    "python-xxhash": "xxhash",
    "brotli-python": "brotli",
}
_CUDA = "the CUDA of a kind comes with its torch as wheels, and the driver is the node's"
_LEFT = {
    **dict.fromkeys(
        ("pytorch-cuda", "cudatoolkit", "cuda-version", "cudnn", "nccl", "cuda", "cuda-toolkit"), _CUDA
    ),
    **dict.fromkeys(
        ("pytorch-mutex", "cpuonly", "pytorch-gpu", "pytorch-cpu"), "a kind says whether torch is for GPUs"
    ),
    "pip": "the conda layer has it",
    "setuptools": "torch asks for the one that it takes",
    "wheel": "nodes build nothing",
}
_CONDA_ONLY = {
    *(
        "ffmpeg",
        "git",
        "git-lfs",
        "compilers",
        "gcc",
        "gxx",
        "gxx_linux-64",
        "gcc_linux-64",
        "make",
        "cuda-nvcc",
    ),
    *(
        "openmpi",
        "mpich",
        "libaio",
        "openssl",
        "r-base",
        "nodejs",
        "openjdk",
        "graphviz",
        "mkl",
        "blas",
        "tmux",
    ),
    *(
        "libstdcxx-ng",
        "libgcc-ng",
        "sysroot_linux-64",
        "parallel",
        "wget",
        "curl",
        "unzip",
        "htop",
        "vim",
        "conda",
    ),
}
_OF_KIND = re.compile(r"torch|triton|nvidia-.*")
_COMPANIONS = ("torchvision", "torchaudio")
_NAME = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(\[[A-Za-z0-9, ._-]*\])?\s*(.*)")
_SPECIFIERS = re.compile(r"(?:(?:===?|~=|!=|<=|>=|<|>)\s*[A-Za-z0-9.*+!_-]+\s*,?\s*)*")
_DEEPEST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """wheels: lines of wheels.in. left: what is not among them, with the reason."""

    wheels: tuple[str, ...]
    left: tuple[tuple[str, str], ...]


class _Lines:
    def __init__(self) -> None:
        self.wheels: dict[str, str] = {}
        self.left: list[tuple[str, str]] = []

    def leave(self, line: str, why: str) -> None:
        self.left.append((one_line(line)[:200], why))

    def take(self, name: str, extras: str, versions: str, marker: str, line: str) -> None:
        name = canonical(name)
        if _OF_KIND.fullmatch(name):
            self.leave(line, "a kind has its own torch, with what torch asks for")
            return
        if name in _COMPANIONS and versions:
            self.leave(line, f"{name} is taken without this version: a kind's torch decides it")
            versions = ""
        text = f"{name}{extras}{versions}" + (f" ; {marker}" if marker else "")
        if self.wheels.setdefault(f"{name} {marker}", text) != text:
            self.leave(line, f"{name} is asked for twice; the first stays")


def read_brought(path: Path, *, has_wheel: Callable[[str], bool | None]) -> Brought:
    """The wheels that a file asks for.

    Args:
        has_wheel: whether an index has a package of this name; None where no index answers.

    Raises:
        BadInput: it is neither, or cannot be read.
    """
    lines = _Lines()
    try:
        if path.suffix in (".yml", ".yaml"):
            _environment(tree_of(_text(path)), path, lines, has_wheel)
        else:
            _requirements(path, lines, 0)
    except OSError as e:
        raise _refusal(path, str(e.strerror)) from e
    except UnicodeDecodeError as e:
        raise _refusal(path, "it is no text") from e
    except yaml.YAMLError as e:
        raise _refusal(path, "it is no YAML") from e
    except ValueError as e:
        raise _refusal(path, one_line(str(e))[:200]) from e
    return Brought(wheels=tuple(sorted(lines.wheels.values())), left=tuple(lines.left))


def _refusal(path: Path, found: str) -> BadInput:
    fix = "Name an environment.yml of conda, or requirements of pip."
    return BadInput(f"read {one_line(str(path))}", found=found, fix=fix)


def _text(path: Path) -> str:
    if not path.is_file():
        raise ValueError("there is no such file")
    if path.stat().st_size > 1 << 20:
        raise ValueError("it is larger than 1 MiB")
    return path.read_text(encoding="utf-8-sig")


def _environment(
    tree: Mapping[str, Any], path: Path, lines: _Lines, has_wheel: Callable[[str], bool | None]
) -> None:
    wanted = tree.get("dependencies")
    if not isinstance(wanted, list):
        raise ValueError("it has no list of dependencies")
    for one in wanted:
        if isinstance(one, str):
            _conda(one, lines, has_wheel)
        elif isinstance(one, dict) and isinstance(one.get("pip"), list):
            for line in one["pip"]:
                _pip(str(line), path, lines, 0)
        else:
            lines.leave(str(one), "it is no package")
    for key in ("variables", "prefix"):
        if key in tree:
            lines.leave(key, "an environment of wheels has none")


def _conda(line: str, lines: _Lines, has_wheel: Callable[[str], bool | None]) -> None:
    words = line.partition("#")[0].strip().rpartition("::")[2]
    found = re.fullmatch(r"([A-Za-z0-9_][A-Za-z0-9._-]*)\s*(.*)", words)
    if found is None:
        lines.leave(line, "it is no package of conda's")
        return
    name, version = found[1].lower(), found[2].strip()
    if name == "python":
        if "3.11" not in version and version:
            lines.leave(line, "wheels are locked for Python 3.11")
    elif name in _LEFT:
        lines.leave(line, _LEFT[name])
    elif name in _CONDA_ONLY or name.startswith(("r-", "cuda-", "libcu", "_")):
        lines.leave(line, "conda alone has it: write it into environment.yml and lock that layer")
    elif (specifiers := specifiers_of(version)) is None:
        lines.leave(line, "it asks for a build of conda's, or for a version that pip has no words for")
    elif name not in _WHEELS and has_wheel(name) is False:
        lines.leave(line, "the index of Python packages has none of this name: is it conda's alone?")
    else:
        lines.take(_WHEELS.get(name, name), "", specifiers, "", line)


def specifiers_of(version: str) -> str | None:
    """conda's version in pip's words, =3.11 as ==3.11.*; None where there are none."""
    if re.search(r"\|", version):
        return None
    if found := re.fullmatch(r"=?\s*([A-Za-z0-9.]+)(?:\.\*)?", version):
        return f"=={found[1].removesuffix('.')}.*"
    if found := re.fullmatch(r"==\s*([A-Za-z0-9.]+)", version):
        return f"=={found[1]}"
    parts = [part.strip() for part in version.split(",")] if version else []
    for part in parts:
        if not re.fullmatch(r"(?:>=|<=|>|<|!=|==|~=)\s*[A-Za-z0-9.]+(?:\.\*)?", part):
            return None if part != "*" else ""
    return ",".join(part.replace(" ", "") for part in parts)


def _requirements(path: Path, lines: _Lines, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError("its -r lines include each other")
    for line in _logical(_text(path)):
        _pip(line, path, lines, depth)


def _logical(text: str) -> Iterator[str]:
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        if body := re.sub(r"(?:^|\s)#.*$", "", line).strip():
            yield body


def _pip(line: str, path: Path, lines: _Lines, depth: int) -> None:
    if found := re.fullmatch(r"(?:-r|--requirement)[= ]\s*(\S+)", line):
        if "://" in found[1] or not (path.parent / found[1]).is_file():
            lines.leave(line, "there is no such file")
        else:
            _requirements(path.parent / found[1], lines, depth + 1)
        return
    if line.startswith("-"):
        lines.leave(_without_secret(line), _why(line))
        return
    body = re.split(r"\s--hash", line)[0].strip()
    requirement, _, marker = body.partition(";")
    found = _NAME.fullmatch(requirement.strip())
    if re.match(r"(?:[a-z]+\+)?[a-z]+://|\.{0,2}/", body) or (found and found[3].startswith("@")):
        lines.leave(_without_secret(line), "it is an address: build a wheel of it once, and lock that")
    elif found is None or not _SPECIFIERS.fullmatch(found[3].strip()):
        lines.leave(line, "it is no requirement")
    else:
        versions = found[3].replace(" ", "").rstrip(",")
        lines.take(found[1], found[2] or "", versions, one_line(marker.strip()), line)


def _without_secret(line: str) -> str:
    return re.sub(r"://[^/\s@]+@", "://***@", line)


def _why(line: str) -> str:
    if re.match(r"-e|--editable", line):
        return "it is a folder of one machine: build a wheel of it once, and lock that"
    if re.match(r"-i|--(extra-)?index-url|-f|--find-links|--trusted-host", line):
        return "no input names a place: UV_DEFAULT_INDEX and conda_env_wheel_source do"
    if re.match(r"-c|--constraint", line):
        return "write what it constrains into wheels.in"
    return "it is an option of pip's, which the solver is not given"
