"""What `provision` knows of images, under the names that the roles use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from provision.images import manifest
from provision.images.programs import image_program, with_module


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "image_finding": manifest.finding,
            "image_payload": manifest.payload,
            "image_program": image_program,
            "sealed_image": manifest.sealed,
            "with_module": with_module,
        }
