"""What an image for containers is made of, and podman's command lines. Pure.

The root is a small Debian or Ubuntu, or an image that somebody names. Above it lies one layer with the
environment, installed from the locks at the same place and by the same steps as a node's (role conda_env).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LABEL = "org.clusterwright"
INPUTS = "/run/clusterwright"  # where the files of a build are mounted
CHANNEL = "@channel"  # stands for its address, which conda knows
WORK = "/opt/clusterwright-build"  # of the container, and gone before it becomes an image
# What jobs use beside the environment: a compiler (torch, triton and DeepSpeed call it), ssh, and what shows
# processes and addresses.
PACKAGES = ("ca-certificates", "g++", "iproute2", "libc6-dev", "make", "openssh-client", "procps")
_LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")

# Arguments: prefix, then pip's words without its Python. What role conda_env does on a node, in that order.
SCRIPT = f"""\
set -eu
prefix=$1; shift
mkdir -p {WORK} "$(dirname "$prefix")"
export TMPDIR={WORK} HOME={WORK}
echo "step: conda"
sh {INPUTS}/installer.sh -b -p {WORK}/conda >/dev/null
address='import sys; from conda.models.channel import Channel; print(Channel(sys.argv[1]).base_url)'
channel=$({WORK}/conda/bin/python -c "$address" "$(cat {INPUTS}/channel)")
while read -r line; do echo "${{line/#{CHANNEL}/$channel}}"; done <{INPUTS}/conda.txt >{WORK}/conda.txt
{WORK}/conda/bin/conda create --yes --quiet --prefix "$prefix" --file {WORK}/conda.txt >/dev/null
python="$prefix/bin/python"
echo "step: wheels"
"$python" "$@" --only-binary :all: --requirement {INPUTS}/wheels.txt
if [ -s {INPUTS}/sources.txt ]; then
    echo "step: sources"
    env $(cat {INPUTS}/variables.txt) "$python" "$@" --no-binary :all: --no-build-isolation \\
        --requirement {INPUTS}/sources.txt
fi
echo "step: checks"
digest() {{ "$python" -I -B - --prefix "$prefix" "$@" <{INPUTS}/digest.py; }}
digest --only-recorded --clear-bytecode --close >/dev/null
"$python" -B {INPUTS}/run_checks.py <{INPUTS}/checks.json
digest --only-recorded --clear-bytecode --close >/dev/null
echo "step: digest"
digest --record --built-from "$(cat {INPUTS}/built_from)"
install -D -m 0755 {INPUTS}/digest.py /usr/local/lib/clusterwright/environment_digest.py
rm -rf {WORK}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An image: of which environment and kind, where that lies in it, and its locks (texts)."""

    name: str
    kind: str
    prefix: str
    conda_lock: str
    wheel_lock: str
    base: str = ""  # somebody's image; "" makes a root here

    @property
    def built_from(self) -> str:
        """Names the locks as role conda_env does, so that an image and a node can be compared."""
        return hashlib.sha256((self.conda_lock.rstrip() + self.wheel_lock.rstrip()).encode()).hexdigest()

    @property
    def tag(self) -> str:
        return f"localhost/clusterwright/{self.name}:{self.kind}"

    @property
    def container(self) -> str:
        """In which it is made."""
        return f"clusterwright-{self.name}-{self.kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many files and processes a container may be given: no more than whoever starts it has."""

    files: int
    processes: int


def root_tag(release: str) -> str:
    """The image of the root that this recipe gives."""
    state = json.dumps([release, PACKAGES, _LEFT_OUT])
    return f"localhost/clusterwright/root:{release}-{hashlib.sha256(state.encode()).hexdigest()[:12]}"


def root_words(release: str, target: Path, *, as_root: bool) -> list[str]:
    """mmdebstrap's command line for a root, as a tar file; without root by user namespaces."""
    alone = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
    return [
        *(alone if as_root else ()),
        *("mmdebstrap", f"--mode={'root' if as_root else 'unshare'}", "--variant=minbase"),
        f"--include={','.join(PACKAGES)}",
        *(f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT),
        *(release, str(target)),
    ]


def build_words(wanted: Wanted, root: str, inputs: Path, pip: Sequence[str], limits: Limits) -> list[str]:
    """Runs the script in a container that is kept."""
    return [
        *("podman", "run", "--name", wanted.container, "--network", "host", *_limited(limits)),
        *("--volume", f"{inputs}:{INPUTS}:ro", "--entrypoint", "", "--user", "0", root),
        *("bash", f"{INPUTS}/build.sh", wanted.prefix, *pip),
    ]


def commit_words(wanted: Wanted, digest: str) -> list[str]:
    """Makes an image without a name of what the container holds."""
    changes = [
        f"ENV PATH={wanted.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        f"ENV CONDA_PREFIX={wanted.prefix}",
        f"LABEL {LABEL}.environment={wanted.name}",
        f"LABEL {LABEL}.kind={wanted.kind}",
        f"LABEL {LABEL}.prefix={wanted.prefix}",
        f"LABEL {LABEL}.built-from={wanted.built_from}",
        f"LABEL {LABEL}.digest={digest}",
        'CMD ["python"]',
        "ENTRYPOINT []",
    ]
    if (
        wanted.kind != "cpu"
    ):  # what NVIDIA's runtime reads: https://github.com/NVIDIA/nvidia-container-toolkit
        changes += ["ENV NVIDIA_VISIBLE_DEVICES=all", "ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility"]
    words = [word for change in changes for word in ("--change", change)]
    return ["podman", "commit", "--quiet", "--format", "oci", *words, wanted.container]


def digest_words(prefix: str, image: str, limits: Limits) -> list[str]:
    """Computes the digest of the environment in an image, anew, by the program on standard input."""
    return [
        *("podman", "run", "--rm", "--interactive", "--network", "none", *_limited(limits)),
        *("--entrypoint", "", image, f"{prefix}/bin/python", "-I", "-B", "-", "--prefix", prefix),
        *("--verify", "--full"),
    ]


def _limited(limits: Limits) -> tuple[str, ...]:
    """podman's own are higher than some machines allow, and then nothing starts."""
    files, processes = f"{limits.files}:{limits.files}", f"{limits.processes}:{limits.processes}"
    return ("--ulimit", f"nofile={files}", "--ulimit", f"nproc={processes}")


def pip_words(role: Mapping[str, object], wheel_source: str) -> list[str]:
    """The words of role conda_env for pip (its vars), after the name of the program."""
    words = role["conda_env_pip"]
    assert isinstance(words, list)
    host = wheel_source.partition("://")[2].partition("/")[0].rpartition("@")[2].partition(":")[0]
    index = ["--index-url", wheel_source] if wheel_source else []
    trusted = ["--trusted-host", host] if wheel_source.startswith("http:") else []
    return [*map(str, words[1:]), *index, *trusted]


def variables_text(role: Mapping[str, object]) -> str:
    """What role conda_env sets where sources are built, as words of env(1)."""
    found = role["conda_env_same_everywhere"]
    assert isinstance(found, dict)
    return "".join(f"{name}={value}\n" for name, value in found.items())
