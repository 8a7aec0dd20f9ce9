"""Prints the files of the cluster's key that site.yml gave to others than the home that is named.

Two words: the home, and the file in which the key's line stands now.
"""

import json
import os
import sys

own, current = os.path.expanduser(sys.argv[1]) + "/", os.path.expanduser(sys.argv[2])
try:
    with open("/var/lib/clusterwright/journal.json") as stream:
        journal = json.load(stream)
except FileNotFoundError:
    journal = {}
for path, entry in journal.items():
    private = path.endswith("/.ssh/clusterwright_ed25519") and not path.startswith(own)
    # Wherever a site keeps keys (ssh_trust_authorized_keys), our line tells.
    opens = path.endswith("/.ssh/authorized_keys") or any(
        "restrict,pty" in line for line in entry.get("lines", [])
    )
    if private or (opens and path != current):
        sys.stdout.write(f"{path}\n")
