"""CUDA in a lock: builds, majors, and libraries that do not belong together."""

from __future__ import annotations

import re
from collections.abc import Iterator

from provision.environments.lint.entries import (
    CONDA,
    PIP,
    Fault,
    Group,
    Package,
    dotted,
    error,
    numbers,
    warning,
)

_GPU = ("pytorch", "torchvision", "torchaudio", "jaxlib", "tensorflow", "tensorflow-base", "libtorch")
_ASKS = ("cuda-version", "cudatoolkit", "pytorch-cuda", "pytorch-gpu", "cuda-toolkit", "tensorflow-gpu")
# The code generators of cutlass-dsl for both majors come together, and load one of them.
_WHEEL = re.compile(r"(?!nvidia-cutlass-dsl)nvidia-[a-z0-9-]+-cu(\d\d)")
_LIBRARIES = re.compile(r"(cuda-.*|lib(cu|np|nv).*|nccl|cudnn|libcudnn.*|cudatoolkit)")


def _asked(group: Group) -> Package | None:
    return next((found for name in _ASKS if (found := group.conda(name))), None)


def _cuda_of_build(build: str) -> tuple[int, ...]:
    """The CUDA that a conda build string names: cuda129 -> (12, 9), cuda12.1 -> (12, 1)."""
    if found := re.search(r"cuda_?(\d\d)\.(\d+)", build):
        return int(found[1]), int(found[2])
    found = re.search(r"cuda_?(\d\d)(\d)?", build)
    return (int(found[1]), *([int(found[2])] if found[2] else [])) if found else ()


def _cpu_build(group: Group) -> Iterator[Fault]:
    asked = _asked(group)
    for name in _GPU:
        package = group.conda(name)
        if package and asked and re.search(r"(^|[_-])cpu(_|$|\d)", package.build.replace("generic", "")):
            yield package, f"its build {package.build} is for CPUs, and {asked.name} {asked.version} is there"
    torch = group.pip("torch")
    if torch and torch.local == "cpu" and _suffixes(group):
        yield torch, "it is the build for CPUs, and NVIDIA's libraries are there"


def _build_older(group: Group) -> Iterator[Fault]:
    asked = group.conda("cuda-version") or group.conda("pytorch-cuda")
    for package in _gpu_builds(group):
        cuda = _cuda_of_build(package.build)
        if asked and cuda and asked.release and cuda[0] < asked.release[0]:
            yield package, f"its build is for CUDA {dotted(cuda)}, and {asked.name} is {asked.version}"


def _build_newer(group: Group) -> Iterator[Fault]:
    asked = group.conda("cuda-version")
    for package in _gpu_builds(group):
        cuda = _cuda_of_build(package.build)
        if asked and cuda and cuda > asked.release[: len(cuda)]:
            yield package, f"its build is for CUDA {dotted(cuda)}, and cuda-version is {asked.version} only"


def _gpu_builds(group: Group) -> list[Package]:
    return [one for one in group.packages if one.manager == CONDA and one.name in _GPU]


def _decorative(group: Group) -> Iterator[Fault]:
    asked = group.conda("cuda-version")
    libraries = [
        one
        for one in group.packages
        if one.manager == CONDA
        and one.name not in ("cuda-version", "pytorch-cuda")
        and (_LIBRARIES.fullmatch(one.name) or "cuda" in one.build or "gpu" in one.build)
    ]
    if asked and not libraries:
        yield asked, "no package beside it is built for CUDA"


def _suffixes(group: Group) -> dict[str, Package]:
    return {
        found[1]: one
        for one in group.packages
        if one.manager == PIP and (found := _WHEEL.fullmatch(one.name)) and not one.marker
    }


def _wheel_majors(group: Group) -> Iterator[Fault]:
    found = _suffixes(group)
    if len(found) > 1:
        names = ", ".join(found[key].name for key in sorted(found))
        yield found[min(found)], f"NVIDIA's wheels are for CUDA {' and '.join(sorted(found))}: {names}"


def _layers(group: Group) -> Iterator[Fault]:
    wheels, asked = _suffixes(group), group.conda("cuda-version") or group.conda("cudatoolkit")
    for major, package in sorted(wheels.items()):
        if asked and asked.release and int(major) != asked.release[0] and len(wheels) == 1:
            yield package, f"it is for CUDA {major}, and the conda layer holds {asked.name} {asked.version}"


def _toolkit(group: Group) -> Iterator[Fault]:
    for package in _gpu_builds(group):
        cuda = _cuda_of_build(package.build)
        for name in ("cudatoolkit", "pytorch-cuda"):
            other = group.conda(name)
            if other and len(cuda) > 1 and other.release[:2] != cuda:
                yield package, f"its build is for CUDA {dotted(cuda)}, and {name} is {other.version}"


def _toolkit_version(group: Group) -> Iterator[Fault]:
    version, toolkit = group.conda("cuda-version"), group.conda("cudatoolkit")
    if version and toolkit and version.release[:1] != toolkit.release[:1]:
        yield toolkit, f"it is {toolkit.version}, and cuda-version is {version.version}"


