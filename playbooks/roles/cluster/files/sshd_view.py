"""Runs on a node as root, by its own Python 3: prints what sshd is set to for connections, changes nothing.

One word: JSON with `user` and `home` of who runs jobs, `group` for one who is not there, `nodes` (addresses
by name), `own` (this node's address), `port`, and `policy` (words KEYWORD=VALUE that sshd is to be told).
It prints one line: `sshd`, a blank, JSON.
"""

from __future__ import annotations

import fnmatch
import glob
import grp
import ipaddress
import json
import os
import pwd
import socket
import struct
import subprocess
import sys

CONFIG = "/etc/ssh/sshd_config"
OURS = "/etc/ssh/sshd_config.d/10-clusterwright.conf"
# As `sshd -T` writes them; what lets somebody in, or what a site may have set against a cluster.
KEYWORDS = {
    *("allowgroups", "allowusers", "authenticationmethods", "authorizedkeysfile", "chrootdirectory"),
    *("denygroups", "denyusers", "forcecommand", "kbdinteractiveauthentication", "listenaddress"),
    *("maxstartups", "passwordauthentication", "permitrootlogin", "pubkeyacceptedalgorithms"),
    *("pubkeyauthentication", "usedns"),
}
ALIASES = {
    "challengeresponseauthentication": "kbdinteractiveauthentication",
    "keyboardinteractiveauthentication": "kbdinteractiveauthentication",
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms",
}
# Criteria of a Match that tell connections of one user apart (sshd_config(5)).
PLACES = {"address", "host", "localaddress", "localport", "rdomain"}
MOST_INCLUDES = 16  # one in the other, as sshd's own limit
MOST_LINES, MOST_LETTERS = 1000, 300
# In a name space of its own, where our file is an empty one.
WITHOUT_OURS = ["unshare", "--mount", "sh", "-c", 'mount --bind /dev/null "$0" && exec "$@"', OURS]


def shown(words: list[str]) -> tuple[dict[str, list[str]], str]:
    """The settings that `sshd -T` prints, each with its values, and what it complains of."""
    try:
        done = subprocess.run(words, capture_output=True, check=False)
    except OSError as e:
        return {}, str(e)
    found: dict[str, list[str]] = {}
    for line in done.stdout.decode(errors="replace").splitlines():
        keyword, _, value = line.partition(" ")
        if keyword in KEYWORDS:
            found.setdefault(keyword, []).append(value)
    return found, "" if found else done.stderr.decode(errors="replace")[-MOST_LETTERS:]


def lines_of(path: str, config: str, ours: str, match: str = "", depth: int = 0) -> list[dict[str, object]]:
    """The lines that sshd reads of what `KEYWORDS` says, in its order; our file as one line without words.

    `match`: the criteria of the block that they stand in.
    """
    found: list[dict[str, object]] = []
    if path == ours:
        return [{"path": path, "number": 0, "match": match, "keyword": "", "text": ""}]
    try:
        with open(path, "rb") as stream:
            text = stream.read(1 << 20).decode(errors="replace")
    except OSError:
        return []
    outer = match
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.partition("#")[0].replace("=", " ", 1).replace('"', " ").split()
        keyword = ALIASES.get(words[0].lower(), words[0].lower()) if words else ""
        if keyword == "match":
            match = ", ".join(filter(None, [outer, " ".join(words[1:])[:MOST_LETTERS]]))
        elif keyword == "include" and depth < MOST_INCLUDES:
            for pattern in words[1:]:
                place = os.path.join(os.path.dirname(config), pattern)
                paths = set(glob.glob(place)) | ({ours} if fnmatch.fnmatchcase(ours, place) else set())
                for included in sorted(paths):
                    found += lines_of(included, config, ours, match, depth + 1)
        elif keyword in KEYWORDS:
            setting = " ".join(line.split())[:MOST_LETTERS]
            found.append(
                {"path": path, "number": number, "match": match, "keyword": keyword, "text": setting}
            )
    return found[:MOST_LINES]


def account(user: str, home: str, group: str) -> dict[str, object]:
    """Home and groups of a user; those that are given where there is none yet."""
    try:
        found = pwd.getpwnam(user)
        numbers = os.getgrouplist(user, found.pw_gid)
    except KeyError:
        return {"user": user, "home": home, "groups": [group]}
    names = []
    for number in numbers:
        try:
            names.append(grp.getgrgid(number).gr_name)
        except KeyError:
            names.append(str(number))
    return {"user": user, "home": found.pw_dir, "groups": names}


