"""A result as JUnit XML, for any CI system: a case for each check, an error where it is inconclusive."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

# What XML 1.0 cannot hold, escaped or not (section 2.2).
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAGS = {"fail": "failure", "inconclusive": "error"}


def junit(result: Mapping[str, Any]) -> str:
    """The document of smoke.json as one test suite."""
    checks = result["checks"]
    counts = {
        verdict: sum(check["verdict"] == verdict for check in checks) for verdict in (*_TAGS, "skipped")
    }
    attributes = {
        "name": "clusterwright.smoke",
        "tests": str(len(checks)),
        "failures": str(counts["fail"]),
        "errors": str(counts["inconclusive"]),
        "skipped": str(counts["skipped"]),
        "time": f"{result['seconds']:.3f}",
    }
    suites = Element("testsuites", attributes)
    suite = SubElement(suites, "testsuite", {**attributes, "timestamp": result["started"][:19]})
    for check in checks:
        _case(suite, check)
    indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{tostring(suites, encoding="unicode")}\n'


def _case(suite: Element, check: Mapping[str, Any]) -> None:
    stage, _, name = check["id"].partition(".")
    place = f" ({check['where']})" if check["where"] else ""
    attributes = {"classname": f"smoke.{stage}", "name": _text(f"{name}{place}"), "time": "0"}
    case = SubElement(suite, "testcase", attributes)
    if check["verdict"] == "pass":
        SubElement(case, "system-out").text = _text(check["evidence"])
    elif check["verdict"] == "skipped":
        SubElement(case, "skipped", {"message": _text(check["evidence"])})
    else:
        told = {"message": _text(check["evidence"]), "type": check["id"]}
        SubElement(case, _TAGS[check["verdict"]], told).text = _text(check["fix"])


def _text(text: str) -> str:
    return _NOT_XML.sub("?", text)
