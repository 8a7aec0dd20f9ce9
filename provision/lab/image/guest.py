"""Files of the base image that no package brings: first-boot keys, stand-ins for what a container lacks."""

from __future__ import annotations

from collections.abc import Mapping

_FOLDER = "usr/lib/clusterwright-lab"

# `ln --force` replaces a link by renaming a new one over it: a reader never finds it missing.
_LINKS = r"""#!/bin/sh
# Stand-in for udev: keeps /dev/disk/by-{uuid,label,id} true for the block devices in /dev.
set -eu
serial=$(tr '\0' '\n' </proc/1/environ | sed -n 's/^LAB_VDB_SERIAL=//p')
wanted=/run/clusterwright-lab.links.$$
trap 'rm -f "$wanted"' EXIT

for device in /dev/*; do
    test -b "$device" || continue
    probed=$(blkid --probe --output udev "$device" || true)
    printf '%s\n' "$probed" | sed -n \
        -e "s|^ID_FS_UUID_ENC=\(.*\)|${device##*/} by-uuid/\1|p" \
        -e "s|^ID_FS_LABEL_ENC=\(.*\)|${device##*/} by-label/\1|p"
    test "$device" != /dev/vdb || printf 'vdb by-id/virtio-%s\n' "$serial"
done >"$wanted"

mkdir -p /dev/disk/by-uuid /dev/disk/by-label /dev/disk/by-id
while read -r name link; do
    ln --symbolic --force "../../$name" "/dev/disk/$link"
done <"$wanted"
for old in /dev/disk/by-*/*; do
    test ! -L "$old" || grep --quiet --line-regexp --fixed-strings \
        "$(basename "$(readlink "$old")") ${old#/dev/disk/}" "$wanted" || rm -f "$old"
done
"""
_LINKS_UNIT = f"""\
# There is no udevd in a container, so nobody makes /dev/disk/by-uuid.
[Unit]
Description=Stand-in for udev: links in /dev/disk to the block devices in /dev
DefaultDependencies=no
Before=local-fs-pre.target lab-fstab.service
StartLimitIntervalSec=0
[Service]
Type=oneshot
ExecStart=/{_FOLDER}/block-devices
[Install]
WantedBy=sysinit.target
"""
_WATCH_UNIT = """\
# As udev does: look again when somebody who could write to the disk closes it. Without the default
# dependencies: they would put it after sysinit.target, which waits for what it starts; systemd breaks
# such a cycle by leaving a unit out.
[Unit]
Description=Stand-in for udev: the data disk has been written to
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target
[Path]
PathChanged=/dev/vdb
Unit=lab-block-devices.service
[Install]
WantedBy=paths.target
"""
# Unlike systemd it waits for no device to appear: in a lab none does.
_FSTAB_UNIT = """\
# systemd-fstab-generator(8) skips devices where /sys is read-only, as it is in a container. As on a machine,
# an entry without nofail that cannot be mounted ends the boot in emergency mode.
[Unit]
Description=Stand-in for systemd-fstab-generator: mounts the devices in /etc/fstab
DefaultDependencies=no
Conflicts=umount.target
After=lab-block-devices.service systemd-remount-fs.service
Before=local-fs.target umount.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/mount --all
[Install]
RequiredBy=local-fs.target
"""
_HOST_KEYS_UNIT = """\
# As cloud-init does on a cloud machine: keys of its own at the first boot. No RSA key: making one takes a
# second of a processor, and nobody asks for it.
[Unit]
Description=Host keys of this machine
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key
ExecStart=/usr/bin/ssh-keygen -q -t ecdsa -N "" -f /etc/ssh/ssh_host_ecdsa_key
[Install]
WantedBy=multi-user.target
"""
_UNITS = {
    "lab-block-devices.path": _WATCH_UNIT,
    "lab-block-devices.service": _LINKS_UNIT,
    "lab-fstab.service": _FSTAB_UNIT,
    "lab-host-keys.service": _HOST_KEYS_UNIT,
}
UNIT_NAMES = tuple(_UNITS)
PROGRAMS: Mapping[str, str] = {f"{_FOLDER}/block-devices": _LINKS}
# Host name, password login and the name on 127.0.1.1 are as a cloud's image has them; roles change them.
FILES: Mapping[str, str] = {
    "etc/default/locale": "LANG=C.UTF-8\n",
    "etc/fstab": "# UNCONFIGURED FSTAB FOR BASE SYSTEM\n",
    "etc/hostname": "debian\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n127.0.1.1\tdebian\n\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "etc/machine-id": "",
    "etc/resolv.conf": "",
    "etc/ssh/sshd_config.d/50-cloud-init.conf": "PasswordAuthentication yes\n",
    **{f"etc/systemd/system/{name}": text for name, text in _UNITS.items()},
}
