"""torch and what must be of its release."""

from __future__ import annotations

import re
from collections.abc import Iterator

from provision.environments.lint.entries import Fault, Group, Package, error, warning

# triton and NCCL as the wheels of the index of Python packages ask for them (Requires-Dist of each release).
_ASKS = {
    "2.1.2": ("2.1.0", "2.18.1"),
    "2.2.2": ("2.2.0", "2.19.3"),
    "2.3.1": ("2.3.1", "2.20.5"),
    "2.4.1": ("3.0.0", "2.20.5"),
    "2.5.1": ("3.1.0", "2.21.5"),
    "2.6.0": ("3.2.0", "2.21.5"),
    "2.7.1": ("3.3.1", "2.26.2"),
    "2.8.0": ("3.4.0", "2.27.3"),
    "2.9.1": ("3.5.1", "2.27.5"),
    "2.10.0": ("3.6.0", "2.27.5"),
    "2.11.0": ("3.6.0", "2.28.9"),
    "2.12.1": ("3.7.1", "2.29.7"),
    "2.13.0": ("3.7.1", "2.29.7"),
    "2.14.1": ("3.8.0", "2.30.7"),
    "2.15.0": ("3.9.0", "2.30.7"),
}
_NAMES = ("torch", "pytorch", "pytorch-gpu", "pytorch-cpu", "libtorch")
_COMPILED = (
    "flash-attn",
    "deepspeed",
    "apex",
    "transformer-engine",
    "xformers",
    "causal-conv1d",
    "mamba-ssm",
)


def _torch(group: Group) -> Package | None:
    return group.pip("torch") or group.conda("pytorch")


def _twice(group: Group) -> Iterator[Fault]:
    wheel, conda = group.pip("torch"), group.conda("pytorch")
    if wheel and conda:
        yield wheel, f"it is there twice: {wheel.version} as a wheel, {conda.version} from conda"


def _companion(group: Group, name: str) -> Iterator[Fault]:
    torch, other = _torch(group), group.pip(name) or group.conda(name)
    if not (torch and other and len(torch.release) > 1 and len(other.release) > 1):
        return
    minor = torch.release[1]
    if torch.release[0] != 2 or (name == "torchaudio" and minor > 10):
        return
    wanted = (0, minor + 15) if name == "torchvision" else (2, minor)
    if other.release[:2] != wanted:
        yield other, f"{other.version} is not for torch {torch.version}, which takes {wanted[0]}.{wanted[1]}"


def _vision(group: Group) -> Iterator[Fault]:
    yield from _companion(group, "torchvision")


def _audio(group: Group) -> Iterator[Fault]:
    yield from _companion(group, "torchaudio")


def _asks_of(group: Group) -> tuple[Package, tuple[str, str]] | None:
    torch = group.pip("torch")
    asks = _ASKS.get(torch.version) if torch else None
    return (torch, asks) if torch and asks else None


def _triton(group: Group) -> Iterator[Fault]:
    found, triton = _asks_of(group), group.pip("triton")
    if found and triton and triton.version != found[1][0]:
        yield triton, f"it is {triton.version}, and torch {found[0].version} asks for {found[1][0]}"


def _nccl(group: Group) -> Iterator[Fault]:
    found = _asks_of(group)
    names = [one for one in group.packages if re.fullmatch(r"nvidia-nccl-cu\d\d", one.name)]
    if found and len(names) == 1 and names[0].version != found[1][1]:
        yield names[0], f"it is {names[0].version}, and torch {found[0].version} asks for {found[1][1]}"


def _majors(group: Group) -> Iterator[Fault]:
    torch = group.pip("torch")
    if torch is None or len(torch.release) < 2 or torch.release[0] != 2:
        return
    local = re.fullmatch(r"cu(\d\d)\d", torch.local)
    if torch.local and not local:
        return
    default = "13" if torch.release >= (2, 11) else "12" if torch.release >= (2, 1) else "11"
    wanted = local[1] if local else default
    for one in group.packages:
        found = re.fullmatch(r"nvidia-(?:cudnn|nccl|cusparselt|nvshmem)-cu(\d\d)", one.name)
        if found and found[1] != wanted:
            yield one, f"it is for CUDA {found[1]}, and torch {torch.version} is built for CUDA {wanted}"


def _locals(group: Group) -> Iterator[Fault]:
    torch = group.pip("torch")
    for name in ("torchvision", "torchaudio"):
        other = group.pip(name)
        if torch and other and torch.local and other.local and torch.local != other.local:
            yield other, f"its build is {other.local}, and torch's is {torch.local}"


def _compiled(group: Group) -> Iterator[Fault]:
    for one in group.packages:
        archive = (bool(one.files) and one.files[0].endswith((".tar.gz", ".zip"))) or one.source == "git"
        if one.name in _COMPILED and archive and one.manager == "pip":
            yield one, "it comes as sources: its installation needs torch, nvcc and a compiler on the node"


RULES = (
    error("torch-conda-and-wheel", _twice, "Keep one: the wheel (envs/README.md says why) or conda's."),
    error(
        "torchvision-release",
        _vision,
        "Lock torch and torchvision together, or take the release that it names.",
    ),
    error(
        "torchaudio-release", _audio, "Lock torch and torchaudio together, or take the release that it names."
    ),
    error("triton-release", _triton, "Take triton's pin out and lock anew: torch names its own."),
    warning("nccl-release", _nccl, "Take NCCL's pin out and lock anew: torch names its own."),
    error("torch-cuda-major", _majors, "Lock torch and NVIDIA's wheels together, from one index."),
    error("torch-local-builds", _locals, "Take all three from one index of PyTorch's."),
    error("needs-compiler", _compiled, "Build a wheel once, for this torch and Python, and lock that."),
)
