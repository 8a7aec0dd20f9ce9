"""A model on real nodes: sent once over slow links, the same on all, switched at once, named when spoilt."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import JOB_USER, LabUnderTest, made, playbook, provision
from tests.unit.provision.store.hub_server import Hub, serving

RATE = "200mbit"
MIB = 1 << 20
LINK = "/data/models/tiny"
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def store_lab(lab_machine: None) -> Iterator[LabUnderTest]:
    """Four nodes that trust each other, on links of 200 Mbit/s; so is the controller's own."""
    for lab in made("store", "10.77.234.0/24", 4):
        playbook(lab, "--tags", "node_access,host_names,job_user,ssh_trust,data_disk")
        for node in lab.nodes:
            lab.provision("shape", node, "--rate", RATE)
        words = f"tc qdisc replace dev {lab.lab.bridge} root tbf rate {RATE} burst 256k latency 50ms"
        subprocess.run(words.split(), check=True)
        yield lab


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    for number, size in enumerate((90, 60)):
        (folder / f"model-{number}.safetensors").write_bytes(os.urandom(size * MIB))
    (folder / "config.json").write_text("{}")
    return folder


def fetch(lab: LabUnderTest, folder: Path, *, check: bool = True) -> dict[str, Any]:
    ended = provision("model", "fetch", str(folder), "-i", str(lab.inventory), "--json", check=check)
    found: dict[str, Any] = json.loads(ended.stdout) if ended.stdout else {}
    return {**found, "error": ended.stderr}


def wire_bytes(lab: LabUnderTest) -> int:
    """What this machine has sent to the nodes, with every header."""
    return int(Path(f"/sys/class/net/{lab.lab.bridge}/statistics/tx_bytes").read_text())


def test_a_model_is_sent_once_and_is_the_same_on_every_node(store_lab: LabUnderTest, model: Path) -> None:
    before = wire_bytes(store_lab)

    found = fetch(store_lab, model)

    sent = wire_bytes(store_lab) - before
    assert found["source_bytes"] == found["bytes"]
    assert sent <= 1.02 * found["bytes"]
    assert found["seconds"] <= 1.25 * found["bytes"] * 8 / 200e6 + 5
    words = f"cat {LINK}/*.safetensors | sha256sum"
    here = hashlib.sha256(
        b"".join(path.read_bytes() for path in sorted(model.glob("*.safetensors")))
    ).hexdigest()
    assert {store_lab.out(node, words, user=JOB_USER).split()[0] for node in store_lab.nodes} == {here}
    assert (
        "Permission denied"
        in store_lab.run("te1", f"rm {LINK}/config.json", user=JOB_USER, check=False).stderr
    )
    assert set(store_lab.out_of_all("ls /data/store/partial; ls /data/store/*.socket 2>/dev/null; true")) == {
        ""
    }
    assert fetch(store_lab, model)["source_bytes"] == 0


def test_a_new_generation_moves_what_changed_and_can_be_taken_back(
    store_lab: LabUnderTest, model: Path
) -> None:
    fetch(store_lab, model)
    old = store_lab.out_of_all(f"readlink {LINK}")
    (model / "config.json").write_text('{"new": true}')

    found = fetch(store_lab, model)
    new = store_lab.out_of_all(f"readlink {LINK}")
    started = time.monotonic()
    provision("model", "rollback", "tiny", "-i", str(store_lab.inventory))
    seconds = time.monotonic() - started

    assert found["source_bytes"] == 13
    assert len({*old, *new}) == 2
    assert store_lab.out_of_all(f"readlink {LINK}") == old
    assert seconds < 3 + 2.5  # which it takes to start and to read the inventory
    listed = json.loads(provision("model", "list", "-i", str(store_lab.inventory), "--json").stdout)["models"]
    assert len([one for one in listed if one["used_by"] == store_lab.nodes]) == 1


