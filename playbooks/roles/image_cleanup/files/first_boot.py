"""The first boot of a machine made from an image: finds its data disk, and asks the controller who it is.

Every step can be repeated, so a boot that was cut off begins again. Nothing is ever formatted here. What was
done lies in STATE, for people and for restore.yml. Standard library only.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import hmac
import http.client
import io
import json
import os
import pwd
import re
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

CONFIG, FSTAB = "/etc/clusterwright", "/etc/fstab"
STATE = "/var/lib/clusterwright/first_boot.json"
# Of the image: the controller's public key and address; by explicit choice a token that its machines share.
JOIN = CONFIG + "/join.json"
# Where a cloud leaves what its user said to this machine.
USER_DATA = ("/var/lib/cloud/instance/user-data.txt", "/run/clusterwright/join.json", JOIN)
PUBLIC = ("controller", "controller_key")
NAMESPACE, PATH = "clusterwright-join-answer", "/join"
NOT_DISKS = re.compile(r"^(loop|ram|zram|sr|fd|nbd)")
ASK_SECONDS = 5.0
ANSWER_BYTES = 1 << 16
MOST_SAID, MOST_NOTED = 500, 1000
MOST_BYTES = 1 << 20
# What a controller, or whoever is in its place, can make of an answer.
UNUSABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    OverflowError,
    RecursionError,
    http.client.HTTPException,
)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def text_of(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            return stream.read()
    except OSError:
        return ""


def plain(path: str) -> str:
    """A file's text, where a user may have put something else under its name.

    Raises:
        OSError: it is a link, no regular file or too large.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no regular file; move it away")
    with os.fdopen(descriptor, "rb") as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(f"{path} has more than {MOST_BYTES >> 20} MiB; move it away")
    return content.decode("utf-8", "surrogateescape")


def json_of(path: str) -> dict[str, Any]:
    try:
        found = json.loads(plain(path))
    except (OSError, ValueError, RecursionError, MemoryError):
        return {}
    return found if isinstance(found, dict) else {}


def write(path: str, text: str, mode: int = 0o644) -> None:
    """By renaming, on the disk before the name changes: a cut of power leaves the old file or the new one."""
    os.makedirs(os.path.dirname(path), mode=0o755 if mode & 0o077 else 0o700, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".clusterwright-")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(text)
        stream.flush()
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    os.replace(partial, path)


def note(**what: str) -> None:
    """Adds to what is known of this machine's first boot; another machine's counts for nothing."""
    state = json_of(STATE)
    if state.get("machine") != machine():
        state = {"machine": machine()}
    what = {name: line(value) for name, value in what.items()}
    write(STATE, json.dumps({**state, **what}, indent=2) + "\n")
    sys.stdout.write(" ".join(f"{name}: {value}" for name, value in what.items()) + "\n")
    sys.stdout.flush()


def line(said: str) -> str:
    """One printable line: whoever answers in the controller's place, or names a disk, chooses the words."""
    return "".join(one if one.isprintable() else " " for one in said[:MOST_NOTED])


def machine() -> str:
    return text_of("/etc/machine-id").strip()


def disks() -> list[dict[str, str]]:
    """Block devices of this machine, partitions included, each with what blkid reads on it."""
    names = [
        entry.name for entry in os.scandir("/dev") if stat.S_ISBLK(entry.stat(follow_symlinks=False).st_mode)
    ]
    found = []
    for name in sorted(name for name in names if not NOT_DISKS.match(name)):
        probed = run("blkid", "--probe", "--output", "export", f"/dev/{name}").stdout
        found.append(
            {
                **dict(line.split("=", 1) for line in probed.splitlines() if "=" in line),
                "path": f"/dev/{name}",
            }
        )
    return found


def mount_data(image: Mapping[str, Any]) -> str:
    """Mounts the one disk that has our label, checked, with a UUID of its own; says what was done."""
    if os.path.ismount(image["data_path"]):
        return usage(image["data_path"])
    ours = [
        disk for disk in disks() if disk.get("LABEL") == image["data_label"] and disk.get("TYPE") == "ext4"
    ]
    if len(ours) != 1:
        return refusal(ours, image)
    path = ours[0]["path"]
    problem = check(path) or grow(path)
    if problem:
        return problem
    uuid = own_uuid(path)
    os.makedirs(image["data_path"], exist_ok=True)
    write(FSTAB, fstab(text_of(FSTAB), uuid, image), mode_of(FSTAB))
    mounted = run("mount", "-t", "ext4", "-o", plain_options(image), path, image["data_path"])
    if mounted.returncode != 0:
        return f"{path} cannot be mounted: {mounted.stdout.strip()}"
    return usage(image["data_path"])


