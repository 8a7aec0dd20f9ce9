"""podman's command lines, word by word, and the same installation as on a node."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from provision.environments.oci import recipe
from provision.environments.oci.recipe import Limits, Wanted

ROLE = yaml.safe_load(
    (Path(__file__).parents[5] / "playbooks/roles/conda_env/vars/main.yml").read_text(encoding="utf-8")
)
LIMITS = Limits(files=1024, processes=512)
PREFIX = "/data/miniconda3/envs/llm"
WANTED = Wanted(name="llm", kind="cuda130", prefix=PREFIX, conda_lock="a\n", wheel_lock="b\n")
LIMITED = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=512:512"]


def test_it_is_built_in_a_container_that_sees_its_inputs_and_is_kept() -> None:
    words = recipe.build_words(WANTED, "root:1", Path("/tmp/x"), ["-m", "pip"], LIMITS)

    assert words == [
        *("podman", "run", "--name", "clusterwright-llm-cuda130", "--network", "host", *LIMITED),
        *("--volume", "/tmp/x:/run/clusterwright:ro", "--entrypoint", "", "--user", "0", "root:1"),
        *("bash", "/run/clusterwright/build.sh", PREFIX, "-m", "pip"),
    ]


def test_its_digest_is_read_by_the_python_of_the_image_without_a_network() -> None:
    assert recipe.digest_words(PREFIX, "3f2a", LIMITS) == [
        *("podman", "run", "--rm", "--interactive", "--network", "none", *LIMITED, "--entrypoint", ""),
        *("3f2a", f"{PREFIX}/bin/python", "-I", "-B", "-", "--prefix", PREFIX, "--verify", "--full"),
    ]


def test_an_image_says_what_it_holds_and_for_cards_what_nvidia_s_runtime_reads() -> None:
    gpu, cpu = (recipe.commit_words(replace(WANTED, kind=kind), "d1") for kind in ("cuda130", "cpu"))

    assert gpu[:5] == ["podman", "commit", "--quiet", "--format", "oci"]
    assert "LABEL org.clusterwright.digest=d1" in gpu
    assert f"LABEL org.clusterwright.built-from={WANTED.built_from}" in gpu
    assert f"ENV PATH={PREFIX}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in gpu
    assert "ENV NVIDIA_VISIBLE_DEVICES=all" in gpu
    assert not [word for word in cpu if "NVIDIA" in word]
    assert gpu[-1] == "clusterwright-llm-cuda130"


def test_a_root_is_made_in_namespaces_by_root_and_by_others() -> None:
    by_root, by_others = (
        recipe.root_words("bookworm", Path("/t/root.tar"), as_root=root) for root in (True, False)
    )

    assert by_root[0] == "unshare"
    assert "--mode=root" in by_root
    assert by_others[:3] == ["mmdebstrap", "--mode=unshare", "--variant=minbase"]
    assert by_others[-2:] == ["bookworm", "/t/root.tar"]


def test_pip_is_given_the_words_of_the_role_and_what_it_needs_for_an_index_without_tls() -> None:
    words = recipe.pip_words(ROLE, "http://10.0.0.1:8080/simple")

    assert words[:4] == ["-m", "pip", "install", "--quiet"]
    assert {"--no-deps", "--require-hashes", "--no-compile", "--no-cache-dir"} <= set(words)
    assert words[-4:] == ["--index-url", "http://10.0.0.1:8080/simple", "--trusted-host", "10.0.0.1"]
    assert "--index-url" not in recipe.pip_words(ROLE, "")
    assert "--trusted-host" not in recipe.pip_words(ROLE, "https://mirror.example/simple")


def test_what_sources_are_built_with_is_as_on_a_node() -> None:
    assert recipe.variables_text(ROLE).splitlines() == [
        "PYTHONHASHSEED=0",
        "SOURCE_DATE_EPOCH=315532800",
        "CUDA_VISIBLE_DEVICES=",
        "GIT_DIR=/dev/null",
        "DS_ACCELERATOR=cpu",
        "DS_BUILD_OPS=0",
        "DS_BUILD_STRING=",
    ]


def test_locks_are_named_as_role_conda_env_names_them_so_that_an_image_and_a_node_compare() -> None:
    """Ansible's lookup of a file takes the white space at its end away."""
    assert WANTED.built_from == replace(WANTED, conda_lock="a", wheel_lock="b").built_from
    assert WANTED.built_from == "fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603"
