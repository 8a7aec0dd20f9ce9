"""Runs the checks of an environment in it: [{"name": ..., "python": ...}] as JSON on the standard input."""

import json
import os
import sys
import traceback

failed = []
for check in json.load(sys.stdin):
    try:
        exec(compile(check["python"], check["name"], "exec"), {})
    except Exception:
        failed.append("{}: {}".format(check["name"], traceback.format_exc().strip().splitlines()[-1]))
if failed:
    sys.exit("these checks of the environment fail: " + "; ".join(failed))
# Nothing was printed and nothing is open: taking torch down object by object takes 0.7 s.
os._exit(0)
