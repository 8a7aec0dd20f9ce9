"""What `provision` knows of images, under the names that the roles use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from provision.core import image_manifest, programs
from provision.fleet.image_programs import image_program


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "image_finding": image_manifest.finding,
            "image_payload": image_manifest.payload,
            "image_program": image_program,
            "sealed_image": image_manifest.sealed,
            "with_module": programs.with_module,
        }
