"""Runs on a node as root, by its own Python 3: prints what `provision audit` judges as JSON, changes nothing.

One word: JSON with `secrets` (paths) and `keys_only`. Needs nothing else.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
import os
import pwd
import re
import stat
import struct
import subprocess
import sys

_JOURNAL = "/var/lib/clusterwright/journal.json"
_SSHD_CONFIG = "/etc/ssh/sshd_config"
_MOST_BYTES = 1 << 20
_MOST_KEY_BYTES = 4 << 20  # sshd reads more
# Of the lines that are told: what one user may fill stays below what the controller hears of a node.
_MOST_KEY_LINES, _MOST_KEY_LETTERS = 1 << 12, 1 << 19
_MOST_PUBLIC_KEYS, _PUBLIC_KEY_BYTES = 64, 1 << 13  # of one user
_PUBLIC_KEY = re.compile(r"(?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]+ [A-Za-z0-9+/]+={0,3}")
_MOST_OF_OURS = 16 << 20
_MOST_INCLUDES = 16  # one in the other, as sshd's own limit
# What lets somebody in; under `Match` only here and there, so that `sshd -T` does not tell.
_LETS_IN = re.compile(
    "authorizedkeys(command|file)|authorizedprincipals(command|file)|trustedusercakeys"
    "|(hostbased|kbdinteractive|challengeresponse|password|pubkey)authentication"
    "|permit(emptypasswords|rootlogin|userenvironment)"
)
_KEYS_FILE = re.compile("authorizedkeysfile ", re.IGNORECASE)
# On disks and in memory, where programs of a set user ID work. What an overlay shows lies in its layers.
_LOCAL = re.compile("bcachefs|btrfs|erofs|ext[234]|f2fs|jfs|ramfs|reiserfs|squashfs|tmpfs|xfs|zfs")
_SNAPS = ("/snap/", "/var/lib/snapd/")
_MERGED = re.compile(r"^/usr(?=/(bin|sbin|lib\w*)/)")


def _run(*words: str, errors: str = "replace") -> str:
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    except OSError:
        return ""
    return done.stdout.decode(errors=errors)


def _read(path: str, most: int = _MOST_BYTES) -> bytes | None:
    """A regular file's content; None where there is none. Of what root reads no user's link is followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(most)


def _text(path: str) -> str:
    return (_read(path) or b"").decode(errors="replace")


def _sshd() -> dict[str, str]:
    """The settings that decide who gets in, as the daemon takes them."""
    lines = [line.partition(" ") for line in _run("/usr/sbin/sshd", "-T").splitlines()]
    return {name: value for name, _, value in lines}


def _matches(path: str = _SSHD_CONFIG, match: str = "", depth: int = 0) -> list[dict[str, str]]:
    """What stands under `Match` in sshd's configuration and lets somebody in, with its file and line."""
    found: list[dict[str, str]] = []
    for number, line in enumerate(_text(os.path.realpath(path)).split("\n"), start=1):
        keyword, *values = line.replace("=", " ", 1).replace('"', " ").split() or ["#"]
        setting, keyword = " ".join([keyword, *values]), keyword.lower()
        if keyword == "match":
            match = " ".join(values)
        elif keyword == "include" and depth < _MOST_INCLUDES:
            for one in values:
                for included in sorted(glob.glob(os.path.join(os.path.dirname(_SSHD_CONFIG), one))):
                    found += _matches(included, match, depth + 1)
        elif match and _LETS_IN.fullmatch(keyword) and " ".join(values).lower() not in ("no", "none"):
            found.append({"path": path, "number": str(number), "match": match, "setting": setting})
    return found


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
            content = _read(path, _MOST_KEY_BYTES + 1) or b""
            lines = [
                {"user": user.pw_name, "path": path, "number": number, "line": line.rstrip("\r")}
                for number, line in enumerate(content.decode(errors="replace").split("\n"), start=1)
                if line.strip() and not line.lstrip().startswith("#")
            ]
            letters = sum(len(str(one["line"])) for one in lines)
            if len(content) > _MOST_KEY_BYTES or len(lines) > _MOST_KEY_LINES or letters > _MOST_KEY_LETTERS:
                lines = [{"user": user.pw_name, "path": path, "number": 0, "line": "large"}]
            found += lines
    return found


