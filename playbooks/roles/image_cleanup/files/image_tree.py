"""What of one machine must not go into an image of it: finds it, and takes it away.

    image_tree.py scan  --root R --data D    lists as JSON what was found; status 1 if there is anything
    image_tree.py clean --root R --data D    mends what has a safe mending, lists it, keeps a copy in --keep

R is the tree of a system disk, D that of the data disk ("" for none). One table of rules serves both. Nothing
below usr and miniconda3 is read: packages bring sample keys of their own, and digests vouch for environments.
Standard library only: it runs with whichever Python a node has.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile

HOMES = r"(root|home/[^/]+|data|data/home/[^/]+)"
LEFT_OUT = {"boot", "dev", "lost+found", "proc", "run", "sys", "usr"}
DATA_LEFT_OUT = {"lost+found", "miniconda3", "models"}
TEXT_BYTES = 1 << 16
BLOCK = re.compile(r"^# BEGIN clusterwright.*?^# END clusterwright\n?", re.DOTALL | re.MULTILINE)
PRIVATE_KEY = re.compile(r"-----BEGIN ([A-Z]+ )*PRIVATE KEY-----")
# Hugging Face, GitHub, Amazon, Weights & Biases: the forms that their makers publish.
TOKEN = re.compile(
    r"\b(hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{40,}|AKIA[0-9A-Z]{16}|api\.wandb\.ai)\b"
)
STABLE_NAME = re.compile(r"/dev/(disk/by-(id|uuid|label|partuuid|partlabel)|mapper)/")


def anything(text: str) -> str:
    return "it is not empty" if text.strip() else ""


def exists(_: str) -> str:
    return "it is there"


def an_id(text: str) -> str:
    return f"it is {text.strip()}" if text.strip() not in ("", "uninitialized") else ""


def a_private_key(text: str) -> str:
    return "it holds a private key" if PRIVATE_KEY.search(text) else ""


def a_token(text: str) -> str:
    return "it holds a token" if TOKEN.search(text) else ""


def the_cluster(text: str) -> str:
    return "it names the cluster's nodes" if BLOCK.search(text) else ""


def without_the_cluster(text: str) -> str:
    return BLOCK.sub("", text).rstrip("\n") + "\n"


def fstab_entries(text: str):
    for line in text.splitlines():
        fields = line.partition("#")[0].split()
        if len(fields) >= 4:
            yield line, fields


def by_dev_name(text: str) -> str:
    sources = [fields[0] for _, fields in fstab_entries(text)]
    wrong = [name for name in sources if name.startswith("/dev/") and not STABLE_NAME.match(name)]
    return f"it mounts {', '.join(wrong)}, a name that another machine gives to another disk" if wrong else ""


def the_data_disk(text: str) -> str:
    found = [fields[0] for _, fields in fstab_entries(text) if fields[1] == "/data" and fields[2] == "ext4"]
    return f"it mounts {found[0]}, which only this machine has" if found and not by_dev_name(text) else ""


def without_the_data_disk(text: str) -> str:
    own = {line for line, fields in fstab_entries(text) if fields[1] == "/data"}
    return "".join(line + "\n" for line in text.splitlines() if line not in own)


def bound_to_a_card(text: str) -> str:
    return "it names a network card by its address" if re.search(r"(?i)([0-9a-f]{2}:){5}", text) else ""


REMOVE, EMPTY = "remove", "empty"
# Name, path (below R, or below D as data/...), what is wrong with it, how it is mended; None: by a person.
RULES = [
    ("host-key", r"etc/ssh/ssh_host_.*_key(\.pub)?", exists, REMOVE),
    ("machine-id", r"(etc|var/lib/dbus)/machine-id", an_id, EMPTY),
    ("authorised-key", HOMES + r"/\.ssh/authorized_keys2?", anything, EMPTY),
    ("known-hosts", rf"({HOMES}/\.ssh/known_hosts(\.old)?|etc/ssh/ssh_known_hosts)", anything, REMOVE),
    ("ssh-key", HOMES + r"/\.ssh/(id_[a-z0-9_]+|clusterwright_ed25519)(\.pub)?", exists, REMOVE),
    ("private-key", r"(etc|root|home|data|srv|opt|tmp|var/tmp)/.*", a_private_key, None),
    ("history", HOMES + r"/(\.[a-z_]*_history|\.lesshst|\.viminfo|\.wget-hsts)", anything, REMOVE),
    ("hub-token", HOMES + r"/(\.cache/huggingface|\.huggingface)/(stored_)?tokens?", anything, REMOVE),
    (
        "hub-token",
        HOMES + r"/(\.netrc|\.git-credentials|\.pypirc|\.kaggle/kaggle\.json|\.aws/credentials"
        r"|\.config/(wandb/.*|gh/hosts\.yml)|\.docker/config\.json)",
        anything,
        REMOVE,
    ),
    ("hub-token", rf"({HOMES}/\.[^/]+|etc/environment|etc/profile\.d/.*)", a_token, None),
    ("fstab", r"etc/fstab", by_dev_name, None),
    ("data-disk", r"etc/fstab", the_data_disk, without_the_data_disk),
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
        r"etc/clusterwright/(hostfile|job\.env)|etc/ssh/ssh_config\.d/10-clusterwright\.conf",
        exists,
        REMOVE,
    ),
    ("cluster", r"usr/local/lib/clusterwright/job_firewall(_nodes)?\.nft", exists, REMOVE),
    ("cluster", r"etc/systemd/system/(.*/)?clusterwright-job-firewall\.service", exists, REMOVE),
    ("cluster", r"var/lib/clusterwright/first_boot\.json", exists, REMOVE),
    ("log", r"var/log/.*", anything, REMOVE),
    ("seed", r"var/lib/systemd/(random-seed|credential\.secret)|var/lib/chrony/.+", exists, REMOVE),
    ("temporary", r"(var/)?tmp/.*", exists, REMOVE),
    ("temporary", HOMES + r"/\.(ansible|cache/pip)(/.*)?", exists, REMOVE),
]
NOT_KEPT = {"log", "temporary", "seed"}


def files_below(top: str, prefix: str, left_out: set):
    """Path in the table's words, and on this machine, of each file and link of one file system."""
    device = os.lstat(top).st_dev
    for folder, folders, names in os.walk(top):
        inside = os.path.relpath(folder, top)
        if inside == ".":
            folders[:] = [name for name in folders if name not in left_out]
        folders[:] = sorted(n for n in folders if os.lstat(os.path.join(folder, n)).st_dev == device)
        for name in sorted(names):
            path = os.path.join(folder, name)
            yield os.path.normpath(os.path.join(prefix, inside, name)), path


