"""What `enid install` hears of an API server and tells it, by HTTP and a model of one."""

from __future__ import annotations

import json
import logging
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ipamd.cluster import CONDITION, POD_ADDRESSES
from ipamd.install import Cluster, Places, cluster_of, install
from ipamd.installation import Wish, read_chained
from ipamd.start import Paths
from tests.contract.kube_suite import Account, Server
from tests.tools.pure import ROOT

NUMBERS = count(1)
EVENTS = "/api/v1/namespaces/default/events"
SHIPPED = json.loads((ROOT / "config" / "05-enid.conflist").read_text())


@pytest.fixture
def cluster(server: Server, tmp_path: Path) -> Cluster:
    name = f"fresh-{next(NUMBERS)}"
    account = Account(server, tmp_path / "account", server.new_token(name))
    server.add_node(name)
    return Cluster(account.api(server.port), name)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    shipped, host = tmp_path / "shipped", tmp_path / "host"
    shipped.mkdir()
    (shipped / "enid-cni").write_bytes(b"plugin")
    (host / "etc/cni/net.d").mkdir(parents=True)
    (host / "opt/cni/bin").mkdir(parents=True)
    return Places(shipped=shipped, host=host, paths=Paths(tmp_path / "run", tmp_path / "lib"))


def conflist(places: Places) -> dict[str, Any]:
    path = places.on_host("etc/cni/net.d/05-enid.conflist")
    said: dict[str, Any] = json.loads(path.read_text())
    return said


def tell_runtime(server: Server, cluster: Cluster, version: str) -> None:
    status = {"nodeInfo": {"containerRuntimeVersion": version}}
    server.patch(f"/api/v1/nodes/{cluster.node}/status", {"status": status})


WISH = Wish(shipped=SHIPPED, sysctls={})


@pytest.mark.parametrize(
    ("runtime", "version"), [("containerd://2.1.4", "1.1.0"), ("containerd://1.7.24", "1.0.0")]
)
def test_the_conflist_is_what_the_nodes_runtime_takes(
    server: Server, cluster: Cluster, places: Places, runtime: str, version: str
) -> None:
    tell_runtime(server, cluster, runtime)
    install(places, WISH, cluster)
    assert conflist(places)["cniVersion"] == version


def test_it_stays_what_it_was_while_nobody_answers(
    server: Server, cluster: Cluster, places: Places, caplog: pytest.LogCaptureFixture
) -> None:
    tell_runtime(server, cluster, "containerd://2.1.4")
    install(places, WISH, cluster)
    away = Cluster(cluster.api, "nobody-knows-it")
    install(places, WISH, away)
    assert conflist(places)["cniVersion"] == "1.1.0"
    assert "the runtime's version is not known" in caplog.text


def test_the_node_has_an_event_for_each_thing_that_is_wrong(
    server: Server, cluster: Cluster, places: Places
) -> None:
    tell_runtime(server, cluster, "containerd://2.1.4")
    places.on_host("etc/cni/net.d/00-other.conflist").write_text("{}")
    before = len(server.ask("GET", EVENTS)["items"])
    wish = Wish(shipped=SHIPPED, sysctls={}, chained=read_chained(["portmap"]))
    install(places, wish, cluster)
    events = server.ask("GET", EVENTS)["items"][before:]
    assert [(e["reason"], e["involvedObject"]["name"]) for e in events] == [
        ("ConflistNotFirst", cluster.node),
        ("PluginMissing", cluster.node),
    ]
    assert "give it a later name (/etc/cni/net.d/00-other.conflist)" in events[0]["message"]
    assert events[0]["reportingInstance"] == cluster.node


def test_an_event_that_nobody_takes_stops_nothing(
    cluster: Cluster, places: Places, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    cluster.api.close()
    places.on_host("etc/cni/net.d/05-enid.conflist").write_text("{}")
    places.on_host("etc/cni/net.d/00-other.conflist").write_text("{}")
    install(places, WISH, cluster)
    assert conflist(places)["cniVersion"] == "1.0.0"
    assert "event not posted" in caplog.text


def test_the_nodes_status_forgets_us_and_keeps_what_is_others(
    server: Server, cluster: Cluster
) -> None:
    path = f"/api/v1/nodes/{cluster.node}"
    ours = {"type": CONDITION, "status": "True", "reason": "AddressesReady"}
    theirs = {"type": "Ready", "status": "True"}
    capacity = {"pods": "29", POD_ADDRESSES: "20"}
    server.patch(f"{path}/status", {"status": {"conditions": [theirs, ours], "capacity": capacity}})
    cluster.forget()
    status = server.ask("GET", path)["status"]
    assert status["conditions"] == [theirs]
    assert status["capacity"] == {"pods": "29"}


def test_a_status_that_may_not_be_written_stops_nothing(
    server: Server, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    server.allow("nodes/status", allowed=False)
    try:
        cluster.forget()
    finally:
        server.allow("nodes/status", allowed=True)
    assert "status of the node left" in caplog.text


def test_where_no_cluster_is_configured_none_is_asked() -> None:
    assert cluster_of({"MY_NODE_NAME": "node-a"}) is None
    assert cluster_of({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}) is None