def _own_keys() -> dict[str, str]:
    """The public keys whose private halves this node seems to have, by path."""
    patterns = ["/etc/ssh/ssh_host_*_key.pub"]
    patterns += [os.path.join(user.pw_dir, ".ssh/*.pub") for user in pwd.getpwall()]
    found = {}
    for one in patterns:
        for path in itertools.islice(glob.iglob(one), _MOST_PUBLIC_KEYS):
            key = " ".join((_read(path, _PUBLIC_KEY_BYTES) or b"").decode(errors="replace").split()[:2])
            if _PUBLIC_KEY.fullmatch(key):
                found[path] = key
    return found


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


def _local_mounts(mountinfo: str = "/proc/self/mountinfo") -> list[str]:
    """/, and where else this machine's own disks and memory are mounted so that a set user ID works."""
    with open(mountinfo, errors="surrogateescape") as lines:
        mounts = [line.partition(" - ")[::2] for line in lines]
    found, seen = ["/"], set()
    for mount, source in mounts:
        _, _, device, root, place, options, *_ = mount.split()
        path = re.sub(r"\\([0-7]{3})", lambda one: chr(int(one[1], 8)), place)
        if (
            _LOCAL.fullmatch(source.split()[0])
            and "nosuid" not in options.split(",")
            and not path.startswith(_SNAPS)
            and (device, root) not in seen
        ):
            seen.add((device, root))
            found.append(path)
    return list(dict.fromkeys(found))


def _capabilities(path: str) -> int:
    """What a file gives who runs it, bit by bit: capabilities(7), vfs_cap_data in linux/capability.h."""
    try:
        words = os.getxattr(path, "security.capability", follow_symlinks=False)
    except OSError:
        return 0
    # A word of version, then permitted and inheritable of the first 32, then of the others.
    numbers = [*struct.unpack(f"<{len(words) // 4}I", words[: len(words) // 4 * 4])[1:5], 0, 0, 0, 0]
    return int(numbers[0] | numbers[1] | (numbers[2] | numbers[3]) << 32)


def _setuid(packaged: set[str], roots: list[str]) -> list[dict[str, object]]:
    """Programs that run with the rights of their owner or group, or with capabilities of their own."""
    words = ("find", *roots, "-xdev", "-type", "f", "-perm", "/6111", "-printf", r"%m %p\0")
    found = {}
    for entry in _run(*words, errors="surrogateescape").split("\0"):
        mode, _, path = entry.partition(" ")
        rights = int(mode or "0", 8) & 0o6000
        capabilities = _capabilities(path) if path else 0
        if rights or capabilities:
            merged = _MERGED.sub("", path)
            found[path] = {
                "path": path,
                "merged": merged,
                "mode": rights,
                "capabilities": capabilities,
                "packaged": merged in packaged,
            }
    return [found[path] for path in sorted(found)]


def _ours() -> dict[str, dict[str, object]]:
    """Of each file that our record says we wrote: whether it is whole ours, its digest then and now."""
    try:
        with open(_JOURNAL) as stream:
            journal = json.load(stream)
    except (OSError, ValueError):
        return {}
    found = {}
    for path, entry in journal.items():
        text = _read(path, _MOST_OF_OURS)
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
    sshd, matches = _sshd(), _matches()
    files = [sshd.get("authorizedkeysfile", ".ssh/authorized_keys .ssh/authorized_keys2")]
    files += [one["setting"].partition(" ")[2] for one in matches if _KEYS_FILE.match(one["setting"])]
    found: dict[str, object] = {
        "sshd": {
            name: sshd.get(name, "none")
            for name in ("authorizedkeyscommand", "trustedusercakeys", "authorizedkeysfile")
        },
        "matches": matches,
        "keys": _keys(" ".join(files)),
        "own_keys": _own_keys(),
    }
    if not asked["keys_only"]:
        packaged = _packaged()
        found["listeners"] = _listeners(packaged)
        found["modes"] = _modes(asked["secrets"])
        found["setuid"] = _setuid(packaged, _local_mounts())
        found["ours"] = _ours()
        found["changed"] = _changed()
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