def every_file(root: str, data: str):
    mount = {"data"} if data else set()
    yield from files_below(root, "", LEFT_OUT | mount)
    if data:
        yield from files_below(data, "data", DATA_LEFT_OUT)


def text_of(path: str, most: int = TEXT_BYTES) -> str:
    """The beginning of a regular file; a link or a socket has none."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return ""
    with open(path, "rb") as stream:
        return stream.read(most).decode("utf-8", "replace")


def findings(root: str, data: str):
    """Each rule that a file breaks: rule, path, what was found, how it is mended, where it is."""
    compiled = [(name, re.compile(pattern), judge, mend) for name, pattern, judge, mend in RULES]
    for path, place in every_file(root, data):
        matching = [rule for rule in compiled if rule[1].fullmatch(path)]
        text = text_of(place) if matching else ""
        for name, _, judge, mend in matching:
            found = judge(text)
            if found:
                yield {"rule": name, "path": path, "found": found, "mend": mend, "place": place}


def environment_findings(root: str, data: str, script: str):
    """Environments whose files are not those that were recorded, or not those of the manifest."""
    folder = os.path.join(data, "miniconda3", "envs")
    wanted = manifest_of(root).get("environment", "")
    for name in sorted(os.listdir(folder)) if data and script and os.path.isdir(folder) else []:
        if name.startswith("."):
            continue
        prefix = os.path.join(folder, name)
        words = [sys.executable, script, "--prefix", prefix, "--verify", "--full"]
        report = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=False).stdout)
        found = ", ".join(report["differences"]) or (
            "" if report["recorded"] else "its digest was not recorded"
        )
        if (
            not found
            and wanted
            and name == manifest_of(root).get("environment_name")
            and report["digest"] != wanted
        ):
            found = f"its digest is {report['digest'][:12]}, the manifest says {wanted[:12]}"
        if found:
            yield {"rule": "environment", "path": f"data/miniconda3/envs/{name}", "found": found}


def manifest_of(root: str) -> dict:
    try:
        with open(os.path.join(root, "etc/clusterwright/image.json"), encoding="utf-8") as stream:
            return json.load(stream)["image"]
    except (OSError, ValueError, KeyError):
        return {}


def scan(root: str, data: str, script: str) -> list:
    found = [*findings(root, data), *environment_findings(root, data, script)]
    if not manifest_of(root):
        found.append({"rule": "manifest", "path": "etc/clusterwright/image.json", "found": "there is none"})
    removed = {one["path"] for one in found if one.get("mend") == REMOVE}
    return [
        {
            "rule": one["rule"],
            "path": one["path"],
            "found": one["found"],
            "mended": bool(one.get("mend")) or one["path"] in removed,
        }
        for one in found
    ]


def clean(root: str, data: str, keep: str) -> list:
    """Mends what can be mended; what a machine needs to be itself again goes into `keep` first."""
    doomed = [one for one in findings(root, data) if one["mend"]]
    if keep:
        save([one for one in doomed if one["rule"] not in NOT_KEPT], root, keep)
    for one in doomed:
        mend(one["place"], one["mend"])
    for folder in ("var/lib/cloud/instances", "var/lib/cloud/instance", "var/lib/cloud/data"):
        shutil.rmtree(os.path.join(root, folder), ignore_errors=True)
    return [{"rule": one["rule"], "path": one["path"]} for one in doomed]


def save(kept: list, root: str, keep: str) -> None:
    """Never over an older archive: after an interrupted cleaning that one holds what is gone by now."""
    if os.path.exists(keep):
        return
    partial = keep + ".partial"
    descriptor = os.open(partial, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        for place, path in sorted({one["place"]: one["path"] for one in kept}.items()):
            archive.add(place, arcname=path)
    os.replace(partial, keep)


def mend(place: str, how) -> None:
    if how == REMOVE:
        if os.path.lexists(place):
            os.unlink(place)
        return
    if how == EMPTY:
        os.truncate(place, 0)
        return
    status, text = os.lstat(place), how(text_of(place, most=-1))
    with open(place + ".partial", "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(place + ".partial", stat.S_IMODE(status.st_mode))
    os.chown(place + ".partial", status.st_uid, status.st_gid)
    os.replace(place + ".partial", place)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["scan", "clean"])
    parser.add_argument("--root", required=True)
    parser.add_argument("--data", default="")
    parser.add_argument("--keep", default="", help="clean: archive of what was taken away")
    parser.add_argument("--digest-script", default="", help="scan: environment_digest.py, for environments")
    options = parser.parse_args()
    if options.action == "clean":
        sys.stdout.write(json.dumps(clean(options.root, options.data, options.keep)) + "\n")
        return 0
    found = scan(options.root, options.data, options.digest_script)
    sys.stdout.write(json.dumps(found) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