def caller(pid: int) -> dict[str, object] | None:
    """Who came in by ssh to run this, from where and to where; whatever sudo left of the environment.

    It is told by the outermost process from this one upwards that knows of a connection: its environment is
    what sshd gave it, where a shell was replaced by sudo, which runs as root, as well.
    """
    found: dict[str, str] = {}
    while pid > 1:
        try:
            with open(f"/proc/{pid}/environ", "rb") as stream:
                entries = stream.read().decode(errors="replace").split("\0")
            with open(f"/proc/{pid}/status") as status:
                (parent,) = [line.split()[1] for line in status if line.startswith("PPid:")]
        except (OSError, ValueError):
            break
        environment = dict(entry.split("=", 1) for entry in entries if "=" in entry)
        if len(environment.get("SSH_CONNECTION", "").split()) == 4 and environment.get("LOGNAME"):
            found = environment
        pid = int(parent)
    if not found:
        return None
    address, _, own, port = found["SSH_CONNECTION"].split()
    return {"from": "you", "address": address, "own": own, "port": port, **account(found["LOGNAME"], "", "")}


def asked_connections(asked: dict[str, object]) -> list[dict[str, object]]:
    """Those of jobs between nodes, of this node to itself, and of the controller."""
    jobs = account(str(asked["user"]), str(asked["home"]), str(asked["group"]))
    to = {"own": asked["own"], "port": str(asked["port"]), **jobs}
    nodes = asked["nodes"]
    assert isinstance(nodes, dict)
    found: list[dict[str, object]] = []
    for name, address in [*nodes.items(), ("", asked["own"])]:
        try:
            ipaddress.ip_address(str(address))
        except ValueError:
            continue  # a name means nothing before role host_names has run
        found.append({"from": name, "address": address, **to})
    you = caller(os.getpid())
    return found if you is None else [*found, you]


def listening(port: int) -> list[str]:
    """The addresses at which somebody listens, by the kernel's own table (st 0A, proc_net_tcp)."""
    found = []
    for path, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        try:
            with open(path) as stream:
                rows = [line.split() for line in stream][1:]
        except OSError:
            continue
        for row in rows:
            address, _, number = row[1].partition(":")
            if row[3] == "0A" and int(number, 16) == port:
                words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
                text = socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))
                found.append(text.replace("::ffff:", "", 1) if "." in text else text)
    return sorted(set(found))


def view(asked: dict[str, object]) -> dict[str, object]:
    """By number, of each connection: `now`, `theirs` (without our file), `then` (with what is to be told)."""
    lines = lines_of(CONFIG, CONFIG, OURS)
    sshd = ["/usr/sbin/sshd", "-T"]
    without = WITHOUT_OURS if os.path.exists(OURS) else []
    policy = asked["policy"]
    assert isinstance(policy, list)
    # Told so it holds before all files; a Match that is satisfied wins over it, as over our file. sshd(8), -o
    told = [word for setting in policy for word in ("-o", str(setting))]
    now, error = shown(sshd)
    theirs, _ = shown([*without, *sshd])
    distinct: list[dict[str, list[str]]] = []
    known: dict[str, dict[str, int]] = {}

    def number(settings: dict[str, list[str]]) -> int:
        if settings not in distinct:
            distinct.append(settings)
        return distinct.index(settings)

    connections = asked_connections(asked)
    criteria = {word for line in lines for word in str(line["match"]).lower().replace(",", " ").split()}
    by_place = not criteria.isdisjoint(PLACES)
    for one in connections:
        host = (
            one["from"] if now.get("usedns") == ["yes"] and one["from"] not in ("", "you") else one["address"]
        )
        one["host"] = host
        addresses = f"host={host},addr={one['address']},laddr={one['own']},lport={one['port']}"
        spec = f"user={one['user']},{addresses}"
        key = spec if by_place else str(one["user"]) if criteria else ""
        if key not in known:
            of = ["-C", spec]
            known[key] = {
                "now": number(shown([*sshd, *of])[0]),
                "theirs": number(shown([*without, *sshd, *of])[0]),
                "then": number(shown([*sshd, *of, *told])[0]),
            }
        one.update(known[key])
    return {
        "error": error,
        "now": now,
        "theirs": theirs or now,
        "lines": lines,
        "settings": distinct,
        "connections": connections,
        "listening": listening(int(str(asked["port"]))),
    }


if __name__ == "__main__":
    sys.stdout.write(f"sshd {json.dumps(view(json.loads(sys.argv[1])))}\n")