def check(path: str, *words: str) -> str:
    checked = run("e2fsck", *words, "-p", path)
    if checked.returncode >= 4:
        return f"{path} is damaged, not mounted: {checked.stdout.strip()[-300:]} Mend it: e2fsck -f {path}"
    return ""


def grow(path: str) -> str:
    """Grows the file system where its disk is larger, before it is mounted: that needs no further right."""
    header = dict(
        re.findall(r"^(Block count|Block size): +(\d+)$", run("dumpe2fs", "-h", path).stdout, re.MULTILINE)
    )
    block = int(header["Block size"])
    if int(run("blockdev", "--getsize64", path).stdout) // block <= int(header["Block count"]):
        return ""
    problem = check(path, "-f")  # resize2fs asks for it
    if problem:
        return problem
    resized = run("resize2fs", path)
    return f"{path} cannot be grown, not mounted: {resized.stdout.strip()}" if resized.returncode != 0 else ""


def refusal(ours: list[dict[str, str]], image: Mapping[str, Any]) -> str:
    if not ours:
        return f"no disk has the label {image['data_label']}; restore.yml formats a blank one"
    paths = ", ".join(disk["path"] for disk in ours)
    return (
        f"{len(ours)} disks have the label {image['data_label']} ({paths}); none is mounted. "
        "Detach one, then restart clusterwright-first-boot"
    )


def plain_options(image: Mapping[str, Any]) -> str:
    return ",".join(one for one in image["data_options"].split(",") if not one.startswith(("x-", "nofail")))


def own_uuid(path: str) -> str:
    """A copy of a disk that is attached later must not be taken for this one."""
    # Without metadata_csum_seed it wants a check just before.
    if run("tune2fs", "-U", "random", path).returncode != 0:
        run("e2fsck", "-f", "-p", path)
        run("tune2fs", "-U", "random", path)
    return run("blkid", "--probe", "--match-tag", "UUID", "--output", "value", path).stdout.strip()


def fstab(text: str, uuid: str, image: Mapping[str, Any]) -> str:
    """As role data_disk writes it, so that site.yml finds nothing to change."""
    lines = [line.rstrip("\n") for line in io.StringIO(text)]
    others = [line for line in lines if line.split("#")[0].split()[1:2] != [image["data_path"]]]
    entry = f"UUID={uuid} {image['data_path']} ext4 {image['data_options']} 0 2"
    return "\n".join([*others, entry]) + "\n"


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode) if os.path.exists(path) else 0o644


def usage(mount_path: str) -> str:
    """What is mounted; a full disk is said to be full."""
    source = run("findmnt", "--noheadings", "--output", "SOURCE", mount_path).stdout.split()[0]
    space = shutil.disk_usage(mount_path)
    full = ", full" if space.free < space.total // 100 else ""
    return f"mounted {source}, {space.total / 2**30:.1f} GiB{full}"


def told() -> dict[str, Any]:
    """Where the controller is and which token this machine shows it, from what it was told first.

    The key that the controller's answers are signed with comes from the image alone.
    """
    image = json_of(JOIN)
    for path in USER_DATA:
        found = {"controller": image.get("controller"), **json_of(path)}
        if "token" in found and all(isinstance(found[name], str) for name in ("controller", "token")):
            return {**found, "controller_key": str(image.get("controller_key", ""))}
    return {}


def nothing_told() -> str:
    if any("secret" in json_of(path) for path in USER_DATA):
        return (
            "a secret is what an earlier version was told; provision restore --user-data writes what counts"
        )
    return (
        "no controller, or no token for it, is known; run restore.yml there, or give this machine user data"
    )


def forget_token() -> None:
    """A token counts once; what else the image says may stay."""
    for path in USER_DATA:
        found = json_of(path)
        if "token" in found and "controller_key" in found:
            write(path, json.dumps({name: found[name] for name in found if name in PUBLIC}) + "\n")
        elif {"controller", "token"} <= set(found):
            os.unlink(path)