def _part(group: Group, *names: str) -> Iterator[Fault]:
    version = group.conda("cuda-version")
    for name in names:
        package = group.conda(name)
        if version and package and package.release[:2] != version.release[:2]:
            yield package, f"it is of CUDA {package.version}, and cuda-version is {version.version}"


def _cudart(group: Group) -> Iterator[Fault]:
    yield from _part(group, "cuda-cudart", "cuda-cudart_linux-64")


def _nvrtc(group: Group) -> Iterator[Fault]:
    yield from _part(group, "cuda-nvrtc")


def _wheel_parts(group: Group) -> Iterator[Fault]:
    for suffix in ("", "-cu11", "-cu12", "-cu13"):
        runtime = group.pip(f"nvidia-cuda-runtime{suffix}")
        compiler = group.pip(f"nvidia-cuda-nvrtc{suffix}")
        if runtime and compiler and runtime.release[:2] != compiler.release[:2]:
            yield compiler, f"it is {compiler.version}, and {runtime.name} is {runtime.version}"


def _nccl_layers(group: Group) -> Iterator[Fault]:
    conda = group.conda("nccl")
    for suffix in ("11", "12", "13"):
        wheel = group.pip(f"nvidia-nccl-cu{suffix}")
        if conda and wheel:
            yield wheel, f"NCCL is there twice: {wheel.version} as a wheel, {conda.version} from conda"


def _nccl_wheels(group: Group) -> Iterator[Fault]:
    found = [one for key in ("11", "12", "13") if (one := group.pip(f"nvidia-nccl-cu{key}"))]
    if len(found) > 1 and not any(one.marker for one in found):
        yield found[-1], f"NCCL is there {len(found)} times: {', '.join(one.name for one in found)}"


def _driver(group: Group) -> Iterator[Fault]:
    cuda = _cuda_needed(group)
    driver = group.floors.driver
    if cuda and driver:
        package, version = cuda
        least = 580 if version[0] >= 13 else 525 if version[0] == 12 else 450
        if driver[0] < least:
            yield package, f"CUDA {dotted(version)} needs driver {least}, and a node has {dotted(driver)}"


def _capability(group: Group) -> Iterator[Fault]:
    cuda = _cuda_needed(group)
    least, has = (7, 5) if cuda and cuda[1][0] >= 13 else (5, 0), group.floors.compute_capability
    if cuda and has and has < least:
        package, version = cuda
        yield (
            package,
            (f"CUDA {dotted(version)} begins with capability {dotted(least)}, and a node has {dotted(has)}"),
        )


def _cuda_needed(group: Group) -> tuple[Package, tuple[int, ...]] | None:
    for package in group.packages:
        name = package.name
        if package.manager == CONDA and name in ("cuda-version", "cudatoolkit", "pytorch-cuda"):
            return package, package.release
        if package.manager == PIP and name.startswith("nvidia-cuda-runtime") and package.release:
            return package, package.release[:2]
    torch = group.pip("torch")
    if torch and (found := re.fullmatch(r"cu(\d\d)(\d)", torch.local)):
        return torch, numbers(f"{found[1]}.{found[2]}")
    return None


RULES = (
    error(
        "cpu-build",
        _cpu_build,
        "Ask for the build, `pytorch=*=cuda*` or `pytorch-gpu`, and solve with the virtual package __cuda "
        "set (conda-lock: --with-cuda 12.9).",
    ),
    error(
        "cuda-build-older",
        _build_older,
        "Solve with __cuda as new as the driver's (conda-lock assumes 11.4: --with-cuda 12.9).",
    ),
    error("cuda-build-newer", _build_newer, "Raise cuda-version to the CUDA that the build was made with."),
    warning(
        "cuda-version-alone",
        _decorative,
        "Name a package that is built for CUDA, or take cuda-version out: alone it brings none.",
    ),
    error(
        "cuda-wheel-majors",
        _wheel_majors,
        "Keep the libraries of the CUDA that torch asks for, and lock anew.",
    ),
    error(
        "cuda-layers-majors",
        _layers,
        "Take torch and its libraries from one side, conda or wheels, or one CUDA for both.",
    ),
    error("pytorch-cudatoolkit", _toolkit, "Lock both for one CUDA, major and minor."),
    error(
        "cudatoolkit-cuda-version",
        _toolkit_version,
        "cudatoolkit ends with CUDA 11: take one of the two out.",
    ),
    error("cudart-cuda-version", _cudart, "Pin cuda-version alone and lock anew: it chooses the runtime."),
    error("nvrtc-cuda-version", _nvrtc, "Pin cuda-version alone and lock anew: it chooses the compiler."),
    error(
        "cuda-wheel-parts",
        _wheel_parts,
        "Pin none of NVIDIA's wheels and lock anew: torch names all of them.",
    ),
    error(
        "nccl-conda-and-wheel",
        _nccl_layers,
        "Take torch from one side; ranks that load another NCCL hang or end.",
    ),
    error("nccl-two-wheels", _nccl_wheels, "Keep the one that torch asks for; both write nvidia/nccl/lib."),
    error("driver-floor", _driver, "Lock for an older CUDA, or install a newer driver on that node."),
    error("capability-floor", _capability, "Lock for CUDA 12 there, or leave those nodes out."),
)
