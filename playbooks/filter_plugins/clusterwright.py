"""The pure decisions of `provision`, under the names that the roles use."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from provision.errors import ProvisionError
from provision.roles import (
    data_disk,
    gpu_driver,
    job_firewall,
    job_user,
    nvidia_driver,
    proxy,
    running_kernel,
    supported_machines,
    wireguard_mesh,
)
from provision.roles.cluster_nodes import Node, nodes_of
from provision.roles.disks import NO_DISK, Folder, Wanted
from provision.roles.driver_parts import parts_of_drivers
from provision.roles.network_interface import interface_carrying
from provision.roles.observed import clock_problem, differing
from provision.roles.other_cluster import refusal as refusal_of_other_cluster
from provision.roles.ssh_trust import host_keys
from provision.roles.ssh_trust.cluster_key import authorised_line, bad_source
from provision.smoke import certificate

Dicts = Sequence[Mapping[str, Any]]


def cluster_nodes(names: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [asdict(node) for node in nodes_of(names, hostvars)]


def direct_hosts(nodes: Dicts, stated: Sequence[str]) -> list[str]:
    """Who is reached without the site's proxy."""
    return proxy.direct_hosts((str(node[word]) for node in nodes for word in ("name", "address")), stated)


def bad_sources(sources: Sequence[str]) -> list[str]:
    """What is wrong with the addresses from which the cluster's key opens."""
    wrong = {source: bad_source(source) for source in map(str, sources)}
    return [f"{source!r}: {bad.found}. {bad.fix}" for source, bad in wrong.items() if bad]


def numbered(devices: Dicts, uuid: str) -> list[str]:
    """The numbers of the devices that hold a file system."""
    return [device["number"] for device in devices if device["uuid"] == uuid]


def host_keys_read(files: Mapping[str, Mapping[str, str] | None]) -> list[str]:
    """The public keys among the observed files."""
    paths = [path for path in files if path.startswith("/etc/ssh/ssh_host_") and path.endswith("_key.pub")]
    keys = {host_keys.public_key(file["text"]) for path in paths if (file := files[path])}
    return sorted(keys - {""})


def ledger_plan(
    ledger: Mapping[str, Sequence[str]], observed: Mapping[str, Sequence[str]], replaced: Sequence[str]
) -> dict[str, Any]:
    plan = host_keys.plan_ledger(ledger, observed, replaced=replaced)
    return {"ledger": plan.ledger, "changed": [str(key) for key in plan.changed]}


def known_hosts_block(nodes: Dicts, ledger: Mapping[str, Sequence[str]]) -> str:
    return host_keys.known_hosts_block([Node(**node) for node in nodes], ledger)


def client_ports(nodes: Dicts, user: str) -> str:
    return host_keys.client_ports([Node(**node) for node in nodes], user)


def known_hosts_with(text: str, nodes: Dicts, ledger: Mapping[str, Sequence[str]]) -> str:
    return host_keys.known_hosts_file(text, [Node(**node) for node in nodes], ledger)


def signers_text(nodes: Dicts, ledger: Mapping[str, Sequence[str]], controller_key: str) -> str:
    return certificate.signers_text([node["name"] for node in nodes], ledger, controller_key)


def certificate_to_sign(text: str, nodes: Dicts, valid_days: float) -> dict[str, str]:
    """What the controller signs of a test, from the result that the node wrote, or only `problem`."""
    try:
        payload = certificate.to_sign(
            json.loads(text),
            nodes=[node["name"] for node in nodes],
            valid_days=valid_days,
            now=datetime.now(UTC),
        )
    except ProvisionError as e:
        return {"problem": str(e), "payload": ""}
    except ValueError as e:
        return {"problem": f"the result of the smoke test is damaged: {e}", "payload": ""}
    return {"problem": "", "payload": payload}


def refused_connections(names: Sequence[str], hostvars: Mapping[str, Any], register: str) -> list[str]:
    """Of the nodes that could not be reached, those whose host key ssh refused."""
    results = {name: hostvars[name].get(register, {}) for name in names}
    messages = {
        name: str(result.get("msg", "")) for name, result in results.items() if result.get("unreachable")
    }
    return host_keys.refused_connections(messages)


def other_cluster(answer: Sequence[str], name: str, nodes: Iterable[str], former: str) -> str:
    return refusal_of_other_cluster(answer, name=name, nodes=list(nodes), former=former)


def unsupported_machines(
    names: Sequence[str],
    hostvars: Mapping[str, Any],
    register: str,
    releases: supported_machines.Releases,
    architecture: str,
) -> list[str]:
    """Why nodes that were reached are not taken."""
    results = {name: hostvars[name].get(register, {}) for name in names}
    answers = {name: result["stdout_lines"] for name, result in results.items() if "stdout_lines" in result}
    return supported_machines.refusals(answers, releases=releases, architecture=architecture)


def as_it_was(observed: Mapping[str, str], path: str) -> dict[str, str]:
    """A file that was observed, as write_files takes it."""
    return {
        "path": path,
        "content": observed["text"],
        **{name: observed[name] for name in ("mode", "owner", "group")},
    }


