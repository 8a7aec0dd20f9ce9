"""What on a node is not as we put it there and not as the inventory says: from its own answer. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provision.printable import one_line

_KEY = re.compile(r"^((?:ssh|ecdsa|sk)-[\w@.-]+)[ \t]+([A-Za-z0-9+/]+=*)(?:[ \t]|$)")
# Options end at the first blank outside quotes; \" neither begins nor ends a quotation. Nothing is read again
# in another way (`++`, `*+`): whoever may write such a line decides how long it is.
_OPTIONS = re.compile(r'^(?:\\"|"(?:\\"|[^"])*+"|[^" \t])++[ \t]+')


def key_in(line: str) -> str:
    """The type and the key of a line; empty where sshd finds none.

    A key in the options or in the comment is none: `command="ssh-rsa A" ssh-rsa B C` holds B.
    """
    text = line.strip(" \t")
    found = _KEY.match(text)
    if found is None and (options := _OPTIONS.match(text)):
        found = _KEY.match(text[options.end() :])
    return f"{found[1]} {found[2]}" if found else ""


# Programs of Debian's that listen on a machine without anybody's doing; of two, only where ssh does.
_USUAL = frozenset({"chronyd", "systemd-resolve", "systemd-network", "systemd-timesyn", "dhclient"})
_SSH = frozenset({"sshd", "systemd"})
# The kernel has no program; and Debian's, for kernels without it.
_WIREGUARD = frozenset({("", False), ("wireguard-go", True)})
_SHOWN = 40

Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing on a node: what, why that is a finding, and how to mend it; each is one line.

    Users choose names of files, and a person copies what mends them: paths in commands are quoted.
    """

    node: str
    what: str
    why: str
    fix: str

    def __str__(self) -> str:
        return f"{self.node}: {self.what}: {self.why}. Mend: {self.fix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What may be on a node.

    Args:
        user: the cluster's, in whose authorized_keys `line` stands.
        cluster_key: type and key; `retired` are those that the cluster gave up.
        people: keys of the controller and of `cluster_known_keys`, type and key each.
        listeners: of `cluster_known_listeners`: a program, or tcp/9100.
        programs: of `cluster_known_programs`: paths, or folders that end in /, whose programs may run with
            more rights than who starts them.
        prefix: the environment of jobs, whose ranks may listen.
        mesh: where WireGuard listens: udp/51820.
        ssh: where sshd listens: tcp/22.
    """

    user: str
    line: str
    cluster_key: str
    retired: frozenset[str]
    people: frozenset[str]
    listeners: frozenset[str]
    programs: frozenset[str]
    prefix: str
    mesh: frozenset[str] = frozenset()
    ssh: frozenset[str] = frozenset({"tcp/22"})


def judge(node: str, answer: Answer, expected: Expected, holders: Mapping[str, str]) -> list[Finding]:
    """All that one node shows and should not.

    Args:
        holders: whose key one is, `te3 (/root/.ssh/id_rsa.pub)`, of those that lie on nodes.
    """
    found = [*_ways_in(answer), *_keys(answer, expected, holders)]
    if "listeners" in answer:
        found += [
            *_listeners(answer["listeners"], expected),
            *_modes(answer["modes"]),
            *_setuid(answer["setuid"], expected),
            *_ours(answer["ours"]),
            *_packages(answer["changed"], answer["ours"]),
        ]
    return [
        Finding(node=node, what=one_line(what), why=one_line(why), fix=one_line(fix))
        for what, why, fix in found
    ]


def unheard(node: str, why: str) -> Finding:
    """A node that could not be looked at."""
    said = one_line(f"it was not audited: {why}")
    return Finding(node=node, what="the node", why=said, fix="Audit again once it answers.")


Said = tuple[str, str, str]


def _ways_in(answer: Answer) -> Iterator[Said]:
    for name in ("authorizedkeyscommand", "trustedusercakeys"):
        value = answer["sshd"][name]
        if value != "none":
            yield (
                f"sshd's {name} {value}",
                "it lets in keys that stand in no authorized_keys",
                _SSHD_FIX,
            )
    for one in answer["matches"]:
        keyword, _, value = one["setting"].partition(" ")
        if _as_sshd_says(value) == _as_sshd_says(answer["sshd"].get(keyword.lower(), "")):
            continue  # it holds without that Match, too
        yield (
            f"{one['path']}:{one['number']} sets {one['setting'][:_SHOWN]}",
            f"it holds where {one['match'][:_SHOWN]}, and sshd -T does not tell of it",
            _SSHD_FIX,
        )


def _as_sshd_says(value: str) -> str:
    """`sshd -T` says prohibit-password by its older name."""
    return value.lower().replace("prohibit-password", "without-password")


_SSHD_FIX = "If the site set it, look there yourself; else take it out of sshd_config, restart sshd."


def _keys(answer: Answer, expected: Expected, holders: Mapping[str, str]) -> Iterator[Said]:
    for entry in answer["keys"]:
        where = f"{entry['path']}:{entry['number']}"
        if not entry["number"]:
            yield f"{entry['path']}", *_NOT_READ[entry["line"]]
            continue
        key = key_in(entry["line"])
        why = _why_no_key(key, entry, expected, holders)
        if why:
            what = f"{where} lets {_short(key) or entry['line'][:_SHOWN]} in as {entry['user']}"
            yield what, why, _KEY_FIX if key not in (expected.cluster_key, *expected.retired) else _OUR_FIX


_NOT_READ = {
    "": ("it, or its folder, is a link", "Put a file of its own there."),
    "large": ("it is too large to be read whole", "Look what it holds, then put a small one there."),
}
_KEY_FIX = "If it is a person's whom you know, add it to cluster_known_keys; else take that line out."
_OUR_FIX = "Log in with a key of your own, take that line out, then site.yml --tags ssh_trust."


def _why_no_key(key: str, entry: Answer, expected: Expected, holders: Mapping[str, str]) -> str:
    if not key:
        return "what sshd may read in it, this audit cannot"
    if key in expected.people:
        return ""
    if key in expected.retired:
        return "the cluster gave that key up"
    if key == expected.cluster_key:
        right = entry["line"] == expected.line and entry["user"] == expected.user
        return (
            ""
            if right
            else "it is the cluster's key, without the limits that site.yml sets (from=, restrict)"
        )
    held = f"; its other half seems to be on {holders[key]}" if key in holders else ""
    return f"neither the inventory nor this controller knows that key{held}"


def _short(key: str) -> str:
    kind, _, blob = key.partition(" ")
    return f"{kind} ...{blob[-12:]}" if key else ""


def _listeners(listeners: Sequence[Answer], expected: Expected) -> Iterator[Said]:
    for one in listeners:
        name = f"{one['protocol']}/{one['port']}"
        if one["address"].strip("[]").split("%")[0].startswith(("127.", "::1", "::ffff:127.")):
            continue
        if {name, one["program"]} & expected.listeners or one["exe"].startswith(f"{expected.prefix}/"):
            continue
        if one["packaged"] and (
            one["program"] in _USUAL or (one["program"] in _SSH and name in expected.ssh)
        ):
            continue
        if name in expected.mesh and (one["program"], one["packaged"]) in _WIREGUARD:
            continue
        program = one["exe"] or one["program"] or "the kernel"
        yield (
            f"{program} listens on {name} at {one['address']}",
            "site.yml put no such service there",
            f"If it is the site's, add {name} or its program to cluster_known_listeners; else end it.",
        )


def _modes(modes: Sequence[Answer]) -> Iterator[Said]:
    for one in modes:
        if one["mode"] & 0o077:
            yield (
                f"{one['path']} has mode {one['mode']:04o}",
                "others read a secret",
                f"chmod 600 {shlex.quote(one['path'])}",
            )


def _setuid(programs: Sequence[Answer], expected: Expected) -> Iterator[Said]:
    for one in programs:
        path = one["path"]
        if any(
            path == known or (known.endswith("/") and path.startswith(known)) for known in expected.programs
        ):
            continue
        rights = {name: one[name] for name in ("mode", "capabilities", "packaged")}
        if why := unusual_rights(one["merged"], **rights):
            remove = "setcap -r" if one["capabilities"] else "chmod u-s,g-s"
            fix = f"If it is the site's, add it to cluster_known_programs; else {remove} {shlex.quote(path)}"
            yield path, why, fix


def _ours(ours: Mapping[str, Answer]) -> Iterator[Said]:
    for path, one in ours.items():
        if not one["there"]:
            yield path, "site.yml wrote it, and it is not there", "site.yml writes it again."
        elif one["whole"] and not one["same"]:
            yield path, "it was changed since site.yml wrote it", "Compare, then site.yml writes it again."
        elif one["lacks"]:
            yield (
                path,
                f"what site.yml wrote in it is gone: {one['lacks'][0][:_SHOWN]}",
                "site.yml writes it again.",
            )


def _packages(changed: Sequence[str], ours: Mapping[str, Answer]) -> Iterator[Said]:
    for path in changed:
        if path not in ours:
            package = f"`dpkg -S {shlex.quote(path)}`"
            fix = f"Look what changed; apt-get install --reinstall of {package} brings a program back."
            yield path, "its content is not that of its package", fix


_SETUID, _SETGID = 0o4000, 0o2000
_TRIPLET = re.compile(r"(?<=^/lib/)[a-z0-9_]+-linux-gnu[a-z0-9_]*(?=/)")


def _words(text: str) -> list[str]:
    return text.split()


_ROOTS_RIGHTS = _words(
    """
    /bin/at /bin/bwrap /bin/chfn /bin/chsh /bin/doas /bin/firejail /bin/fusermount /bin/fusermount3
    /bin/gpasswd /bin/ksu /bin/mount /bin/netkit-rcp /bin/netkit-rlogin /bin/netkit-rsh /bin/newgidmap
    /bin/newgrp /bin/newuidmap /bin/ntfs-3g /bin/nvidia-modprobe /bin/passwd /bin/ping /bin/ping4
    /bin/ping6 /bin/pkexec /bin/procmail /bin/singularity-suid /bin/staprun /bin/su /bin/sudo
    /bin/traceroute6.iputils /bin/umount /bin/vmware-user-suid-wrapper /lib/apptainer/bin/starter-suid
    /lib/chromium/chrome-sandbox /lib/dbus-1.0/dbus-daemon-launch-helper /lib/eject/dmcrypt-get-device
    /lib/openssh/ssh-keysign /lib/policykit-1/polkit-agent-helper-1 /lib/polkit-1/polkit-agent-helper-1
    /lib/snapd/snap-confine /lib/xorg/Xorg.wrap /lib/<triplet>/singularity/bin/starter-suid
    /libexec/singularity/bin/starter-suid /lib/<triplet>/lxc/lxc-user-nic /libexec/lxc/lxc-user-nic
    /libexec/apptainer/bin/starter-suid /libexec/polkit-agent-helper-1
    /libexec/spice-client-glib-usb-acl-helper /libexec/sudo/sesh /sbin/exim4 /sbin/mount.cifs
    /sbin/mount.davfs /sbin/mount.ecryptfs_private /sbin/mount.nfs /sbin/pam_extrausers_chkpwd /sbin/pppd
    /sbin/unix_chkpwd /lib/<triplet>/spice-gtk/spice-client-glib-usb-acl-helper
    """
)
_GROUPS_RIGHTS = _words(
    """
    /bin/at /bin/bsd-write /bin/chage /bin/crontab /bin/dotlock.mailutils /bin/dotlockfile /bin/expiry
    /bin/lockfile /bin/mlocate /bin/mutt_dotlock /bin/plocate /bin/procmail /bin/screen /bin/ssh-agent
    /bin/wall /bin/write /bin/write.ul /lib/<triplet>/utempter/utempter /sbin/pam_extrausers_chkpwd
    /sbin/postdrop /sbin/postqueue /sbin/unix_chkpwd
    """
)

# linux/capability.h, in order.
_NAMES = _words(
    """
    chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable
    net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot
    sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease
    audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read
    perfmon bpf checkpoint_restore
    """
)
_NETWORK = frozenset({"net_raw", "net_admin", "net_bind_service", "sys_nice"})
_CAPABLE = {
    **dict.fromkeys(
        _words(
            """
            /bin/arping /bin/clockdiff /bin/dumpcap /bin/fping /bin/fping6 /bin/mtr-packet /bin/ping
            /bin/ping4 /bin/ping6 /bin/traceroute6.iputils /lib/squid/pinger
            /lib/<triplet>/gstreamer1.0/gstreamer-1.0/gst-ptp-helper
            """
        ),
        _NETWORK,
    ),
    "/bin/gnome-keyring-daemon": frozenset({"ipc_lock"}),
    "/bin/newgidmap": frozenset({"setgid"}),
    "/bin/newuidmap": frozenset({"setuid"}),
    "/lib/snapd/snap-confine": frozenset(_NAMES),
}


def unusual_rights(path: str, *, mode: int, capabilities: int, packaged: bool) -> str:
    """Why a program's rights are a finding; empty where its package gives them.

    Args:
        path: without /usr where it is merged.
        mode: with the bits of a set user or group ID.
        capabilities: those that the file gives, bit by bit.
    """
    name = _TRIPLET.sub("<triplet>", path)
    held = {word for number, word in enumerate(_NAMES) if capabilities >> number & 1}
    if beyond := sorted(held - (_CAPABLE.get(name, frozenset()) if packaged else frozenset())):
        return f"it runs with rights of root's ({', '.join(f'cap_{word}' for word in beyond)})"
    if capabilities >> len(_NAMES):
        return "it runs with rights of root's that this audit does not know"
    if mode & (_SETUID | _SETGID) and not packaged:
        return "it runs with the rights of its owner or group, and is of no package"
    if (mode & _SETUID and name not in _ROOTS_RIGHTS) or (mode & _SETGID and name not in _GROUPS_RIGHTS):
        return "it runs with the rights of its owner or group, which its package is not known to give it"
    return ""
