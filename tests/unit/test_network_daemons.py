"""What network daemons are told that would cost us rules or links."""

from __future__ import annotations

import pytest

from ipamd.network_daemons import (
    NETWORKD_FILE,
    NETWORKMANAGER_FILE,
    networkd_complaints,
    networkmanager_complaints,
)
from tests.tools.pure import ROOT

OURS = (ROOT / NETWORKD_FILE).read_text()
OURS_NM = (ROOT / NETWORKMANAGER_FILE).read_text()

ROUTES, RULES = "ManageForeignRoutes=no", "ManageForeignRoutingPolicyRules=no"


@pytest.mark.parametrize(
    ("texts", "missing"),
    [
        pytest.param([OURS], [], id="our-drop-in"),
        pytest.param([], [ROUTES, RULES], id="nothing"),
        pytest.param(["[Network]\n# a comment\nManageForeignRoutes=0\n"], [RULES], id="half"),
        pytest.param([OURS, "[Network]\nManageForeignRoutes=yes\n"], [ROUTES], id="a-later-one"),
        pytest.param(["[DHCPv4]\nDUIDType=vendor\n", OURS], [], id="another-section"),
        pytest.param(["no section\n", OURS], [], id="a-torn-file"),
    ],
)
def test_networkd_must_leave_what_it_did_not_make(texts: list[str], missing: list[str]) -> None:
    said = [sentence for sentence, _ in networkd_complaints(texts)]
    assert said == [
        f"systemd-networkd runs without {wish}: it removes what is ours when it reloads"
        for wish in missing
    ]


@pytest.mark.parametrize(
    ("texts", "is_well"),
    [
        pytest.param([OURS_NM], True, id="our-drop-in"),
        pytest.param([], False, id="nothing"),
        pytest.param(["[keyfile]\nunmanaged-devices=interface-name:veth*\n"], False, id="others"),
        pytest.param(["[keyfile]\nunmanaged-devices=*\n"], True, id="all"),
        pytest.param(["[device]\nmanaged=0\n"], True, id="a-device-section-of-all"),
        pytest.param(
            ["[device-x]\nmatch-device=interface-name:eni*\nmanaged=0\n"],
            True,
            id="a-device-section",
        ),
        pytest.param(["[device]\nwifi.scan=no\n"], False, id="a-device-section-of-something-else"),
        pytest.param(["torn"], False, id="a-torn-file"),
    ],
)
def test_networkmanager_must_leave_host_veths(texts: list[str], is_well: bool) -> None:  # noqa: FBT001
    said = list(networkmanager_complaints(texts, ["eni0123", "eni4567", "eni89", "eniab"]))
    assert bool(said) is not is_well
    if said:
        assert said[0][0] == "NetworkManager may manage eni0123, eni4567, eni89 ..."


def test_without_links_there_is_nothing_to_manage() -> None:
    assert list(networkmanager_complaints([], [])) == []
