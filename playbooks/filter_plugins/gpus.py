"""What nodes can run by their cards and drivers, under the names that the roles use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from provision.environments import kinds
from provision.environments.gpu_survey import surveyed
from provision.roles import gpu_driver


def node_of(name: str, observed: Mapping[str, Any], table: kinds.Table, installs: str = "") -> kinds.Node:
    smi = observed["commands"]["nvidia_smi"]
    return surveyed(
        name,
        texts_of(observed),
        table,
        smi_rc=smi["rc"],
        smi_output=smi["stdout"] or smi["stderr"],
        installs=installs,
    )


def texts_of(observed: Mapping[str, Any]) -> dict[str, str]:
    return {path: file["text"] for path, file in observed["files"].items() if file}


def gpu_verdict(
    observed: Mapping[str, Any],
    cuda: str,
    minimum_drivers: Mapping[str, str],
    kind: str,
    stated: Mapping[str, Any],
    is_chosen: bool,
) -> dict[str, Any]:
    """Whether a node runs the environment's CUDA and kind; `kind` is "" where nothing is chosen yet."""
    smi = observed["commands"]["nvidia_smi"]
    verdict = gpu_driver.judge(
        texts_of(observed),
        smi_rc=smi["rc"],
        smi_output=smi["stdout"] or smi["stderr"],
        cuda=cuda,
        minimum_drivers=minimum_drivers,
    )
    if kind and not verdict.problem:
        table = kinds.table_of(stated)
        node = node_of("", observed, table)
        problem = "" if node.problem else kinds.kept_problem(kind, node, table, is_chosen=is_chosen)
        verdict = replace(verdict, problem=problem)
    return asdict(verdict)


def gpu_survey(
    observed: Mapping[str, Any], name: str, looks: bool, installs: str, stated: Mapping[str, Any]
) -> dict[str, Any]:
    """What a node says, as kind_choice takes it; one whose cards are not looked at counts as one without."""
    table = kinds.table_of(stated)
    return asdict(node_of(name, observed, table, installs) if looks else kinds.Node(name=name))


def as_node(survey: Mapping[str, Any]) -> kinds.Node:
    return kinds.Node(**{**survey, "cards": [gpu_driver.Card(**card) for card in survey["cards"]]})


def kind_choice(
    nodes: Sequence[str],
    hostvars: Mapping[str, Mapping[str, Any]],
    stated: Mapping[str, Any],
    folder: str,
    architecture: str,
) -> dict[str, Any]:
    """The kind for all of these nodes, from what each of them said (gpu_survey)."""
    silent = [name for name in nodes if "environment_kind_survey" not in hostvars[name]]
    environment = Path(folder).name
    if silent:
        unasked = f"{', '.join(silent)} did not answer, or this run leaves it out (--limit)"
        fix = "run site.yml on all of them, or name the kind: cluster_environment_kind"
        return asdict(kinds.Choice(problem=f"The kind is chosen for all nodes, and {unasked}: {fix}"))
    found = [as_node(hostvars[name]["environment_kind_survey"]) for name in nodes]
    locked = kinds.locked_kinds((path.name for path in Path(folder).glob("wheels-*.lock")), architecture)
    table = kinds.table_of(stated)
    return asdict(kinds.choose(found, table, locked, environment=environment, architecture=architecture))


def recorded_kind(path: str, environment: str) -> str:
    """The kind that was chosen for an environment of this site; "" where none was."""
    record = Path(path)
    text = record.read_text(errors="replace") if record.is_file() else ""
    return kinds.recorded(text, environment, path=path)


def with_kind(path: str, environment: str, choice: Mapping[str, Any]) -> dict[str, Any]:
    """What the record says once this choice is in it."""
    record = Path(path)
    text = record.read_text(errors="replace") if record.is_file() else ""
    return kinds.with_choice(text, environment, kind=choice["kind"], why=choice["why"], path=path)


def cuda_of(stated: Mapping[str, Any], kind: str) -> str:
    """The CUDA of a kind; "" for cpu and for one that envs/kinds.yml does not have."""
    known = kinds.table_of(stated).named(kind)
    return known.cuda if known else ""


def of_a_kind(lock: str) -> str:
    """The path of the lock of wheels.

    Raises:
        BadInput: no kind is chosen yet, so that there is none.
    """
    return kinds.chosen_lock(lock)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "cuda_of": cuda_of,
            "gpu_survey": gpu_survey,
            "gpu_verdict": gpu_verdict,
            "kind_choice": kind_choice,
            "of_a_kind": of_a_kind,
            "recorded_kind": recorded_kind,
            "with_kind": with_kind,
        }
