"""Serves the mirror over HTTP to the nodes of a lab, on the bridge's address only: a process of its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from provision.bundle.server import serve_folder


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="Serves a folder to the nodes of a lab.")
    parser.add_argument(
        "--folder", type=Path, required=True, help="the lab's, by which the lab knows this process"
    )
    parser.add_argument("--served", type=Path, required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(words)
    serve_folder(address=options.address, port=options.port, served=options.served)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