def test_a_spoilt_byte_is_named_by_file_and_node(store_lab: LabUnderTest, model: Path) -> None:
    fetch(store_lab, model)
    spoil = f"printf x | dd of={LINK}/model-1.safetensors bs=1 seek=5000000 conv=notrunc status=none"
    store_lab.run("te3", spoil)

    quick = provision("model", "verify", "tiny", "-i", str(store_lab.inventory))
    full = provision("model", "verify", "tiny", "-i", str(store_lab.inventory), "--full", check=False)

    assert quick.stdout.count("as delivered") == 4
    assert full.returncode == 1
    assert "te3: differs" in full.stdout
    assert "model-1.safetensors: its content changed" in full.stdout
    assert full.stdout.count("as delivered") == 3
    provision("model", "remove", "tiny", "--node", "te3", "-i", str(store_lab.inventory))
    mended = fetch(store_lab, model)
    assert mended["source_bytes"] == 0
    assert mended["nodes"]["te3"]["got"] == mended["bytes"]
    provision("model", "remove", "tiny", "-i", str(store_lab.inventory))
    assert set(store_lab.out_of_all("ls /data/models /data/store/trees /data/store/manifests")) == {
        "/data/models:\n\n/data/store/manifests:\n\n/data/store/trees:"
    }


@pytest.mark.long  # a folder takes the same way; the hub's part is in tests/unit/provision/store/test_hub.py
def test_a_hub_s_model_reaches_every_node(store_lab: LabUnderTest, tmp_path: Path) -> None:
    token = "hf_" + "s" * 34
    with serving(
        Hub(files={"model.safetensors": os.urandom(5 * MIB), "config.json": b"{}"}, token=token)
    ) as hub:
        env = {
            **os.environ,
            "HF_ENDPOINT": hub.address,
            "HF_TOKEN": token,
            "HF_HOME": str(tmp_path / "home"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        }
        ended = provision("model", "fetch", "tiny/model", "-i", str(store_lab.inventory), env=env)

    assert "is in use on 4 nodes" in ended.stdout
    assert token not in ended.stdout + ended.stderr
    found = store_lab.out_of_all("sha256sum < /data/models/model/model.safetensors")
    expected = hashlib.sha256(hub.files["model.safetensors"]).hexdigest()
    assert {line.split()[0] for line in found} == {expected}


@pytest.mark.long  # the same among processes: tests/unit/provision/store/test_cuts.py
def test_a_cable_that_is_out_for_10_seconds_costs_less_than_a_twentieth(
    store_lab: LabUnderTest, model: Path
) -> None:
    cable = f"{store_lab.lab.bridge}-te1"

    def pull() -> None:
        subprocess.run(["ip", "link", "set", cable, "down"], check=True)
        time.sleep(10)
        subprocess.run(["ip", "link", "set", cable, "up"], check=True)

    timer = threading.Timer(5.0, pull)
    timer.start()
    found = fetch(store_lab, model)
    timer.join()

    assert found["lost"] == {}
    assert found["source_bytes"] <= 1.05 * found["bytes"]
    assert len(set(store_lab.out_of_all(f"readlink {LINK}"))) == 1


@pytest.mark.long
def test_a_controller_that_is_killed_goes_on_where_it_was(store_lab: LabUnderTest, model: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "provision.cli",
        "model",
        "fetch",
        str(model),
        "-i",
        str(store_lab.inventory),
    ]
    before, links = wire_bytes(store_lab), store_lab.out_of_all(f"readlink {LINK}; true")
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        while wire_bytes(store_lab) - before < 60 * MIB:
            time.sleep(0.1)
        child.kill()
    assert store_lab.out_of_all(f"readlink {LINK}; true") == links

    found = fetch(store_lab, model)

    assert wire_bytes(store_lab) - before <= 1.07 * found["bytes"]
    assert set(store_lab.out_of_all("pgrep -fc '[p]ython3 -c import base64'; true")) == {"0"}


@pytest.mark.long
def test_a_node_that_dies_holds_nobody_up_and_comes_back(store_lab: LabUnderTest, model: Path) -> None:
    (model / "config.json").write_text('{"another": true}')
    (model / "more.safetensors").write_bytes(os.urandom(60 * MIB))
    timer = threading.Timer(6.0, store_lab.power_off, ["te2"])
    timer.start()

    ended = fetch(store_lab, model, check=False)
    timer.join()
    store_lab.power_on("te2")
    again = fetch(store_lab, model)

    assert list(ended["lost"]) == ["te2"]
    assert "Run it again once these are reached" in ended["error"]
    assert ended["source_bytes"] <= 1.05 * ended["bytes"]
    assert again["source_bytes"] == 0
    assert len(set(store_lab.out_of_all(f"readlink {LINK}"))) == 1
