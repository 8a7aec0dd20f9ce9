"""Whether a node waits for a reboot: a newer kernel is installed than runs, or its packages say so."""

from __future__ import annotations

import re
from collections.abc import Sequence

_PARTS = re.compile(r"\d+|[a-z]+")


def waiting_for_reboot(running: str, kernels: Sequence[str], *, is_required: bool) -> str:
    """Why a node waits for a reboot; empty where it does not.

    Args:
        running: what `uname -r` says.
        kernels: the paths /boot/vmlinuz-RELEASE; none on a machine that boots otherwise, as a container does.
        is_required: /run/reboot-required is there, which Ubuntu's packages make.
    """
    releases = [path.rpartition("vmlinuz-")[2] for path in kernels]
    ours = [release for release in releases if _flavour(release) == _flavour(running)]
    newest = max(ours, key=_order, default=running)
    if _order(newest) > _order(running):
        return f"the kernel {running} runs and {newest} is installed"
    return "its packages ask for a reboot (/run/reboot-required)" if is_required else ""


def _flavour(release: str) -> str:
    """`aws` of 6.8.0-1015-aws, `cloud-amd64` of 6.1.0-18-cloud-amd64: other kinds are not compared."""
    return re.sub(r"^[0-9.+~-]*(?:rt[0-9]+-|deb[0-9]+-)*", "", release)


def _order(release: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _PARTS.findall(release)]