def payload(direction: str, text: str, answer: str = "") -> str:
    """What is signed, as the controller forms it (provision/join/protocol.py)."""
    return json.dumps({"direction": direction, "path": PATH, "call": text, "answer": answer}, sort_keys=True)


def mac(secret: str, text: str) -> str:
    return hmac.new(secret.encode(), payload("call", text).encode(), hashlib.sha256).hexdigest()


def is_signed(key: str, text: str, signature: str) -> bool:
    """Whether the controller, whose public key the image holds, signed this text."""
    with tempfile.TemporaryDirectory() as place:
        allowed, given = os.path.join(place, "allowed"), os.path.join(place, "signature")
        write(allowed, f"controller {key}\n")
        write(given, signature)
        about = ["-I", "controller", "-n", NAMESPACE]
        words = ["ssh-keygen", "-Y", "verify", "-f", allowed, "-s", given, *about]
        verified = subprocess.run(
            words, input=text, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, check=False
        )
    return bool(key) and verified.returncode == 0


def ask(address: str, body: str, *, token: str, key: str) -> dict[str, Any]:
    """The controller's answer to a call, once it is proven to be its answer to this one."""
    name, _, secret = token.partition(".")
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=ASK_SECONDS)
    try:
        connection.request("POST", PATH, body.encode(), {"X-Token": name, "X-Signature": mac(secret, body)})
        response = connection.getresponse()
        if response.status != 200:
            raise ValueError(f"{response.status} {response.reason}")
        found = json.loads(response.read(ANSWER_BYTES).decode())
    finally:
        connection.close()
    if not is_signed(key, payload("answer", body, found["answer"]), found["signature"]):
        raise ValueError("the answer is not signed by our controller")
    return dict(json.loads(found["answer"]))


def own_address(controller_address: str) -> str:
    host, _, port = controller_address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as way:
        way.connect((host, int(port)))
        return str(way.getsockname()[0])


def host_keys() -> list[str]:
    return sorted(" ".join(text_of(path).split()[:2]) for path in glob.glob("/etc/ssh/ssh_host_*_key.pub"))


def join(told: Mapping[str, Any], image: Mapping[str, Any]) -> str:
    """Tells the controller address and host keys, and takes the name that it answers with."""
    call = {
        "nonce": secrets.token_hex(16),
        "image": image["id"],
        "machine": machine(),
        "address": own_address(told["controller"]),
        "host_keys": host_keys(),
    }
    answer = ask(told["controller"], json.dumps(call), token=told["token"], key=told["controller_key"])
    take(answer)
    return str(answer["name"])


def take(answer: Mapping[str, Any]) -> None:
    name, key = answer["name"], answer["authorized_key"]
    write("/etc/hostname", name + "\n")
    run("hostname", name)
    with acting_as(answer["user"]):
        authorise(os.path.expanduser("~" + answer["user"]), key)


def authorise(home: str, key: str) -> None:
    path = os.path.join(home, ".ssh/authorized_keys")
    if os.path.islink(path) or os.path.islink(os.path.dirname(path)):
        raise OSError(f"{path} or its folder is a link; put a file of its own there")
    known = keys_in(path)
    if not any(key in line for line in known.split("\n") if not line.lstrip().startswith("#")):
        write(path, known.rstrip("\n") + "\n" * bool(known.strip()) + key + "\n", 0o600)
        os.chmod(os.path.dirname(path), 0o700)


def keys_in(path: str) -> str:
    try:
        return plain(path)
    except FileNotFoundError:
        return ""


@contextlib.contextmanager
def acting_as(user: str) -> Iterator[None]:
    """With a user's rights, so that no link in his home leads to what only root may read or write."""
    known = pwd.getpwnam(user)
    if known.pw_uid == os.geteuid():
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(known.pw_gid)
    os.seteuid(known.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def main() -> int:
    image = json_of(CONFIG + "/image.json").get("image", {})
    if not image:
        return 0
    if json_of(STATE).get("machine") == machine() and json_of(STATE).get("name"):
        forget_token()
        return 0
    note(data=mount_data(image))
    said = ""
    while True:
        known = told()
        if not known:
            note(joined=nothing_told())
            return 0
        try:
            name = join(known, image)
            note(name=name, joined=f"{known['controller']} calls this machine {name}")
            forget_token()
            return 0
        except UNUSABLE as error:
            if str(error) != said:
                said = str(error)
                note(joined=f"waits for {known['controller']}: {said[:MOST_SAID]}")
        time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main())
