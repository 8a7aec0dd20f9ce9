"""Prints the cluster that this machine is a node of, and its nodes, by what role runtime wrote there."""

import json
import sys

try:
    with open(sys.argv[1], encoding="utf-8") as stream:
        read = json.load(stream)
    members = [node["name"] for node in read["nodes"]]
    sys.stdout.write(f"cluster {json.dumps([read['name'], members])}\n")
except (OSError, ValueError, KeyError, TypeError, RecursionError):
    pass
