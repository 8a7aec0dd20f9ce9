"""Limits and kernel parameters are raised, never lowered, and a second run finds nothing to do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.roles.host_tuning import (
    Plan,
    file_text,
    limits_as_settings,
    limits_of_services,
    limits_of_session,
    pairs_of_limits,
    plan,
    set_by_others,
    settings_in,
    shortfalls,
)

MAX, RMEM = "net.core.rmem_max", "net.ipv4.tcp_rmem"
OURS = "/etc/sysctl.d/90-clusterwright.conf"


def planned(
    want: str, live: str, *, name: str = MAX, ours: str = "", theirs: dict[str, str] | None = None
) -> Plan:
    return plan({name: want}, live={name: live}, ours=ours, theirs=theirs or {})


@pytest.mark.parametrize(
    ("name", "want", "live", "listed"),
    [
        pytest.param(MAX, "4096", "128", "4096", id="smaller"),
        pytest.param(MAX, "4096", "4096", None, id="equal"),
        pytest.param(MAX, "4096", "8192", None, id="larger stays"),
        pytest.param(
            RMEM, "4096 131072 100", "4096\t65536\t900", "4096 131072 900", id="each field for itself"
        ),
        pytest.param("vm.swappiness", "10", "60", "10", id="no amount, as the site says"),
        pytest.param("* hard nofile", "16384", "20000", None, id="a limit"),
        pytest.param("* soft memlock", "unlimited", "8192", "unlimited", id="without a limit"),
        pytest.param("* soft memlock", "8192", "unlimited", None, id="unlimited stays"),
        pytest.param("DefaultLimitNOFILE", "16384:16384", "1024:524288", "16384:524288", id="of services"),
        pytest.param("DefaultLimitMEMLOCK", "infinity:infinity", "8:8", "infinity:infinity", id="infinity"),
    ],
)
def test_a_value_is_raised_and_never_lowered(name: str, want: str, live: str, listed: str | None) -> None:
    found = planned(want, live, name=name)

    assert found.listed.get(name) == listed
    assert shortfalls(found.live, {name: listed or live}) == []


def test_what_an_owner_raises_later_counts_though_our_file_wins_over_it() -> None:
    ours = file_text(planned("4096", "128"))

    assert planned("4096", "4096", ours=ours, theirs={MAX: "9000"}).listed == {}
    assert planned("4096", "4096", ours=ours, theirs={MAX: "9000"}).live == {MAX: "9000"}
    assert planned("4096", "9000", ours=ours).listed == {}
    assert planned("4096", "4096", ours=ours, theirs={MAX: "1000"}).listed == {MAX: "4096"}


def test_what_a_site_lowers_goes_down_to_what_was_before_us() -> None:
    ours = file_text(planned("4096", "128"))

    assert planned("256", "4096", ours=ours).listed == {MAX: "256"}
    assert planned("64", "4096", ours=ours).listed == {}
    assert planned("64", "4096", ours=ours).live == {MAX: "128"}


VALUES = st.sampled_from(["64", "128", "4096", "9000", "unlimited"])


@given(VALUES, VALUES, st.none() | VALUES)
def test_a_second_run_changes_nothing(want: str, live: str, theirs: str | None) -> None:
    of_others = {MAX: theirs} if theirs else {}
    first = planned(want, live, theirs=of_others)
    ours = file_text(first)

    second = planned(want, first.live[MAX], ours=ours, theirs=of_others)

    assert file_text(second) == ours
    assert second.live == first.live


def test_files_of_others_are_read_as_their_programs_do() -> None:
    files = {
        OURS: f"{MAX} = 1",
        "/etc/sysctl.d/60-a.conf": f"# {MAX} = 9\n-net/core/rmem_max=2\n",
        "/usr/lib/sysctl.d/60-a.conf": f"{MAX} = 3",
        "/usr/lib/sysctl.d/50-b.conf": f"{MAX} = 4\n{RMEM} = 1\t2  3",
        "/etc/systemd/system.conf": f"{MAX} = 5",
    }

    assert set_by_others(files, OURS) == {MAX: "2", RMEM: "1 2 3"}


def test_drop_ins_win_over_the_main_file() -> None:
    limits = {
        "/etc/security/limits.conf": "* - nofile 7 # all\n@gpu soft nofile 9\n",
        "/etc/security/limits.d/20-x.conf": "*  hard\tnofile  8\n",
        "/etc/security/limits.d/90-clusterwright.conf": "* - nofile 1\n",
    }
    settings = {path: limits_as_settings(text) for path, text in limits.items()}

    assert set_by_others(settings, "/etc/security/limits.d/90-clusterwright.conf") == {
        "* soft nofile": "7",
        "* hard nofile": "8",
        "@gpu soft nofile": "9",
    }


def test_our_file_of_the_version_before_is_known_as_ours() -> None:
    """It had one value for both limits, and no line of what was before."""
    system = pairs_of_limits("[Manager]\nDefaultLimitNOFILE=16384\n")
    limits = limits_as_settings("# Clusterwright: see role host_tuning.\n* - nofile 16384\n")

    of_services = planned("16384:16384", "16384:16384", name="DefaultLimitNOFILE", ours=system)
    assert of_services.listed == {"DefaultLimitNOFILE": "16384:16384"}
    assert planned("16384", "16384", name="* hard nofile", ours=limits).listed == {"* hard nofile": "16384"}


def test_live_values_are_read_from_what_programs_print() -> None:
    shown = "DefaultLimitNOFILE=524288\nDefaultLimitNOFILESoft=1024\nDefaultLimitMEMLOCK=infinity"

    assert limits_of_services(shown) == {
        "DefaultLimitNOFILE": "1024:524288",
        "DefaultLimitMEMLOCK": "infinity:infinity",
    }
    assert limits_of_session("root", "8192\nunlimited\n1024\n20000")["root hard memlock"] == "unlimited"
    assert limits_of_session("root", "su: user x does not exist") == {}
    assert settings_in("net.core.somaxconn = 4096\nsysctl: cannot stat /proc/sys/x") == {
        "net.core.somaxconn": "4096"
    }