def clock_problem_of(observed: Mapping[str, Any], largest_offset_seconds: float) -> str:
    return clock_problem(observed["commands"]["tracking"], largest_offset_seconds=largest_offset_seconds)


def data_disk_plan(report: Mapping[str, Any], asked: Mapping[str, str], mount_path: str) -> dict[str, Any]:
    """The plan, or only `problem`; `asked`: what `Wanted` has of the inventory."""
    device, adopt = asked["device"], asked["adopt"]
    try:
        if device not in ("", NO_DISK) and not report["asked"]:
            raise ProvisionError(
                f"use {device} as the data disk",
                found="there is no such device on this node",
                fix="Correct data_disk_device.",
            )
        wanted = Wanted(
            device=device if device in ("", NO_DISK) else report["asked"],
            serial=asked["serial"],
            label=asked["label"],
            mount_path=mount_path,
            adopt=report["asked"] or adopt if adopt.startswith("/") else adopt,
            programs=asked["programs"],
        )
        folder = Folder(**report["mount"])
        plan = data_disk.plan_data_disk(report["devices"], wanted, folder=folder, fstab=report["fstab"])
        replaced = data_disk.refuse_entry_of_others(report["fstab"], plan, wanted)
    except ProvisionError as e:
        return {"problem": str(e)}
    return {"problem": "", "replaced_entry": replaced, **asdict(plan)}


def data_disk_sharing(names: Sequence[str], hostvars: Mapping[str, Any], node: str, mount_path: str) -> str:
    """Why this node cannot have its data where others have theirs; "" where it can."""
    mounts = {
        name: found["disks"]["mount"]
        for name in names
        if "disks" in (found := hostvars[name].get("data_disk_observed") or {})
    }
    others = data_disk.shared_with(mounts, node)
    return data_disk.refusal_of_sharing(node, others, mounts[node], mount_path)


def collective_interface(ip_address_json: str, address: str, wanted: str) -> dict[str, str]:
    """The interface, or only `problem`."""
    try:
        name = interface_carrying(address, json.loads(ip_address_json), wanted=wanted)
    except ProvisionError as e:
        return {"problem": str(e)}
    return {"problem": "", "name": name}


def firewall_rules(fence: Mapping[str, Any], members_path: str) -> str:
    return job_firewall.rules_text(job_firewall.Fence(**fence), members_path)


def firewall_differences(commands: Mapping[str, Any], fence: Mapping[str, Any], *, probed: bool) -> list[str]:
    """What is not as wanted, live and for the next boot; `probed`: the user of jobs may ask root."""
    found = job_firewall.live_differences(commands["table"]["stdout"], job_firewall.Fence(**fence))
    if probed and commands["probe"]["stdout"] != "active":
        found.append(f"its probe is {commands['probe']['stdout'] or 'not there'}, not active")
    enabled = commands["enabled"]["stdout"]
    return found if enabled == "enabled" else [*found, f"its unit is {enabled or 'not there'}, not enabled"]


def firewall_refusals(
    commands: Mapping[str, Any], fence: Mapping[str, Any], *, is_ours: bool, check_mode: bool
) -> list[str]:
    """Why the firewall is not put up; in check mode users and packages may be still to come."""
    return job_firewall.refusals(
        {name: commands[name] for name in ("table", "users", "listening")},
        job_firewall.Fence(**fence),
        is_ours=is_ours,
        may_lack=check_mode,
    )


def job_user_plan(
    commands: Mapping[str, Any], name: str, uid: int, recorded: str, may_adopt: bool
) -> dict[str, Any]:
    """Whether the account is to be made, or `problem` why it cannot be had; and the record with it."""
    made = job_user.made_by(recorded, name)
    found = job_user.problems(commands, name=name, uid=uid, made=made, may_adopt=may_adopt)
    record = job_user.record_with(recorded, commands, name=name, uid=uid)
    return {"problem": "; ".join(found), "is_made": job_user.is_made(commands), "record": record}


