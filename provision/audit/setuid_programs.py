"""Which programs of Debian's and Ubuntu's packages run with more rights than who starts them. Pure.

A package's record on a node knows paths, not modes: without this table a shell with a set user ID was a
program of its package. A path stands here without /usr, and <triplet> for a folder such as x86_64-linux-gnu.
"""

from __future__ import annotations

import re

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
