"""A card for a lab's node, and an apt repository of packages that behave as NVIDIA's driver and dkms do."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from provision.bundle.deb import Deb, packages_text, parse_stanzas, release_text
from provision.bundle.debian import sign

FIRST, SECOND, THIRD = "580.95.05", "580.105.08", "590.48.01"

# dkms(8): it builds each /usr/src/NAME-VERSION for the kernel whose headers are there.
DKMS = """\
#!/bin/sh
kernel=$(uname -r)
case $1 in
status) cat /var/lib/dkms-standin/built 2>/dev/null ;;
autoinstall)
    test -d /usr/src/linux-headers-$kernel || { echo "headers for $kernel cannot be found" >&2; exit 1; }
    mkdir -p /var/lib/dkms-standin
    for source in /usr/src/nvidia-*; do
        echo "nvidia/${source#/usr/src/nvidia-}, $kernel, x86_64: installed"
    done > /var/lib/dkms-standin/built ;;
esac
"""
# As nvidia-smi: of the driver that is loaded, and an error where that is not the installed one.
SMI = """\
#!/bin/sh
loaded=$(cat /sys/module/nvidia/version 2>/dev/null)
test -n "$loaded" || { echo "NVIDIA-SMI has failed"; exit 9; }
test -d /usr/src/nvidia-$loaded || { echo "Driver/library version mismatch"; exit 18; }
case "$*" in
*compute_cap*) echo "$loaded, 9.0, NVIDIA H100 80GB HBM3" ;;
*driver_version*) echo "$loaded, NVIDIA H100 80GB HBM3" ;;
*compute-apps*) : ;;
esac
"""
FABRIC = """\
[Unit]
Description=Stand-in for NVIDIA's fabric manager
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
[Install]
WantedBy=multi-user.target
"""
# One branch takes the place of another, as with NVIDIA's packages.
ALONE = "Provides: {name}\nConflicts: {name}\nReplaces: {name}\n"
BUILD = '#!/bin/sh\ntest "$1" != configure || dkms autoinstall || true\n'
GONE = '#!/bin/sh\ntest "$1" != purge || rm -rf /var/lib/dkms-standin\n'

# What firmware and kernel do: a card and a switch on the bus, and the driver that was built loaded at boot.
HARDWARE = """\
#!/bin/sh
set -e
add() { mkdir -p /sys/bus/pci/devices/$1; echo 0x10de > /sys/bus/pci/devices/$1/vendor
  echo $2 > /sys/bus/pci/devices/$1/class; echo $3 > /sys/bus/pci/devices/$1/device; }
mount -t tmpfs none /sys/bus/pci/devices
add 0000:19:00.0 0x030200 0x2330
add 0000:07:00.0 0x068000 0x22a3
mount -o remount,rw /sys
mkdir -p /sys/module
mount -o remount,ro /sys
mount -t tmpfs none /sys/module
modprobe nvidia || true
"""
MODPROBE = """\
#!/bin/sh
version=$(dkms status | sed -n 's|^nvidia/\\\\([^,]*\\\\), '"$(uname -r)"', .*installed$|\\\\1|p' | tail -n 1)
test -n "$version" || { echo "modprobe: FATAL: Module $1 not found" >&2; exit 1; }
mkdir -p /sys/module/nvidia
echo $version > /sys/module/nvidia/version
"""
UNIT = """\
[Unit]
Description=Stand-in for a card
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/lab-card
[Install]
WantedBy=multi-user.target
"""


def card(has_switch: bool = True) -> str:
    """The shell command that gives a node a card, now and after each boot."""
    hardware = HARDWARE if has_switch else HARDWARE.replace("add 0000:07", "# add 0000:07")
    files = {
        "/usr/local/sbin/lab-card": hardware,
        "/usr/local/sbin/modprobe": MODPROBE.replace("\\\\", "\\"),
        "/etc/systemd/system/lab-card.service": UNIT,
    }
    written = [f"cat > {path} <<'END'\n{text}END\nchmod 755 {path}" for path, text in files.items()]
    return "\n".join(["set -e", *written, "systemctl daemon-reload", "systemctl enable --now lab-card"])


def repository(folder: Path, kernel: str, versions: tuple[str, ...]) -> str:
    """A flat, signed repository in the folder with these versions of the driver; returns its key."""
    pool = folder / "pool"
    pool.mkdir(parents=True, exist_ok=True)
    headers = f"linux-headers-{kernel}"
    debs = [
        deb(pool, "dkms", "3.0.10-8", files={"usr/sbin/dkms": DKMS}, scripts={"postrm": GONE}),
        deb(pool, headers, "1", files={f"usr/src/{headers}/Makefile": ""}),
    ]
    for version in versions:
        source = {f"usr/src/nvidia-{version}/dkms.conf": "", "usr/bin/nvidia-smi": SMI}
        full, branch = f"{version}-0ubuntu1", version.partition(".")[0]
        driver, fabric = (ALONE.format(name=name) for name in ("nvidia-driver-any", "nvidia-fabric-any"))
        name, fields = f"nvidia-open-{branch}", f"Depends: dkms\n{driver}"
        debs.append(deb(pool, name, full, fields, files=source, scripts={"postinst": BUILD}))
        unit = {"usr/lib/systemd/system/nvidia-fabricmanager.service": FABRIC}
        debs.append(deb(pool, f"nvidia-fabricmanager-{branch}", full, fabric, files=unit))
    packages = packages_text(debs, pool="pool").encode()
    indices = {"Packages": packages, "Packages.gz": gzip.compress(packages, mtime=0)}
    for name, content in indices.items():
        (folder / name).write_bytes(content)
    (folder / "Release").write_text(release_text(indices, architectures=["amd64"], seconds=time.time()))
    sign(folder.with_name("signing"), folder)
    return (folder / "key.asc").read_text()


def deb(
    pool: Path,
    name: str,
    version: str,
    fields: str = "",
    *,
    files: Mapping[str, str],
    scripts: Mapping[str, str] | None = None,
) -> Deb:
    """Packs a package with dpkg-deb; its stanza of a Packages file."""
    tree = pool / f".{name}_{version}"
    control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: Tests <t@example>\n"
    control += f"{fields}Description: stand-in of {name}\n"
    parts = {
        **files,
        "DEBIAN/control": control,
        **{f"DEBIAN/{key}": text for key, text in (scripts or {}).items()},
    }
    for path, text in parts.items():
        target = tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(0o755 if text.startswith("#!") else 0o644)
    packed = pool / f"{name}_{version}_amd64.deb"
    build = ["dpkg-deb", "--root-owner-group", "--build", tree, packed]
    subprocess.run(build, check=True, capture_output=True, timeout=60)
    content = packed.read_bytes()
    where = (
        f"Filename: pool/{packed.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
    )
    (found,) = parse_stanzas(control + where)
    return found
