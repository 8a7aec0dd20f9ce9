"""Runs on a node as root, by its own Python 3: prints what `provision audit` judges as JSON, changes nothing.

One word: JSON with `secrets` (paths), `data` (a mounted folder) and `keys_only`. Needs nothing else.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import pwd
import re
import stat
import subprocess
import sys

_JOURNAL = "/var/lib/clusterwright/journal.json"
_MOST_BYTES = 1 << 20
_MERGED = re.compile(r"^/usr(?=/(bin|sbin|lib\w*)/)")


def _run(*words: str) -> str:
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    except OSError:
        return ""
    return done.stdout.decode(errors="replace")


def _read(path: str, most: int = _MOST_BYTES) -> bytes | None:
    """A regular file's content; None where there is none. Of what root reads no user's link is followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(most) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


def _text(path: str) -> str:
    return (_read(path) or b"").decode(errors="replace")


def _sshd() -> dict[str, str]:
    """The settings that decide who gets in, as the daemon takes them."""
    lines = [line.partition(" ") for line in _run("/usr/sbin/sshd", "-T").splitlines()]
    return {name: value for name, _, value in lines}


def _key_files(pattern: str, user: pwd.struct_passwd) -> list[str]:
    found = []
    for one in pattern.split():
        path = one.replace("%h", user.pw_dir).replace("%u", user.pw_name).replace("%%", "%")
        found.append(path if path.startswith("/") else os.path.join(user.pw_dir, path))
    return found


def _keys(pattern: str) -> list[dict[str, object]]:
    """Every line of every user's authorized_keys, once for each file; a link is a line of its own."""
    found, seen = [], set()
    for user in pwd.getpwall():
        for path in _key_files(pattern, user):
            if path in seen:
                continue
            seen.add(path)
            if os.path.islink(path) or os.path.islink(os.path.dirname(path)):
                found.append({"user": user.pw_name, "path": path, "number": 0, "line": ""})
            for number, line in enumerate(_text(path).split("\n"), start=1):
                if line.strip() and not line.lstrip().startswith("#"):
                    found.append(
                        {"user": user.pw_name, "path": path, "number": number, "line": line.rstrip("\r")}
                    )
    return found


def _own_keys() -> dict[str, str]:
    """The public keys whose private halves this node seems to have, by path."""
    patterns = ["/etc/ssh/ssh_host_*_key.pub"]
    patterns += [os.path.join(user.pw_dir, ".ssh/*.pub") for user in pwd.getpwall()]
    return {path: " ".join(_text(path).split()[:2]) for one in patterns for path in glob.glob(one)}


def _packaged() -> set[str]:
    """Every path of a Debian package, /usr/bin and /bin taken for one."""
    found: set[str] = set()
    for path in glob.glob("/var/lib/dpkg/info/*.list"):
        with open(path, errors="replace") as lines:
            found.update(_MERGED.sub("", line.rstrip("\n")) for line in lines)
    return found


def _listeners(packaged: set[str]) -> list[dict[str, object]]:
    found = []
    for line in _run("ss", "--no-header", "-tulnp").splitlines():
        words = line.split(None, 6)
        if len(words) < 6:
            continue
        address, _, port = words[4].rpartition(":")
        process = re.search(r'\(\("([^"]*)",pid=(\d+)', words[6]) if len(words) > 6 else None
        exe = ""
        if process:
            try:
                exe = os.readlink(f"/proc/{process[2]}/exe")
            except OSError:
                exe = ""
        found.append(
            {
                "protocol": words[0],
                "address": address,
                "port": port,
                "program": process[1] if process else "",
                "exe": exe,
                "packaged": _MERGED.sub("", exe) in packaged,
            }
        )
    return found


def _modes(paths: list[str]) -> list[dict[str, object]]:
    found = []
    for pattern in paths:
        for path in glob.glob(os.path.expanduser(pattern)):
            status = os.lstat(path)
            try:
                owner = pwd.getpwuid(status.st_uid).pw_name
            except KeyError:
                owner = str(status.st_uid)
            found.append({"path": path, "mode": stat.S_IMODE(status.st_mode), "owner": owner})
    return found


def _setuid(packaged: set[str], data: str) -> list[str]:
    roots = ["/", *([data] if os.path.ismount(data) else [])]
    listed = _run("find", *roots, "-xdev", "-type", "f", "-perm", "/6000", "-print0").split("\0")
    return sorted({path for path in listed if path and _MERGED.sub("", path) not in packaged})


def _ours() -> dict[str, dict[str, object]]:
    """Of each file that our record says we wrote: whether it is whole ours, its digest then and now."""
    try:
        with open(_JOURNAL) as stream:
            journal = json.load(stream)
    except (OSError, ValueError):
        return {}
    found = {}
    for path, entry in journal.items():
        text = _read(path, most=-1)
        if text is None and not os.path.isdir(os.path.dirname(path)):
            continue  # of a build, whose folder goes with it
        lines = [] if text is None else text.decode(errors="surrogateescape").split("\n")
        marks = entry.get("marks") or []
        found[path] = {
            "whole": not (entry.get("marks") or entry.get("lines")),
            "there": text is not None,
            "same": text is not None and hashlib.sha256(text).hexdigest() == entry.get("written"),
            "lacks": [line for line in [*marks, *entry.get("lines", [])[:1]] if line not in lines],
        }
    return found


def _changed() -> list[str]:
    """Files whose content is not their package's, by dpkg(1) --verify; missing ones are not told."""
    found = []
    for line in _run("dpkg", "--verify").splitlines():
        marks, _, path = line.partition(" ")
        if marks[2:3] == "5":
            path = path.strip()
            found.append(path[2:].strip() if path.startswith("c ") else path)  # a configuration file
    return found


def main() -> None:
    asked = json.loads(sys.argv[1])
    sshd = _sshd()
    found: dict[str, object] = {
        "sshd": {
            name: sshd.get(name, "none")
            for name in ("authorizedkeyscommand", "trustedusercakeys", "authorizedkeysfile")
        },
        "keys": _keys(sshd.get("authorizedkeysfile", ".ssh/authorized_keys .ssh/authorized_keys2")),
        "own_keys": _own_keys(),
    }
    if not asked["keys_only"]:
        packaged = _packaged()
        found["listeners"] = _listeners(packaged)
        found["modes"] = _modes(asked["secrets"])
        found["setuid"] = _setuid(packaged, asked["data"])
        found["ours"] = _ours()
        found["changed"] = _changed()
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