def mesh_peers(names: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [asdict(peer) for peer in wireguard_mesh.peers_of(names, hostvars)]


def mesh_of(wanted: Mapping[str, Any]) -> wireguard_mesh.Mesh:
    peers = [wireguard_mesh.Peer(**peer) for peer in wanted["peers"]]
    return wireguard_mesh.Mesh(**{**wanted, "peers": peers})


def mesh_configuration(wanted: Mapping[str, Any], ledger: Mapping[str, str]) -> str:
    return wireguard_mesh.configuration(mesh_of(wanted), ledger)


def mesh_interface_address(wanted: Mapping[str, Any]) -> str:
    return mesh_of(wanted).interface_address


def mesh_ledger_plan(
    ledger: Mapping[str, str], names: Sequence[str], hostvars: Mapping[str, Any], replaced: Sequence[str]
) -> dict[str, Any]:
    """From the keys that were observed on nodes or, later, made there."""
    read = {
        name: hostvars[name].get("wireguard_mesh_own_key", {}).get("stdout")
        or hostvars[name]["wireguard_mesh_observed"]["commands"]["public"]["stdout"]
        for name in names
    }
    return asdict(wireguard_mesh.plan_ledger(ledger, read, replaced=replaced))


def mesh_refusals(observed: Mapping[str, Any], wanted: Mapping[str, Any], paths: Sequence[str]) -> list[str]:
    return wireguard_mesh.refusals(observed, mesh_of(wanted), paths=paths)


def mesh_problems(
    commands: Mapping[str, Any], wanted: Mapping[str, Any], ledger: Mapping[str, str], answers: bool
) -> list[str]:
    """What is not as wanted; `answers`: the other nodes are to answer, too."""
    mesh = mesh_of(wanted)
    found = wireguard_mesh.problems(commands, mesh, ledger)
    return [*found, *wireguard_mesh.silent(commands, mesh)] if answers else found


def lacks_peer_access(files: Mapping[str, Mapping[str, str] | None]) -> bool:
    """From the observed /proc/driver/nvidia/gpus/*/information, whose first line is the card's model."""
    texts = (file["text"] for path, file in files.items() if file and path.endswith("/information"))
    return gpu_driver.lacks_peer_access(text.splitlines()[0] for text in texts if text)


def removable_packages(results: Mapping[str, Any]) -> list[str]:
    """What `apt-get --simulate autoremove` would remove, from the results of a looped task."""
    lines = [line.split() for result in results["results"] for line in result["stdout"].splitlines()]
    return [words[1] for words in lines if words[:1] in (["Remv"], ["Purg"])]


def driver_tables(
    sets: Mapping[str, Sequence[Sequence[str]]], generations: Dicts = ()
) -> nvidia_driver.Tables:
    known = [nvidia_driver.Generation(**generation) for generation in generations]
    return nvidia_driver.Tables(generations=known, sets=sets)


def driver_names(wanted: Mapping[str, Any], sets: Mapping[str, Sequence[Sequence[str]]]) -> list[str]:
    """The packages that apt is asked about."""
    return nvidia_driver.names_to_ask(nvidia_driver.Wanted(**wanted), driver_tables(sets))


def driver_parts(observed: Mapping[str, Any], ours_alone: bool) -> list[str]:
    return parts_of_drivers(observed["commands"], ours_alone=ours_alone)


def driver_plan(
    observed: Mapping[str, Any],
    wanted: Mapping[str, Any],
    generations: Dicts,
    sets: Mapping[str, Sequence[Sequence[str]]],
) -> dict[str, Any]:
    files = {path: file["text"] for path, file in observed["files"].items() if file}
    tables = driver_tables(sets, generations)
    plan = nvidia_driver.plan(files, observed["commands"], nvidia_driver.Wanted(**wanted), tables)
    return {**asdict(plan), "is_settled": plan.is_settled, "intent": plan.intent}


def waiting_for_reboot(observed: Mapping[str, Any]) -> str:
    commands, flag = observed["commands"], observed["files"]["/run/reboot-required"]
    kernels = commands["kernels"]["stdout"].splitlines()
    return running_kernel.waiting_for_reboot(
        commands["running"]["stdout"], kernels, is_required=flag is not None
    )


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "clock_problem": clock_problem_of,
            "as_it_was": as_it_was,
            "authorised_line": authorised_line,
            "bad_sources": bad_sources,
            "certificate_to_sign": certificate_to_sign,
            "client_ports": client_ports,
            "cluster_nodes": cluster_nodes,
            "collective_interface": collective_interface,
            "data_disk_plan": data_disk_plan,
            "data_disk_sharing": data_disk_sharing,
            "direct_hosts": direct_hosts,
            "differing_from": differing,
            "driver_names": driver_names,
            "driver_parts": driver_parts,
            "driver_plan": driver_plan,
            "firewall_differences": firewall_differences,
            "firewall_members": job_firewall.members_text,
            "firewall_refusals": firewall_refusals,
            "firewall_rules": firewall_rules,
            "host_keys_read": host_keys_read,
            "is_of_another_machine": data_disk.is_of_another_machine,
            "job_user_plan": job_user_plan,
            "known_hosts_block": known_hosts_block,
            "known_hosts_with": known_hosts_with,
            "lacks_peer_access": lacks_peer_access,
            "ledger_plan": ledger_plan,
            "mesh_configuration": mesh_configuration,
            "mesh_interface_address": mesh_interface_address,
            "mesh_ledger_plan": mesh_ledger_plan,
            "mesh_peers": mesh_peers,
            "mesh_problems": mesh_problems,
            "mesh_refusals": mesh_refusals,
            "numbered": numbered,
            "proxy_apt": proxy.apt_text,
            "proxy_environment": proxy.environment_text,
            "refused_connections": refused_connections,
            "removable_packages": removable_packages,
            "sealed_certificate": certificate.sealed,
            "signers_text": signers_text,
            "other_cluster": other_cluster,
            "unsupported_machines": unsupported_machines,
            "waiting_for_reboot": waiting_for_reboot,
        }
