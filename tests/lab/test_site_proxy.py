"""A site whose nodes reach what they install from through a proxy with a password, and by no other way."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from threading import Thread
from urllib.parse import urlsplit

import pytest

from tests.lab.conftest import LabUnderTest, changed, made, playbook

ROLES = "node_access,host_names,job_user,ssh_trust,base_packages,time_sync,data_disk,miniconda,conda_env"
# No resolver knows it (RFC 6761), so that the proxy alone leads there.
ELSEWHERE = "http://mirror.invalid:8080"
PASSWORD = "s%40fe-hunter22"
# Words of a process as any user sees them; the pattern is no word of its own.
WATCH = (
    "while :; do cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -ao 'hunter[2]2' "
    ">>/tmp/seen; sleep 0.2; done"
)
LEFT = (
    "grep -rlI 'hunter[2]2' /etc /root /home /var /usr/local /tmp /run --exclude-dir=clusterwright-proxy; "
    "journalctl --quiet --no-pager | grep -c 'hunter[2]2'; "
    "stat --format '%a %U %n' /run/clusterwright-proxy /run/clusterwright-proxy/*; env | grep -i proxy"
)
WRITTEN = [
    "0",
    "700 root /run/clusterwright-proxy",
    "600 root /run/clusterwright-proxy/apt.conf",
    "600 root /run/clusterwright-proxy/environment",
]


class Forwarding(BaseHTTPRequestHandler):
    """Forwards what is asked of the mirror, for those who say the password."""

    asked: list[str]
    refused: list[str]
    mirror: str

    def do_GET(self) -> None:
        expected = b64encode(b"ann:s@fe-hunter22").decode()
        if self.headers.get("Proxy-Authorization") != f"Basic {expected}":
            self.refused.append(self.path)
            self.send_response(407)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.asked.append(urlsplit(self.path).path)
        address = self.path.replace(ELSEWHERE, self.mirror)
        request = urllib.request.Request(address, method=self.command)
        try:
            answer = urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as e:
            answer = e
        with answer:
            self.send_response(answer.status or 502)
            for name in ("Content-Length", "Content-Type", "Last-Modified"):
                if value := answer.headers.get(name):
                    self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                shutil.copyfileobj(answer, self.wfile)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def proxied_lab(mirror: None) -> Iterator[LabUnderTest]:
    yield from made("proxied", "10.77.229.0/24", 1)


@pytest.mark.long
def test_all_that_is_installed_comes_through_the_proxy_and_nobody_reads_its_password(
    proxied_lab: LabUnderTest,
) -> None:
    lab, asked = proxied_lab, list[str]()
    refused: list[str] = []
    mirror = f"http://{lab.lab.gateway}:8080"
    handler = type("Handler", (Forwarding,), {"asked": asked, "refused": refused, "mirror": mirror})
    with ThreadingHTTPServer((lab.lab.gateway, 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        proxy = f"http://ann:{PASSWORD}@{lab.lab.gateway}:{server.server_port}"
        said = {"cluster_proxy": proxy, "lab_mirror": ELSEWHERE}
        (lab.inventory / "group_vars" / "all" / "site.yml").write_text(json.dumps(said))
        lab.run("te1", f'systemd-run --quiet --unit=watch sh -c "{WATCH.replace("$", "$$")}"')

        first = playbook(lab, "--tags", ROLES, "-vv", "--diff")
        again = playbook(lab, "--tags", ROLES)
        seen = lab.out("te1", "systemctl stop watch; cat /tmp/seen")
        left = lab.out("te1", LEFT + "; true").splitlines()
        server.shutdown()

    kinds = {PurePosixPath(path).suffix for path in asked}
    assert {".deb", ".sh", ".whl"} <= kinds
    assert {".conda", ".bz2"} & kinds
    assert not any(changed(again).values()), again.stdout
    assert "hunter22" not in first.stdout + first.stderr + again.stdout + again.stderr
    assert seen == ""
    assert left == WRITTEN

    playbook(lab, "playbooks/teardown.yml", "-e", json.dumps({"teardown_confirm": lab.name}))
    assert lab.out("te1", "ls -d /run/clusterwright-proxy || true") == ""
