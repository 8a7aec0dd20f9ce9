"""What of one machine, and what is secret, must not go into an image of it: finds it, and takes it away.

    image_tree.py scan  --root R --data D --secrets S    lists as JSON what it finds; status 1 if anything
    image_tree.py clean --root R --data D --secrets S    mends what is safe to mend; a copy goes into --keep

R is the tree of a system disk, D that of the data disk ("" for none), S secrets.yml as JSON. Not read are
files that a package's record names (dpkg, conda, wheels; a digest vouches for environments); of binary files
their path alone counts. Standard library only: it runs with whichever Python a node has.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from image_keep import COVERED_HOMES, opened_folder, save
from image_secrets import (
    a_setting,
    content_findings,
    copied_of,
    key_places,
    public_keys,
    stated,
    take_in_contents,
)
from image_walk import data_path, environments, every_file, manifest_of, members, read

COVERED = f"({'|'.join(COVERED_HOMES).replace('*', '[^/]+')})"
SSHD = r"etc/ssh/authorized_keys(\.d)?/.*"
HOMES = rf"({COVERED}|data|data/home/[^/]+)"
ANYWHERE = "(.*/)?"
BLOCK = re.compile(r"^# BEGIN clusterwright.*?^# END clusterwright\n?", re.DOTALL | re.MULTILINE)
STABLE_NAME = re.compile(r"/dev/(disk/by-(id|uuid|label|partuuid|partlabel)|mapper)/")
if TYPE_CHECKING:
    Judge = Callable[[str], str]
    Mend = str | Callable[[str], str] | None  # None: by a person


class Rule(NamedTuple):
    name: str
    pattern: re.Pattern[str]
    judge: Judge
    mend: Mend


class Finding(NamedTuple):
    rule: str
    path: str
    found: str
    mend: Mend = None
    place: str = ""


def anything(text: str) -> str:
    return "it is not empty" if text.strip() else ""


def exists(_: str) -> str:
    return "it is there"


def an_id(text: str) -> str:
    return f"it is {text.strip()}" if text.strip() not in ("", "uninitialized") else ""


def the_cluster(text: str) -> str:
    return "it names the cluster's nodes" if BLOCK.search(text) else ""


def without_the_cluster(text: str) -> str:
    return BLOCK.sub("", text).rstrip("\n") + "\n"


def a_password(text: str) -> str:
    return "users have passwords" if without_passwords(text) != text else ""


def without_passwords(text: str) -> str:
    """As shadow(5) and gshadow(5) have it; to sshd an account with ! is locked, with * it has no password."""
    return "".join(without_password(line) for line in text.splitlines(keepends=True))


def without_password(line: str) -> str:
    fields = line.split(":")
    locked = {"*", "!", "!!", "!*"} | ({""} if len(fields) == 4 else set())
    if len(fields) > 1 and fields[1] not in locked:
        fields[1] = "*"
    return ":".join(fields)


def secret_texts(text: str) -> str:
    return "it holds what secret files were before" if without_secret_texts(text) != text else ""


def without_secret_texts(text: str) -> str:
    """The journal of what files were before, in which those that were secret were empty."""
    entries = json.loads(text) if text.strip() else {}
    hidden = [path for path, entry in entries.items() if was_secret(path, entry["before"])]
    for path in hidden:
        entries[path]["before"]["text"] = ""
    return json.dumps(entries, indent=1) + "\n" if hidden else text


def was_secret(path: str, before: Mapping[str, str] | None) -> bool:
    if not before or not before["text"]:
        return False
    said = content_findings(before["text"].encode("utf-8", "surrogateescape"))
    return "/.ssh/" in path or not int(before["mode"], 8) & 0o004 or bool(said)


def fstab_entries(text: str) -> Iterator[tuple[str, list[str]]]:
    for line in text.splitlines():
        fields = line.partition("#")[0].split()
        if len(fields) >= 4:
            yield line, fields


def by_dev_name(text: str) -> str:
    sources = [fields[0] for _, fields in fstab_entries(text)]
    wrong = [name for name in sources if name.startswith("/dev/") and not STABLE_NAME.match(name)]
    return f"it mounts {', '.join(wrong)}, a name that another machine gives to another disk" if wrong else ""


def the_data_disk(path: str, text: str) -> str:
    found = [fields[0] for _, fields in fstab_entries(text) if fields[1] == path and fields[2] == "ext4"]
    return f"it mounts {found[0]}, which only this machine has" if found and not by_dev_name(text) else ""


def without_the_data_disk(path: str, text: str) -> str:
    own = {line for line, fields in fstab_entries(text) if fields[1] == path}
    return "".join(line + "\n" for line in text.splitlines() if line not in own)


def bound_to_a_card(text: str) -> str:
    return "it names a network card by its address" if re.search(r"(?i)([0-9a-f]{2}:){5}", text) else ""


REMOVE, EMPTY = "remove", "empty"
# Name, path (below R, or below D as data/...), what is wrong with it, how it is mended.
RULES: list[tuple[str, str, Judge, Mend]] = [
    ("host-key", r"etc/ssh/ssh_host_.*_key(\.pub)?", exists, REMOVE),
    ("machine-id", r"(etc|var/lib/dbus)/machine-id", an_id, EMPTY),
    ("authorised-key", rf"{COVERED}/\.ssh/authorized_keys2?|{SSHD}", anything, EMPTY),
    ("known-hosts", rf"{HOMES}/\.ssh/known_hosts|etc/ssh/ssh_known_hosts", anything, REMOVE),
    ("ssh-key", HOMES + r"/\.ssh/(id_[a-z0-9_]+|clusterwright_ed25519)(\.pub)?", exists, REMOVE),
    ("password", r"(etc|var/backups)/g?shadow-?", a_password, without_passwords),
    ("before-texts", r"var/lib/clusterwright/journal\.json", secret_texts, without_secret_texts),
    ("fstab", r"etc/fstab", by_dev_name, None),
    ("host-name", r"etc/hostname", anything, REMOVE),
    ("names", r"etc/hosts", the_cluster, without_the_cluster),
    (
        "interface-name",
        r"etc/udev/rules\.d/.*net.*\.rules|etc/systemd/network/.*\.link",
        bound_to_a_card,
        REMOVE,
    ),
    ("cloud-init", r"var/lib/cloud/(instances?|data|sem)(/.*)?", exists, REMOVE),
    ("lease", r"var/lib/(dhcp|dhcpcd|NetworkManager|systemd/network)/.*leases?[^/]*", exists, REMOVE),
    ("cluster", r"etc/clusterwright/(certificate|smoke|cluster)\.json", exists, REMOVE),
    (
        "cluster",
        r"etc/clusterwright/(hostfile|signers|job\.env)|etc/ssh/ssh_config\.d/10-clusterwright\.conf",
        exists,
        REMOVE,
    ),
    ("cluster", r"usr/local/lib/clusterwright/job_firewall(_nodes)?\.nft", exists, REMOVE),
    ("cluster", r"usr/local/lib/clusterwright/wireguard_mesh\.(conf|nft|sh)", exists, REMOVE),
    (
        "cluster",
        r"etc/systemd/system/(.*/)?clusterwright-(job-firewall|wireguard-mesh(-guard)?)\.service",
        exists,
        REMOVE,
    ),
    ("cluster", r"var/lib/clusterwright/first_boot\.json", exists, REMOVE),
    ("log", r"var/log/.*", anything, REMOVE),
    ("seed", r"var/lib/systemd/(random-seed|credential\.secret)|var/lib/chrony/.+", exists, REMOVE),
    ("temporary", r"(var/)?tmp/.*", exists, REMOVE),
    ("temporary", HOMES + r"/\.(ansible|cache/pip)(/.*)?", exists, REMOVE),
]
NOT_KEPT = {"log", "temporary", "seed"}
# Whose copies count like themselves, beside all that is in secrets.yml.
COPIED = {"host-key", "authorised-key", "known-hosts", "ssh-key", "password"}
OWN_KINDS = {"data-disk", *(name for name, *_ in RULES)}
# Elsewhere live_view.py lays no copy: sshd and services of the node go on using it, and a person decides.
ELSEWHERE = rf"(?!{COVERED}/\.ssh/|etc/ssh/)"
RULES.append(("key-elsewhere", ELSEWHERE + r"(.*/)?\.ssh/authorized_keys2?", anything, None))
RULES.append(("key-elsewhere", rf"(?!{HOMES}/\.ssh/)(.*/)?\.ssh/id_[a-z0-9_]+", anything, None))
JUDGES = {"present": exists, "filled": anything, "set": a_setting, "stated": stated}


def take_in(table: Mapping[str, Any]) -> None:
    """Adds the kinds of secrets.yml to the rules."""
    for one in table["places"]:
        pattern = (ANYWHERE if one.get("anywhere") else "") + f"({'|'.join(one['paths'])})"
        RULES.append((one["kind"], pattern, JUDGES[one["when"]], REMOVE if one.get("mend") else None))
    take_in_contents(table["contents"])


def findings(root: str, data: str) -> Iterator[Finding]:
    """Each rule that a file breaks."""
    disk = data_path(root, data)
    own = ("data-disk", r"etc/fstab", partial(the_data_disk, disk), partial(without_the_data_disk, disk))
    elsewhere = (("key-elsewhere", ELSEWHERE + one, public_keys, None) for one in key_places(root))
    rules: list[tuple[str, str, Judge, Mend]] = [*RULES, own, *elsewhere]
    compiled = [
        Rule(name, re.compile(pattern, re.DOTALL), judge, mend) for name, pattern, judge, mend in rules
    ]
    any_rule = re.compile("|".join(f"(?:{pattern})" for _, pattern, *_ in rules), re.DOTALL)
    allowed = [path.strip("/") for path in manifest_of(root).get("allowed", [])]
    for path, place, claimed, unread in every_file(root, data):
        matching = matching_rules(path, compiled, any_rule)
        if claimed:  # no package says what lies in a place of ours
            matching = [rule for rule in matching if names_a_place(rule)]
            if not matching:
                continue
        try:
            content = b"" if unread else read(place)
            names: Iterable[str] = members(place, content) if not claimed else ()
            inside = [found for name in names for found in of_member(name, compiled, any_rule)]
        except OSError as error:
            unread = error.strerror or str(error)
        if unread:
            found: list[tuple[str, str, Mend]] = [
                ("unread", f"it cannot be read ({unread}), so nobody knows what it holds", None)
            ]
        else:
            found = [*findings_of(content, matching, claimed), *inside[:1]]
        for name, said, mend in found:
            if said and (name in OWN_KINDS or not is_allowed(path, allowed)):
                yield Finding(name, path, said, mend, place)


def names_a_place(rule: Rule) -> bool:
    return rule.name in OWN_KINDS or not rule.pattern.pattern.startswith(ANYWHERE)


def matching_rules(path: str, compiled: list[Rule], any_rule: re.Pattern[str]) -> list[Rule]:
    """The rules for a path, and for what its name says that it is a copy of."""
    found = [rule for rule in compiled if rule.pattern.fullmatch(path)] if any_rule.fullmatch(path) else []
    for one in copied_of(path):
        if any_rule.fullmatch(one):
            may = [rule for rule in compiled if rule.name in COPIED or rule.name not in OWN_KINDS]
            found += [rule for rule in may if rule not in found and rule.pattern.fullmatch(one)]
    return found


def of_member(name: str, compiled: list[Rule], any_rule: re.Pattern[str]) -> list[tuple[str, str, None]]:
    """What a member of an archive breaks by its name alone; no one mends an archive."""
    rules = matching_rules(name, compiled, any_rule)
    kinds = [kind for kind, _, judge, _ in rules if judge in (exists, anything)]
    wrong = [kind for kind in kinds if kind in COPIED or kind not in OWN_KINDS]
    return [(kind, "it holds a file of this kind: " + name, None) for kind in wrong]


def findings_of(content: bytes, matching: list[Rule], claimed: bool) -> list[tuple[str, str, Mend]]:
    text = content.decode("utf-8", "replace")
    found = [(name, judge(text), mend) for name, _, judge, mend in matching]
    spared = {"password-hash"} if any(name == "password" for name, *_ in found) else set()
    if claimed or any(said and name in ("before-texts", "log", "temporary") for name, said, _ in found):
        return found
    return found + [(kind, what, None) for kind, what in content_findings(content) if kind not in spared]


def is_allowed(path: str, allowed: list[str]) -> bool:
    return any(path == one or path.startswith(one + "/") for one in allowed)


def environment_findings(root: str, data: str, script: str) -> Iterator[Finding]:
    """Environments whose files are not those that were recorded, or not those of the manifest."""
    image = manifest_of(root)
    for prefix, name in environments(root, data) if script else []:
        words = [sys.executable, script, "--prefix", prefix, "--verify", "--full", "--files-only"]
        report = report_of(subprocess.run(words, stdout=subprocess.PIPE, check=False).stdout)
        found = ", ".join(report["differences"]) or (
            "" if report["recorded"] else "its digest was not recorded"
        )
        wanted = (
            image.get("environment", "") if os.path.basename(name) == image.get("environment_name") else ""
        )
        if not found and wanted and report["digest"] != wanted:
            found = f"its digest is {report['digest'][:12]}, the manifest says {wanted[:12]}"
        if found:
            yield Finding("environment", name, found)


def report_of(text: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        return dict(json.loads(text))
    unjudged = "its files could not be compared with its record; environment_digest.py says why"
    return {"differences": [unjudged], "recorded": "", "digest": ""}


def scan(root: str, data: str, script: str) -> list[dict[str, object]]:
    found = [*findings(root, data), *environment_findings(root, data, script)]
    if not manifest_of(root):
        found.append(Finding("manifest", "etc/clusterwright/image.json", "there is none"))
    removed = {one.path for one in found if one.mend in (REMOVE, EMPTY)}
    return [
        {
            "rule": one.rule,
            "path": one.path,
            "found": one.found,
            "mended": bool(one.mend) or one.path in removed,
        }
        for one in found
    ]


def clean(root: str, data: str, keep: str) -> list[dict[str, object]]:
    """Mends what can be mended; what a machine needs to be itself again goes into `keep` first."""
    doomed = [one for one in findings(root, data) if one.mend]
    if keep:
        save({one.place: one.path for one in doomed if one.rule not in NOT_KEPT}, keep, [root, data])
    for one in doomed:
        with opened_folder(one.place, [root, data]) as (folder, name):
            mend(folder, name, one.mend)
    for left in ("var/lib/cloud/instances", "var/lib/cloud/instance", "var/lib/cloud/data"):
        shutil.rmtree(os.path.join(root, left), ignore_errors=True)
    return [{"rule": one.rule, "path": one.path} for one in doomed]


def mend(folder: int, name: str, how: Mend) -> None:
    if how == REMOVE:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        return
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(name, flags, dir_fd=folder), "rb+") as stream:
        if how == EMPTY:
            stream.truncate(0)
            return
        assert callable(how)
        text, status = stream.read().decode("utf-8", "surrogateescape"), os.fstat(stream.fileno())
    partial = f".clusterwright-{secrets.token_hex(8)}"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(how(text).encode("utf-8", "surrogateescape"))
        os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["scan", "clean"])
    parser.add_argument("--root", required=True)
    parser.add_argument("--data", default="")
    parser.add_argument("--keep", default="", help="clean: archive of what was taken away")
    parser.add_argument("--digest-script", default="", help="scan: environment_digest.py, for environments")
    parser.add_argument("--secrets", required=True, help="secrets.yml as JSON")
    options = parser.parse_args()
    take_in(json.loads(options.secrets))
    try:
        if options.action == "clean":
            found = clean(options.root, options.data, options.keep)
        else:
            found = scan(options.root, options.data, options.digest_script)
    except OSError as error:  # such as a link that a user put in the way meanwhile
        told = f"{options.action} stopped: {error.filename or 'a file'}: {error.strerror or error}"
        sys.stderr.write(f"{told}. Nothing was read or written through it; run it again.\n")
        return 2
    sys.stdout.write(json.dumps(found) + "\n")
    return 1 if found and options.action == "scan" else 0


if __name__ == "__main__":
    sys.exit(main())
