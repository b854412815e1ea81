"""What is set on links, and on which only; what a link below the pods' MTU does to TCP."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from socket import AF_INET, IPPROTO_TCP, SOCK_STREAM, TCP_MAXSEG

import pytest

from cni.dataplane import ENI_GROUP, MAX_NUMBER, POD_GROUP
from ipamd.layers import read_settings
from ipamd.settings import Settings
from tests.lab.flows.town import MTU, PODS, Place, Town
from tests.lab.flows.tracked import links_of
from tests.lab.patience import PATIENCE

STRANGERS, STRANGERS_CHOICE = "tun0", "2"
"""A link of the node's own, and what its owner has set there."""

KEYS = ("rp_filter", "send_redirects", "promote_secondaries", "accept_redirects", "forwarding")


def links_settings(town: Town, key: str) -> dict[str, str]:
    """Return one IPv4 setting of every link of the node, and of `all` and `default`."""

    def read() -> dict[str, str]:
        folder = Path("/proc/sys/net/ipv4/conf")
        return {path.name: (path / key).read_text().strip() for path in folder.iterdir()}

    return town.node.worker.call(read)


@pytest.fixture
def stranger(town: Town) -> Iterator[Town]:
    """The town, with a link that its owner has set up, and everything of ours made once more."""
    folder = f"net.ipv4.conf.{STRANGERS}"
    town.node.worker.write_sysctls({f"{folder}.rp_filter": STRANGERS_CHOICE})
    town.live_by(Settings())
    town.wire_anew(Settings())
    yield town
    town.node.worker.write_sysctls({f"{folder}.rp_filter": "0"})


def test_rp_filter_is_set_where_it_must_be_and_only_there(stranger: Town) -> None:
    """1 on pods, or they send as anybody; 2 on ENIs, as strict drops what comes by another."""
    links = {link.name: link.group for link in links_of(stranger.node)}
    pods = [n for n, group in links.items() if POD_GROUP < group <= POD_GROUP + MAX_NUMBER]
    enis = [n for n, group in links.items() if ENI_GROUP < group <= ENI_GROUP + MAX_NUMBER]
    assert (len(pods), len(enis)) == (3, 3)
    found = links_settings(stranger, "rp_filter")
    ours = {**dict.fromkeys(pods, "1"), **dict.fromkeys(enis, "2")}
    others = dict.fromkeys(found.keys() - ours.keys(), "0") | {STRANGERS: STRANGERS_CHOICE}
    assert found == ours | others


@pytest.mark.parametrize("key", KEYS)
def test_links_of_others_are_as_they_were(town: Town, key: str) -> None:
    def others() -> dict[str, str]:
        names = {link.name for link in links_of(town.node) if link.group}
        return {k: v for k, v in links_settings(town, key).items() if k not in names}

    before = others()
    town.live_by(Settings())
    town.wire_anew(Settings())
    assert others() == before
    assert {"all", "default", "lo", STRANGERS} <= before.keys()


# MSS -------------------------------------------------------------------------------------
PATH_MTU = 1400
HEADERS = 40
"""Of IPv4 and TCP, without options."""

TIMESTAMPS = 12
"""TCP's usual option, which TCP_MAXSEG counts."""


@pytest.fixture
def narrow(town: Town) -> Iterator[Town]:
    """The town, whose tunnel takes less than pods send; only the node's end knows it."""
    town.node.run(["ip", "link", "set", STRANGERS, "mtu", str(PATH_MTU)])
    yield town
    town.node.run(["ip", "link", "set", STRANGERS, "mtu", "1500"])
    town.live_by(Settings())


def segment_sizes(client: Place, server: Place, to: object) -> tuple[int, int]:
    """Return the largest segment that either end may send, as each has heard it in a SYN."""
    with (
        server.socket(AF_INET, SOCK_STREAM) as ear,
        client.socket(AF_INET, SOCK_STREAM) as mouth,
    ):
        ear.bind(("", 0))
        ear.listen()
        ear.settimeout(2 * PATIENCE)
        mouth.settimeout(2 * PATIENCE)
        mouth.connect((str(to), ear.getsockname()[1]))
        accepted, _ = ear.accept()
        with contextlib.closing(accepted):
            client_may, server_may = (
                s.getsockopt(IPPROTO_TCP, TCP_MAXSEG) + TIMESTAMPS for s in (mouth, accepted)
            )
            return client_may, server_may


def test_the_clamp_lowers_segments_to_what_the_path_takes(narrow: Town) -> None:
    places, addresses = narrow.places, narrow.addresses
    fits = PATH_MTU - HEADERS

    def sizes(pod: str) -> tuple[int, int]:
        return segment_sizes(places[pod], places["tunnel"], addresses["tunnel"])

    for pod in PODS:
        assert max(sizes(pod)) > fits, "nobody told the ends"
    narrow.live_by(read_settings({"ENID_MSS_CLAMP": "true"}))
    for pod in PODS:
        assert max(sizes(pod)) == fits


def test_the_clamp_leaves_paths_alone_that_take_all(narrow: Town) -> None:
    narrow.live_by(read_settings({"ENID_MSS_CLAMP": "true"}))
    places, addresses = narrow.places, narrow.addresses
    full = MTU - HEADERS
    for pod in PODS:
        found = segment_sizes(places[pod], places["remote"], addresses["remote"])
        assert found == (full, full)
