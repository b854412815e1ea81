"""What a daemon does with what Kubernetes tells it.

`server` is a model here; `tests/e2e` runs the same tests against a real kube-apiserver.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Network
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from eni.errors import UnauthorizedError
from eni.model import CreateEni, EniId, SecurityGroupId
from ipamd.budget import start_jitter_seconds
from ipamd.cluster import (
    CONDITION,
    POD_ADDRESSES,
    POD_IPS,
    ApiDeniedError,
    ClusterError,
)
from ipamd.configuration import Configuration
from ipamd.daemon import Daemon
from ipamd.election import Action, Elector, draft
from ipamd.engine import IDLE_SECONDS, START_JITTER_SECONDS
from ipamd.intents import CLUSTER_TAG, CREATED_TAG, DESCRIPTION, INSTANCE_TAG
from ipamd.joined import CONFIGS_SECONDS, connect
from ipamd.kube import Access
from ipamd.kube_events import BURST, INTERVAL_SECONDS, PACE
from ipamd.plan.account import Raise
from ipamd.sweep import NO_CLUSTER, SECOND_LOOK_SECONDS
from ipamd.told_by_cluster import HEARING_SECONDS
from tests.contract.joined_node import HASTE, JoinedNode, poll
from tests.contract.kube_suite import Account, Ears, Relay, Server, eni_config_body

ENI_CONFIGS = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs"
NODE_NETWORKS = "/apis/enid.dev/v1alpha1/nodenetworks"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/enid-sweeper"
EVENTS = "/api/v1/namespaces/default/events"
PODS = "/api/v1/namespaces/kube-system/pods"
KEY = "k8s.amazonaws.com/eniConfig"
GONE_GROUP = "sg-0123456789abcdef0"
HOME, FIRST, SECOND = "10.0.0.0/20", "100.64.0.0/24", "100.64.1.0/24"
GROUP = SecurityGroupId("sg-00000000000000c0")
CUSTOM = "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG"
NUMBERS = count(1)
HEADROOM = 2
"""What demand holds ready before it has learned more."""


@dataclass
class Site:
    """A node of a cluster, and its API server."""

    server: Server
    account: Account
    node: JoinedNode
    name: str

    # The daemon ----------------------------------------------------------------------------
    def start(self) -> None:
        """Start the daemon; return when it has heard of its node and pods."""
        self.join(self.server.port)
        poll(self.is_connected, "the cluster's word")
        self.node.hurry()

    def start_alone(self) -> None:
        """Start the daemon while nobody listens where the API server should be."""
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = found.getsockname()[1]
        self.join(port)
        self.node.hurry()

    def join(self, port: int) -> None:
        """Start the daemon, joined to whoever is at *port*."""
        self.node.start(partial(self._join, port=port))

    async def _join(self, daemon: Daemon, configuration: Configuration, port: int) -> None:
        terms = self.server.terms
        terms = replace(
            terms,
            lease_seconds=int(terms.lease_seconds * HASTE),
            deadline_seconds=terms.deadline_seconds * HASTE,
            renew_seconds=terms.renew_seconds * HASTE,
            stand_by_seconds=terms.stand_by_seconds * HASTE,
        )
        environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(port)}
        access = Access(environ=environ, folder=self.account.folder)
        await connect(daemon, configuration, access, terms).run()

    def is_connected(self) -> bool:
        """Whether the node and its pods were heard of, and nothing is wrong."""
        is_heard = self.node.daemon.outlook.told.bound is not None
        return is_heard and self.node.status()["cluster"] == {"link": "connected", "sentence": ""}

    def leads(self) -> bool:
        """Whether the daemon holds the Lease."""
        with contextlib.suppress(AssertionError):
            return bool(self.server.ask("GET", LEASE)["spec"]["holderIdentity"] == self.name)
        return False

    # The cluster ---------------------------------------------------------------------------
    def bind(self, number: int, **more: Any) -> list[str]:
        """Bind new pods to the node; return their names."""
        names = [f"{self.name}-{next(NUMBERS)}" for _ in range(number)]
        for name in names:
            self.server.add_pod(name, self.name, **more)
        return names

    def patch(self, **what: object) -> None:
        """Change the Node."""
        self.server.patch(f"/api/v1/nodes/{self.name}", what)

    def label(self, **labels: str | None) -> None:
        """Set labels of the Node."""
        self.patch(metadata={"labels": labels})

    def annotate(self, **annotations: str | None) -> None:
        """Set annotations of the Node."""
        self.patch(metadata={"annotations": annotations})

    def set_capacity(self, pods: int) -> None:
        """Say how many pods the node takes, as kubelet does."""
        status = {"status": {"capacity": {"pods": str(pods)}}}
        self.server.patch(f"/api/v1/nodes/{self.name}/status", status)

    def add_config(self, spec: dict[str, Any], name: str = "") -> str:
        """Create an ENIConfig; return its name."""
        name = name or f"zone-{next(NUMBERS)}"
        self.server.ask("POST", ENI_CONFIGS, eni_config_body(name, spec))
        return name

    def events(self, name: str = "", reason: str = "") -> list[dict[str, Any]]:
        """Return this node's Events, of the object of that *name* and with that *reason* only."""
        found = self.server.ask("GET", EVENTS)["items"]
        return [
            event
            for event in found
            if event["source"]["host"] == self.name
            and name in {"", event["involvedObject"]["name"]}
            and reason in {"", event["reason"]}
        ]

    def condition(self) -> dict[str, Any]:
        """Return the Node's condition of pod addresses, {} if it has none."""
        status = self.server.ask("GET", f"/api/v1/nodes/{self.name}")["status"]
        found = [c for c in status.get("conditions", ()) if c["type"] == CONDITION]
        return found[0] if found else {}

    def says(self, status: str, reason: str) -> bool:
        """Whether that is what the condition says."""
        found = self.condition()
        return (found.get("status"), found.get("reason")) == (status, reason)

    def pod(self, name: str) -> dict[str, Any]:
        """Return a pod's metadata."""
        return dict(self.server.ask("GET", f"{PODS}/{name}")["metadata"])

    def record(self) -> dict[str, Any]:
        """Return the status of the node's NodeNetwork, {} if there is none."""
        with contextlib.suppress(AssertionError):
            found = self.server.ask("GET", f"{NODE_NETWORKS}/{self.name}")
            return dict(found.get("status", {}))
        return {}

    def taints(self) -> dict[str, str]:
        """Return the Node's taints, key and effect."""
        found = self.server.ask("GET", f"/api/v1/nodes/{self.name}")["spec"].get("taints", ())
        return {taint["key"]: taint["effect"] for taint in found}

    def is_forbidden(self) -> bool:
        """Whether the account may not create Events."""
        try:
            self.account.api(self.server.port).create(EVENTS, {"metadata": {}})
        except ApiDeniedError:
            return True
        except ClusterError:
            return False
        raise AssertionError("an Event without a name was created")

    def sentence(self) -> str:
        """Return what `enid status` says is wrong with the cluster."""
        return self.node.status()["cluster"]["sentence"]

    def lost(self) -> int:
        """Return how many Events could not be posted."""
        return self.node.counted["events_lost"]

    def subnet(self, cidr: str, *groups: str) -> dict[str, Any]:
        """Return the spec of an ENIConfig."""
        return {"subnet": self.node.subnet(cidr), "securityGroups": list(groups)}


@pytest.fixture
def site(server: Server, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """A maker of sites, whose nodes have a name that nobody had."""
    with contextlib.suppress(AssertionError):
        server.ask("DELETE", LEASE)
    with contextlib.ExitStack() as stack:

        def make(**settings: str) -> Site:
            name = f"joined-{next(NUMBERS)}"
            server.add_node(name)
            account = Account(server, tmp_path / "account", server.new_token(f"of-{name}"))
            environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "MY_NODE_NAME": name, **settings}
            node = JoinedNode(tmp_path, environ, FIRST, SECOND)
            node.account.add_group(GROUP)
            stack.callback(node.stop)
            return Site(server, account, node, name)

        yield make


MakeSite = Callable[..., Site]


# Pods ------------------------------------------------------------------------------------
def test_pods_that_are_bound_are_asked_for_in_one_call_before_the_first_add(site: MakeSite) -> None:
    here = site()
    here.bind(5)
    here.bind(1, host_network=True)
    for name, phase in zip(here.bind(2), ("Succeeded", "Failed"), strict=True):
        here.server.end_pod(name, phase)
    here.start()
    poll(lambda: here.node.free == 5 + HEADROOM, "addresses for all")
    here.node.pass_time(60)
    assert (here.node.free, here.node.calls("AssignPrivateIpAddresses")) == (5 + HEADROOM, 1)
    asked = [here.node.add() for _ in range(5)]
    assert len({ask.address() for ask in asked}) == 5


class Gate(Relay):
    """A way to the API server that is silent until it is opened."""

    def __init__(self, port: int) -> None:
        self.open = threading.Event()
        super().__init__(port)

    def close(self) -> None:
        """End."""
        self.open.set()
        super().close()

    def _carry(self, near: socket.socket) -> None:
        self.open.wait()
        super()._carry(near)


@pytest.fixture
def gate(server: Server) -> Iterator[Gate]:
    """A gate before the API server."""
    gate = Gate(server.port)
    yield gate
    gate.close()


def test_growth_waits_for_the_clusters_word_so_that_it_is_one_call(
    site: MakeSite, gate: Gate
) -> None:
    here = site()
    here.bind(5)
    here.join(gate.port)
    poll(here.node.daemon.engine.census.done.is_set, "EC2's word")
    here.node.pass_time(0.5)
    assert here.node.free == 0
    gate.open.set()
    poll(lambda: here.node.free == 5 + HEADROOM, "addresses for all")
    assert here.node.calls("AssignPrivateIpAddresses") == 1


def test_no_add_waits_for_the_clusters_word(site: MakeSite, gate: Gate) -> None:
    here = site()
    here.join(gate.port)
    before = here.node.clock()
    assert here.node.add().address()
    assert here.node.clock().elapsed(before) < HEARING_SECONDS / 2
    assert here.node.daemon.outlook.told.bound is None


def test_growth_waits_for_the_clusters_word_for_seconds_only(site: MakeSite, gate: Gate) -> None:
    here = site()
    here.join(gate.port)
    here.node.hurry()
    poll(lambda: here.node.free == HEADROOM, "the headroom")
    assert here.node.modes == ["normal"], "it is not known to be away yet"


def test_pods_that_are_bound_later_are_asked_for(site: MakeSite) -> None:
    here = site()
    here.start()
    poll(lambda: here.node.free == HEADROOM, "the headroom")
    here.bind(6)
    enough = 6 + HEADROOM // 2  # half of the headroom may be used up before more is asked for
    poll(lambda: here.node.free >= enough, "addresses for all")
    here.node.pass_time(60)
    assert here.node.free <= 6 + HEADROOM


def test_no_more_is_asked_than_the_node_may_have_pods(site: MakeSite) -> None:
    here = site()
    here.set_capacity(4)
    here.bind(8)
    here.start()
    poll(lambda: here.node.free == 4, "addresses for four")
    here.node.pass_time(60)
    assert here.node.free == 4
    here.set_capacity(6)
    poll(lambda: here.node.free == 6, "addresses for six")


# Cordons ---------------------------------------------------------------------------------
def test_a_cordoned_node_gives_back_what_is_warm_and_takes_it_again(site: MakeSite) -> None:
    here = site()
    here.bind(3)
    here.start()
    poll(lambda: here.node.free == 3 + HEADROOM, "addresses for all")
    here.patch(spec={"unschedulable": True})
    poll(lambda: here.node.modes == ["cordoned"], "the cordon")
    poll(lambda: here.node.free == 3, "addresses for those that are bound, and no more")
    assert here.node.add().address()
    here.patch(spec={"unschedulable": None})
    poll(lambda: here.node.modes == ["normal"], "its end")
    poll(lambda: here.node.free >= 2 + HEADROOM, "warm addresses")


def test_a_cordoned_node_keeps_its_pool_where_a_setting_says_so(site: MakeSite) -> None:
    here = site(AWS_MANAGE_ENIS_NON_SCHEDULABLE="true")
    here.start()
    poll(lambda: here.node.free == HEADROOM, "the headroom")
    here.patch(spec={"unschedulable": True})
    poll(lambda: here.node.daemon.outlook.told.unschedulable, "the cordon")
    here.node.pass_time(220)
    assert (here.node.modes, here.node.free) == (["normal"], HEADROOM)
    assert not here.node.calls("UnassignPrivateIpAddresses")


# Settings --------------------------------------------------------------------------------
def test_settings_follow_the_nodes_label_and_annotation(
    site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    here = site()
    (here.node.config_map / "profile.batch").write_text("WARM_IP_TARGET=5\n")
    here.start()
    poll(lambda: here.node.free == HEADROOM, "the headroom")
    here.label(**{"enid.dev/profile": "batch"})
    poll(lambda: here.node.free == 5, "the profile's target")
    here.annotate(**{"enid.dev/settings": "WARM_IP_TARGET=7"})
    poll(lambda: here.node.free == 7, "the annotation's target")
    here.annotate(**{"enid.dev/settings": "WARM_IP_TARGET=many"})
    poll(lambda: here.node.modes == ["settings-kept"], "the mode")
    wrong = "annotation enid.dev/settings: WARM_IP_TARGET=many"
    assert f"settings: {wrong}" in here.node.troubles
    assert wrong in " ".join(str(vars(record).get("reason")) for record in caplog.records)
    assert here.node.free == 7
    here.annotate(**{"enid.dev/settings": "WARM_IP_TARGET=8"})
    poll(lambda: here.node.free == 8, "the mended annotation's target")
    poll(lambda: (here.node.modes, here.node.troubles) == (["normal"], ""), "peace")


def test_a_setting_that_the_kernel_cannot_serve_is_kept_out_with_its_features_name(
    site: MakeSite,
) -> None:
    here = site()
    lacks = "nf_tables rt (rt mtu, for ENID_MSS_CLAMP) is needed"
    here.node.kernel.lacks_for_clamp = (lacks,)
    here.start()
    poll(lambda: here.node.free == HEADROOM, "the headroom")
    written = here.node.kernel.nft_writes
    here.annotate(**{"enid.dev/settings": "ENID_MSS_CLAMP=true,WARM_IP_TARGET=7"})
    poll(lambda: here.node.modes == ["settings-kept"], "the mode")
    assert f"settings: {lacks}" in here.node.troubles
    settings = here.node.daemon.settings
    assert (settings.mss_clamp, settings.warm_ip_target) == (False, None)
    here.annotate(**{"enid.dev/settings": "WARM_IP_TARGET=7"})
    poll(lambda: here.node.free == 7, "the annotation's target")
    poll(lambda: (here.node.modes, here.node.troubles) == (["normal"], ""), "peace")
    assert here.node.kernel.nft_writes == written


def test_a_profile_holds_from_the_first_moment_of_a_start_without_the_api_server(
    site: MakeSite,
) -> None:
    here = site()
    (here.node.config_map / "profile.batch").write_text("WARM_IP_TARGET=5\nCLUSTER_NAME=blue\n")
    here.label(**{"enid.dev/profile": "batch", "other": "not-noted"})
    here.start()
    poll(lambda: here.node.free == 5, "the profile's target")
    assert here.node.daemon.settings.cluster_name == "", "it is read at start only"
    here.node.stop()
    here.start_alone()
    assert here.node.daemon.settings.warm_ip_target == 5
    assert here.node.daemon.settings.cluster_name == "blue"
    poll(lambda: here.node.modes == ["api-away"], "the mode")
    assert here.node.add().address()


def test_another_nodes_profile_is_not_taken_from_a_disk_that_became_an_image(
    site: MakeSite,
) -> None:
    here = site()
    (here.node.config_map / "profile.batch").write_text("WARM_IP_TARGET=5\n")
    here.label(**{"enid.dev/profile": "batch"})
    here.start()
    poll(lambda: here.node.free == 5, "the profile's target")
    here.node.stop()
    here.node.environ = {**here.node.environ, "MY_NODE_NAME": "another"}
    here.start_alone()
    assert here.node.daemon.settings.demand


# ENIConfigs ------------------------------------------------------------------------------
@pytest.mark.parametrize("place", ["labels", "annotations"])
def test_an_eniconfig_places_new_enis_and_the_primary_gives_pods_nothing(
    site: MakeSite, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    here = site(**{CUSTOM: "true"})
    name = here.add_config(here.subnet(FIRST, GROUP))
    here.patch(metadata={place: {KEY: name}})
    here.start()
    address = here.node.add().address()
    assert address in IPv4Network(FIRST)
    primary, eni = here.node.status()["enis"]
    assert (primary["assigned"], primary["free"], primary["excluded"]) == (0, 0, True)
    assert here.node.enis()[eni["id"]].security_groups == (GROUP,)
    assert here.node.troubles == ""
    assert not [r for r in caplog.records if "no room" in r.message], "it was not known yet"


def test_an_eniconfig_without_a_subnet_means_the_primary_enis(site: MakeSite) -> None:
    here = site(**{CUSTOM: "true"})
    here.label(**{KEY: here.add_config({"securityGroups": [GROUP]})})
    here.start()
    assert here.node.add().address() in IPv4Network(HOME)
    primary, eni = here.node.status()["enis"]
    assert (primary["assigned"], primary["free"], eni["excluded"]) == (0, 0, False)
    assert here.node.enis()[eni["id"]].security_groups == (GROUP,)


def test_the_second_eniconfig_serves_while_the_firsts_subnet_is_full(site: MakeSite) -> None:
    here = site(**{CUSTOM: "true"})
    names = [here.add_config(here.subnet(cidr)) for cidr in (FIRST, SECOND)]
    here.node.fill(FIRST)
    here.annotate(**{KEY: ",".join(names)})
    here.start()
    assert here.node.add().address() in IPv4Network(SECOND)
    assert here.node.troubles == ""


def test_the_second_eniconfig_serves_while_the_firsts_group_is_gone(
    site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    here = site(**{CUSTOM: "true"})
    first = here.add_config(here.subnet(FIRST, GONE_GROUP))
    here.annotate(**{KEY: f"{first},{here.add_config(here.subnet(SECOND))}"})
    here.start()
    assert here.node.add().address() in IPv4Network(SECOND)
    said = [record for record in caplog.records if record.msg == "no eni placed"]
    assert [GONE_GROUP in vars(record)["reason"] for record in said] == [True]


def test_an_eniconfig_that_is_missing_is_said_and_the_second_one_serves(site: MakeSite) -> None:
    here = site(**{CUSTOM: "true"})
    missing, good = f"zone-{next(NUMBERS)}", here.add_config(here.subnet(SECOND))
    here.annotate(**{KEY: f"{missing},{good}"})
    here.start()
    assert here.node.add().address() in IPv4Network(SECOND)
    assert f"ENIConfig {missing} is not in the cluster" in here.node.troubles


def test_eniconfigs_hold_while_the_api_server_is_away(site: MakeSite) -> None:
    here = site(**{CUSTOM: "true"})
    names = [here.add_config(here.subnet(cidr)) for cidr in (FIRST, SECOND)]
    here.annotate(**{KEY: ",".join(names)})
    here.start()
    assert here.node.add().address() in IPv4Network(FIRST)
    here.server.kill()
    try:
        here.node.pass_time(CONFIGS_SECONDS + 60)
        assert [c.config for c in here.node.daemon.places.configs or ()] == names
        assert (here.node.modes, here.node.troubles) == (["api-away"], "")
    finally:
        here.server.start()


def test_no_eni_goes_elsewhere_while_ec2_does_not_tell_of_the_eniconfigs_subnet(
    site: MakeSite,
) -> None:
    here = site(**{CUSTOM: "true"})
    denied = Raise(UnauthorizedError)
    here.node.account.faults = lambda action, _: denied if action == "DescribeSubnets" else None
    here.label(**{KEY: here.add_config(here.subnet(FIRST))})
    here.start()
    assert "refuses to list the subnets" in here.node.add().error()
    assert len(here.node.enis()) == 1
    here.node.account.faults = lambda *_: None
    poll(lambda: here.node.free, "an address")
    assert here.node.add().address() in IPv4Network(FIRST)


WRONG = pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param(None, "is not in the cluster", id="missing"),
        pytest.param({"subnet": "10.0.0.0/24"}, "spec.subnet is '10.0.0.0/24', not an id", id="malformed"),
    ],
)  # fmt: skip


@WRONG
def test_an_eniconfig_that_cannot_be_used_is_said_and_used_when_it_can(
    site: MakeSite, caplog: pytest.LogCaptureFixture, spec: dict[str, Any] | None, words: str
) -> None:
    here = site(**{CUSTOM: "true"})
    name = f"zone-{next(NUMBERS)}"
    if spec is not None:
        here.add_config(spec, name)
    here.label(**{KEY: name})
    here.start()
    poll(lambda: here.node.troubles, "the trouble")
    assert here.node.troubles.startswith(f"eniconfig: ENIConfig {name}")
    assert words in here.node.troubles
    assert here.node.troubles.count("\n") == 0, "one sentence"
    reasons = [vars(r).get("reason", "") for r in caplog.records if "eniconfig" in r.message]
    assert [words in reason for reason in reasons] == [True]
    assert words in here.node.add().error()
    poll(lambda: here.events(here.name), "the node's event")
    (event,) = here.events(here.name)
    assert (event["reason"], event["count"]) == ("EniConfigNotUsed", 1)
    assert words in event["message"]
    assert f"label {KEY} of Node {here.name} names it" in event["message"]
    assert "until one can be used the node gets no ENI for pods" in event["message"]
    if spec is None:
        here.add_config(here.subnet(FIRST), name)
    else:
        here.server.patch(f"{ENI_CONFIGS}/{name}", {"spec": here.subnet(FIRST)})
    poll(lambda: not here.node.troubles, "peace")
    assert here.node.add().address() in IPv4Network(FIRST)


@WRONG
def test_pods_are_served_from_what_is_there_while_an_eniconfig_cannot_be_used(
    site: MakeSite, spec: dict[str, Any] | None, words: str
) -> None:
    here = site(**{CUSTOM: "true"})
    good, other = here.add_config(here.subnet(FIRST)), f"zone-{next(NUMBERS)}"
    here.label(**{KEY: good})
    here.start()
    assert here.node.add().address() in IPv4Network(FIRST)
    if spec is not None:
        here.add_config(spec, other)
    here.label(**{KEY: other})
    poll(lambda: words in here.node.troubles, "the trouble")
    assert here.node.add().address() in IPv4Network(FIRST)
    unused = partial(here.events, here.name, "EniConfigNotUsed")
    poll(unused, "the node's event")
    assert f"new ENIs go as {good} said before" in unused()[0]["message"]


def test_an_eniconfig_without_groups_is_said_once(
    site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    here = site(**{CUSTOM: "true"})
    name = here.add_config(here.subnet(FIRST))
    here.label(**{KEY: name})
    here.start()
    assert here.node.add().address() in IPv4Network(FIRST)
    poll(lambda: here.events(here.name), "the node's event")
    here.node.pass_time(2 * INTERVAL_SECONDS)
    (event,) = here.events(here.name)
    words = f"ENIConfig {name} has no security group: new ENIs of Node {here.name} get those of its"
    assert (event["reason"], event["message"][: len(words)]) == ("EniConfigWithoutGroups", words)
    lines = [r for r in caplog.records if r.message == "eniconfig without security groups"]
    assert len(lines) == 1


def test_new_enis_go_where_eniconfigs_had_them_go_after_a_start_without_the_api_server(
    site: MakeSite,
) -> None:
    here = site(**{CUSTOM: "true"})
    here.label(**{KEY: here.add_config(here.subnet(FIRST, GROUP))})
    here.start()
    assert here.node.add().address() in IPv4Network(FIRST)
    here.node.stop()
    here.start_alone()
    asked = [here.node.add() for _ in range(12)]
    assert all(ask.address() in IPv4Network(FIRST) for ask in asked)
    enis = here.node.status()["enis"]
    assert len(enis) == 3
    assert {here.node.enis()[eni["id"]].security_groups for eni in enis[1:]} == {(GROUP,)}


# The API server --------------------------------------------------------------------------
def test_pods_are_served_while_the_api_server_is_away(site: MakeSite) -> None:
    here = site()
    here.bind(2)
    here.start()
    poll(lambda: here.node.free == 2 + HEADROOM, "addresses for all")
    here.server.kill()
    try:
        poll(lambda: here.node.modes == ["api-away"], "the mode")
        poll(lambda: "refused" in here.node.status()["cluster"]["sentence"], "the sentence")
        assert here.node.status()["cluster"]["link"] == "away"
        asked = [here.node.add() for _ in range(12)]
        assert len({ask.address() for ask in asked}) == 12
    finally:
        here.server.start()
    poll(lambda: here.node.modes == ["normal"], "the API server's return")
    here.bind(14)
    poll(lambda: here.node.daemon.outlook.told.bound == 16, "what is bound since")
    assert here.is_connected()


def test_a_daemon_that_starts_without_the_api_server_grows_by_itself_and_joins_later(
    site: MakeSite,
) -> None:
    here = site()
    here.server.kill()
    try:
        here.join(here.server.port)
        here.node.hurry()
        poll(lambda: here.node.free == HEADROOM, "the headroom")
        assert here.node.modes == ["api-away"]
    finally:
        here.server.start()
    poll(here.is_connected, "the API server's return")
    poll(lambda: here.node.modes == ["normal"], "the mode's end")


# Events ----------------------------------------------------------------------------------
def test_a_pod_without_an_address_has_one_event_with_cause_and_next_step(site: MakeSite) -> None:
    here = site()
    here.node.fill(HOME)
    here.start()
    pod = f"web-{next(NUMBERS)}"
    refused = here.node.add(pod).error()
    poll(lambda: here.events(pod), "an event")
    (event,) = here.events(pod)
    assert event["involvedObject"] == {
        "apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": pod, "uid": f"{pod}-uid",
    }  # fmt: skip
    assert (event["type"], event["reason"], event["count"]) == ("Warning", "SubnetExhausted", 1)
    assert event["message"] == (
        f"{refused.partition(': ')[2]}. Next step: free addresses in the subnet, or add one for"
        " this zone"
    )
    assert event["source"] == {"component": "enid", "host": here.name}
    assert event["reportingComponent"] == "enid"
    assert event["firstTimestamp"] == event["lastTimestamp"]


def test_what_lasts_is_an_event_of_pod_and_node_in_ten_minutes_with_its_count(
    site: MakeSite,
) -> None:
    here = site()
    denied = Raise(UnauthorizedError)
    grows = {"AssignPrivateIpAddresses", "CreateNetworkInterface"}
    here.node.account.faults = lambda action, _: denied if action in grows else None
    here.start()
    pod = f"web-{next(NUMBERS)}"
    began = here.node.clock()

    def denials(name: str) -> list[dict[str, Any]]:
        found = [event for event in here.events(name) if event["reason"] == "Ec2Unauthorized"]
        return sorted(found, key=lambda event: str(event["lastTimestamp"]))

    while min(len(denials(pod)), len(denials(here.name))) < 2:
        assert here.node.add(pod).error()
        assert here.node.clock().elapsed(began) < 9 * INTERVAL_SECONDS
    for name, about in ((pod, f"{pod}-uid"), (here.name, here.name)):
        first, second, *_ = denials(name)
        assert first["involvedObject"]["uid"] == second["involvedObject"]["uid"] == about
        assert first["message"].endswith(
            ". Next step: allow the named action in the node's IAM policy"
        )
        assert (first["count"], second["count"] > 1) == (1, True)
        assert first["lastTimestamp"] < second["firstTimestamp"] < second["lastTimestamp"]
        former, latter = (dt.datetime.fromisoformat(e["lastTimestamp"]) for e in (first, second))
        assert (latter - former).total_seconds() >= INTERVAL_SECONDS - 1


def test_a_detach_that_is_denied_is_an_event_of_the_node(site: MakeSite) -> None:
    here = site(WARM_ENI_TARGET="1")
    here.start()
    assert here.node.add().address()
    poll(lambda: len(here.node.status()["enis"]) == 2, "an ENI is warm")
    denied = Raise(UnauthorizedError)
    refuses = "DetachNetworkInterface"
    here.node.account.faults = lambda action, _: denied if action == refuses else None
    here.patch(spec={"unschedulable": True})
    poll(lambda: here.events(here.name), "the node's event")
    (event, *_) = here.events(here.name)
    assert event["reason"] == "Ec2Unauthorized"
    assert "EC2 refuses to detach" in event["message"]
    assert event["message"].endswith(". Next step: allow the named action in the node's IAM policy")
    here.node.account.faults = lambda _action, _request: None
    poll(lambda: len(here.node.enis()) == 1, "the ENI is given back once it may be")


def test_a_node_that_is_full_has_an_event_when_one_more_pod_comes(site: MakeSite) -> None:
    here = site(MAX_ENI="1")
    here.start()
    held = [here.node.add() for _ in range(9)]
    assert len({pod.address() for pod in held}) == 9
    here.node.pass_time(60)
    assert not here.events(), "a node whose pods have all of its addresses is as it should be"
    pod = f"web-{next(NUMBERS)}"
    assert here.node.add(pod).error()
    poll(lambda: len(here.events()) == 2, "the pod's and the node's")
    for name in (pod, here.name):
        (event,) = here.events(name)
        assert event["reason"] == "NodeFull"
        assert "9 of 9 in use" in event["message"]
        assert event["message"].endswith("lower its max-pods, or use a larger instance type")


def test_a_burst_of_failing_pods_is_posted_bit_by_bit(site: MakeSite) -> None:
    here = site()
    here.node.fill(HOME)
    here.start()
    more = 4
    pods = {here.node.add() for _ in range(BURST + more)}
    for pod in pods:
        assert pod.error()
    names = {pod.name for pod in pods}
    poll(lambda: names <= {e["involvedObject"]["name"] for e in here.events()}, "all events")
    refused = min(dt.datetime.fromisoformat(event["lastTimestamp"]) for event in here.events())
    assert here.node.clock().wall - refused.timestamp() > more / PACE


def test_events_are_lost_while_the_api_server_is_away_and_pods_are_answered(
    site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    here = site()
    here.node.fill(HOME)
    here.start()
    here.server.kill()
    try:
        poll(lambda: here.node.modes[-1:] == ["api-away"], "the mode")
        pod, before = f"web-{next(NUMBERS)}", here.lost()
        assert here.node.add(pod).error()
        assert here.lost() - before <= 1, "none is tried but one that may be on its way"
    finally:
        here.server.start()
    poll(here.is_connected, "the API server's return")
    assert not here.events(pod)
    assert here.node.add(pod).error()
    poll(lambda: here.events(pod), "the event of the next time")
    assert len([r for r in caplog.records if r.message == "event not posted"]) <= 1


def test_events_that_are_forbidden_are_one_line_and_the_rest_works(
    site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    here = site()
    here.node.fill(HOME)
    here.start()
    here.server.allow("events", allowed=False)
    began = here.node.clock()
    try:
        poll(here.is_forbidden, "the right's end")
        pods = [here.node.add() for _ in range(3)]
        assert all(pod.error() for pod in pods)
        poll(lambda: here.lost() > 3, "the pods' events are lost, and the node's")
    finally:
        here.server.allow("events", allowed=True)
    line, *more = [vars(r) for r in caplog.records if r.message == "event not posted"]
    assert len(more) <= here.node.clock().elapsed(began) / INTERVAL_SECONDS
    assert (line["id"], line["times"]) == ("KUBE-DENIED", 1)
    assert "cannot create resource" in line["reason"]
    assert here.is_connected()
    poll(lambda: not here.is_forbidden(), "the right")
    pod = pods[0].name
    assert here.node.add(pod).error()
    poll(lambda: here.events(pod), "an event of what was lost, before an interval is over")


# The Node --------------------------------------------------------------------------------
def test_the_nodes_condition_says_whether_another_pod_would_get_an_address(site: MakeSite) -> None:
    here = site(MAX_ENI="1", IP_COOLDOWN_PERIOD="1")
    here.start()
    poll(lambda: here.says("True", "AddressesReady"), "addresses")
    held = [here.node.add() for _ in range(9)]
    assert all(pod.address() for pod in held)
    poll(lambda: here.says("False", "NodeFull"), "a full node")
    found = here.condition()
    assert "9 of 9 in use" in found["message"]
    assert "Next step: " in found["message"]
    here.node.delete(held[0])
    poll(lambda: here.says("True", "AddressesReady"), "an address again")
    assert here.condition()["lastTransitionTime"] > found["lastTransitionTime"]


def test_a_condition_that_somebody_changes_is_put_back_and_goes_when_it_is_not_wanted(
    site: MakeSite,
) -> None:
    here = site()
    here.start()
    poll(lambda: here.says("True", "AddressesReady"), "addresses")
    wrong = {**here.condition(), "status": "False", "reason": "ByHand"}
    here.server.patch(f"/api/v1/nodes/{here.name}/status", {"status": {"conditions": [wrong]}})
    poll(lambda: here.says("True", "AddressesReady"), "what is true")
    here.annotate(**{"enid.dev/settings": "ENID_NODE_CONDITION=false"})
    poll(lambda: not here.condition(), "its end")


def test_a_condition_that_is_forbidden_is_said_once_and_pods_are_served(
    site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    here = site()
    here.server.allow("nodes/status", allowed=False)
    try:
        here.join(here.server.port)
        here.node.hurry()
        poll(lambda: "cannot patch resource" in here.sentence(), "the API server's words")
        assert here.node.add().address()
        here.node.pass_time(60)
    finally:
        here.server.allow("nodes/status", allowed=True)
    lines = [vars(r) for r in caplog.records if r.message == "kubernetes"]
    assert [(line["of"], line["id"]) for line in lines] == [("Node status", "KUBE-DENIED")]
    assert here.node.status()["cluster"]["link"] == "connected"
    poll(lambda: here.says("True", "AddressesReady"), "the right")
    poll(lambda: not here.sentence(), "peace")


START, FULL = "node.enid.dev/not-ready", "status-taint.cluster-autoscaler.kubernetes.io/enid"


def test_the_start_up_taint_goes_when_an_address_is_usable(site: MakeSite) -> None:
    here = site(ENID_STARTUP_TAINT=START)
    here.patch(spec={"taints": [{"key": START, "effect": "NoExecute"}]})
    denied = Raise(UnauthorizedError)
    grows = {"AssignPrivateIpAddresses", "CreateNetworkInterface"}
    here.node.account.faults = lambda action, _: denied if action in grows else None
    here.start()
    poll(lambda: here.says("False", "Ec2Unauthorized"), "no address")
    assert here.taints() == {START: "NoExecute"}
    here.node.account.faults = lambda *_: None
    poll(lambda: not here.taints(), "its end")
    assert here.node.free


def test_a_node_without_addresses_keeps_pods_away_until_some_are_back(site: MakeSite) -> None:
    here = site(
        MAX_ENI="1", IP_COOLDOWN_PERIOD="1", ENID_EXHAUSTED_TAINT=FULL, ENID_EXHAUSTED_BELOW="2"
    )
    here.patch(spec={"taints": [{"key": "dedicated", "value": "gpu", "effect": "NoSchedule"}]})
    here.start()
    held = [here.node.add() for _ in range(9)]
    assert all(pod.address() for pod in held)
    poll(lambda: FULL in here.taints(), "the taint")
    assert here.taints() == {"dedicated": "NoSchedule", FULL: "NoSchedule"}
    assert not here.node.daemon.outlook.told.unschedulable, "it is no cordon"
    for pod in held[:4]:
        here.node.delete(pod)
    poll(lambda: FULL not in here.taints(), "its end")
    assert here.taints() == {"dedicated": "NoSchedule"}


def test_taints_that_are_forbidden_are_said_and_the_rest_is_written(site: MakeSite) -> None:
    here = site(ENID_STARTUP_TAINT=START)
    here.patch(spec={"taints": [{"key": START, "effect": "NoSchedule"}]})
    here.server.allow("nodes", allowed=False)
    try:
        here.join(here.server.port)
        here.node.hurry()
        poll(lambda: "cannot patch resource" in here.sentence(), "the API server's words")
        poll(lambda: here.says("True", "AddressesReady"), "the condition")
        assert here.node.add().address()
    finally:
        here.server.allow("nodes", allowed=True)
    poll(lambda: not here.taints(), "the right")


def test_the_scheduler_is_told_how_many_pods_could_have_an_address(site: MakeSite) -> None:
    here = site(ENID_POD_ADDRESS_RESOURCE="true", MAX_ENI="2")

    def told() -> tuple[str | None, str | None]:
        status = here.server.ask("GET", f"/api/v1/nodes/{here.name}")["status"]
        both = (status.get(part, {}) for part in ("capacity", "allocatable"))
        capacity, allocatable = (part.get(POD_ADDRESSES) for part in both)
        return capacity, allocatable

    here.start()
    poll(lambda: told() == ("18", "18"), "two ENIs' worth")
    here.set_capacity(11)
    poll(lambda: told() == ("11", "11"), "what kubelet takes")
    here.annotate(**{"enid.dev/settings": "ENID_POD_ADDRESS_RESOURCE=false"})
    poll(lambda: told() == (None, None), "its end")
    capacity = here.server.ask("GET", f"/api/v1/nodes/{here.name}")["status"]["capacity"]
    assert capacity == {"pods": "11"}, "others' stay"


# Pods' annotations -----------------------------------------------------------------------
def test_a_pods_address_is_in_its_annotation_until_its_del(site: MakeSite) -> None:
    here = site(ANNOTATE_POD_IP="true")
    name, other = here.bind(2)
    here.start()
    ask = here.node.add(name, here.pod(name)["uid"])
    address = str(ask.address())
    poll(lambda: here.pod(name).get("annotations") == {POD_IPS: address}, "the annotation")
    here.node.delete(ask)
    poll(lambda: here.pod(name)["annotations"] == {POD_IPS: ""}, "its end")
    poll(lambda: here.node.counted["written_pod"] == 2, "two writes")
    assert "annotations" not in here.pod(other)


def test_what_an_api_server_that_was_away_missed_is_annotated_later(site: MakeSite) -> None:
    here = site(ANNOTATE_POD_IP="true")
    (name,) = here.bind(1)
    here.start()
    uid = here.pod(name)["uid"]
    here.server.kill()
    try:
        poll(lambda: here.node.modes == ["api-away"], "the mode")
        address = str(here.node.add(name, uid).address())
    finally:
        here.server.start()
    poll(lambda: here.pod(name).get("annotations") == {POD_IPS: address}, "the annotation")


def test_a_pod_of_the_same_name_has_not_the_formers_address(site: MakeSite) -> None:
    here = site(ANNOTATE_POD_IP="true")
    former, name = here.bind(2)
    here.start()
    assert here.node.add(name, "another-uid").address()
    assert here.node.add(former, here.pod(former)["uid"]).address()
    poll(lambda: "annotations" in here.pod(former), "the other's annotation")
    assert "annotations" not in here.pod(name)


def test_annotations_that_are_forbidden_are_said_and_pods_are_served(site: MakeSite) -> None:
    here = site(ANNOTATE_POD_IP="true")
    name, gone = here.bind(2)
    here.server.allow("pods", allowed=False)
    try:
        here.start()
        address = str(here.node.add(name, here.pod(name)["uid"]).address())
        poll(lambda: "cannot patch resource" in here.sentence(), "the API server's words")
        here.server.delete_pod(gone)
        assert here.node.add().address()
    finally:
        here.server.allow("pods", allowed=True)
    poll(lambda: here.pod(name).get("annotations") == {POD_IPS: address}, "the annotation")
    poll(lambda: not here.sentence(), "peace")


# NodeNetwork -----------------------------------------------------------------------------
def test_the_nodes_record_has_its_enis_cidrs_and_counts_and_goes_with_it(site: MakeSite) -> None:
    here = site()
    here.start()
    held = [here.node.add() for _ in range(12)]
    addresses = [pod.address() for pod in held]
    poll(lambda: here.record().get("counts", {}).get("assigned") == 12, "all of them")

    def enis(told: Mapping[str, Any]) -> list[str]:
        return [eni["id"] for eni in told["enis"]]

    # The record is written once in ten seconds, and a warm ENI may have come meanwhile.
    poll(lambda: enis(here.record()) == enis(here.node.status()), "each ENI")
    found, status = here.record(), here.node.status()
    assert (found["mode"], found["kind"]) == ("normal", "single")
    assert (found["instanceType"], found["primaryAddress"]) == ("m5.large", status["primary"])
    leases = {lease["address"]: lease["eni_id"] for lease in status["leases"]}
    for address in addresses:
        (home,) = (
            eni["id"]
            for eni in found["enis"]
            if any(address in IPv4Network(cidr) for cidr in eni["cidrs"])
        )
        assert home == leases[str(address)]
    metadata = here.server.ask("GET", f"{NODE_NETWORKS}/{here.name}")["metadata"]
    node = here.server.ask("GET", f"/api/v1/nodes/{here.name}")["metadata"]
    assert [owner["uid"] for owner in metadata["ownerReferences"]] == [node["uid"]]


def test_a_record_that_is_edited_by_hand_is_put_back_with_one_line_and_event(
    site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    here = site()
    here.start()
    poll(lambda: here.record().get("mode") == "normal", "the record")
    here.node.pass_time(30)
    path = f"{NODE_NETWORKS}/{here.name}"
    here.server.patch(f"{path}/status", {"status": {"mode": "by-hand"}})
    poll(lambda: here.record()["mode"] == "normal", "what is true")
    poll(lambda: here.events(here.name), "the node's event")
    (event,) = here.events(here.name)
    words = f"NodeNetwork {here.name} was changed (mode) by somebody else, and is put back"
    assert event["reason"] == "NodeNetworkEdited"
    assert event["message"].startswith(f"{words}. Next step: ")
    lines = [vars(r)["reason"] for r in caplog.records if r.message == "nodenetwork put back"]
    assert lines == [words]
    here.server.ask("DELETE", path)
    poll(lambda: here.record().get("mode") == "normal", "a record again")


def test_a_cluster_without_the_kind_is_one_line_and_pods_are_served(
    site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    here = site()
    here.server.install_records(installed=False)
    try:
        here.join(here.server.port)
        here.node.hurry()
        poll(lambda: "nodenetworks" in here.sentence(), "the API server's words")
        assert here.node.add().address()
        poll(lambda: here.says("True", "AddressesReady"), "the condition")
    finally:
        here.server.install_records(installed=True)
    lines = [vars(r) for r in caplog.records if r.message == "kubernetes"]
    assert [(line["of"], line["id"]) for line in lines] == [("NodeNetworks", "KUBE-ABSENT")]
    poll(lambda: here.record().get("mode") == "normal", "the record")
    poll(lambda: not here.sentence(), "peace")


def test_who_wants_no_record_has_none(site: MakeSite) -> None:
    here = site(ENID_NODE_NETWORK="false")
    here.server.install_records(installed=False)
    try:
        here.start()
        here.node.pass_time(30)
        assert here.sentence() == ""
    finally:
        here.server.install_records(installed=True)


# The sweeper -----------------------------------------------------------------------------
def test_only_the_leader_sweeps_for_nodes_that_are_gone_and_each_for_itself(
    site: MakeSite,
) -> None:
    here = site(CLUSTER_NAME="blue")
    other = Ears(here.account.api(here.server.port), "the-other", here.server.terms)
    try:
        poll(lambda: other.leads, "the other's leadership")
        of_gone, ours, of_green = (
            leak(here.node, "i-00000000000000d0", "blue"),
            leak(here.node, here.node.cloud.identity.instance_id, "blue"),
            leak(here.node, "i-00000000000000d1", "green"),
        )
        here.start()
        poll(lambda: ours not in here.node.enis(), "the sweep of our own")
        here.node.pass_time(20)
        assert of_gone in here.node.enis()
    finally:
        other.stop()
    poll(lambda: of_gone not in here.node.enis(), "the sweep of the cluster's")
    assert of_green in here.node.enis()


def test_a_sweeper_that_knows_no_clusters_name_says_that_nobody_sweeps(
    site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    here = site()
    of_gone = leak(here.node, "i-00000000000000d0", "blue")
    here.start()
    poll(here.leads, "the Lease")
    words = "sweep: CLUSTER_NAME is not set, so nobody deletes ENIs"
    poll(lambda: here.node.troubles.startswith(words), "the trouble")
    sweep = here.node.daemon.engine.sweep
    here.node.call(lambda: sweep.elect(is_elected=False))
    here.node.call(lambda: sweep.elect(is_elected=True))
    here.node.pass_time(SECOND_LOOK_SECONDS + IDLE_SECONDS)
    said = [r for r in caplog.records if r.message == "no sweep for the cluster"]
    assert [(r.levelname, vars(r)["reason"]) for r in said] == [("WARNING", NO_CLUSTER)]
    assert of_gone in here.node.enis(), "it may be another cluster's"
    assert here.node.modes == ["normal"]


def test_only_the_sweeper_says_so_and_only_while_anybody_should_sweep(site: MakeSite) -> None:
    here = site(DISABLE_LEAKED_ENI_CLEANUP="true")
    here.start()
    poll(here.leads, "the Lease")
    poll(lambda: here.node.daemon.engine.sweep.is_elected, "the election")
    assert here.node.troubles == ""


def leak(node: JoinedNode, instance_id: str, cluster: str) -> EniId:
    """Create an ENI of a node of *cluster* that has never attached it."""
    wish = CreateEni(
        token=f"leak-{instance_id}",
        subnet_id=node.cloud.subnet_id,
        security_groups=(),
        description=f"{DESCRIPTION}{instance_id}",
        tags=(
            (INSTANCE_TAG, instance_id),
            (CLUSTER_TAG, cluster),
            (CREATED_TAG, "2020-01-01T00:00:00Z"),
        ),
    )
    with node.lock:
        return node.cloud.ec2("").create(wish).id


def test_nodes_share_ec2s_limits_as_the_lease_counts_them(site: MakeSite) -> None:
    here = site()
    here.server.add_node(f"idle-{next(NUMBERS)}")
    here.start()
    nodes = len(here.server.ask("GET", "/api/v1/nodes")["items"])
    poll(lambda: here.node.daemon.line.budget.nodes == nodes, "the number of nodes")
    here.annotate(**{"enid.dev/settings": "ADD_WAITING_MAX=9"})
    poll(lambda: here.node.daemon.settings.add_waiting_max == 9, "a change of settings")
    assert here.node.daemon.line.budget.nodes == nodes


def test_a_restart_without_the_api_server_shares_as_before(site: MakeSite) -> None:
    here = site()
    # Another node's Lease, which says that there are a thousand of them.
    others = Elector(me="the-other", terms=here.server.terms)
    lease = draft(others, Action.CREATE, None, wall=here.node.clock().wall, nodes=1000)
    here.server.ask("POST", LEASE.rpartition("/")[0], lease)
    here.join(here.server.port)
    engine, budget = here.node.daemon.engine, here.node.daemon.line.budget
    assert (budget.nodes, engine.start_spread_seconds) == (1, START_JITTER_SECONDS)
    poll(lambda: budget.nodes == 1000, "the number of nodes")
    spread = start_jitter_seconds(1000, budget.limits)
    assert engine.start_spread_seconds == spread > START_JITTER_SECONDS
    here.node.stop()
    here.start_alone()
    engine, budget = here.node.daemon.engine, here.node.daemon.line.budget
    assert (budget.nodes, engine.start_spread_seconds) == (1000, spread)
    here.node.call(here.node.daemon.by_cluster.share_limits)  # as a change of settings does
    assert budget.nodes == 1000


def test_a_start_together_is_spread_as_far_as_is_told_while_it_waits(site: MakeSite) -> None:
    here = site()
    here.start()
    poll(lambda: here.node.free == HEADROOM, "the headroom")
    here.node.pass_time(60)  # what cools since the boot is ready
    here.node.stop()
    here.node.start()
    here.node.call(lambda: here.node.daemon.by_cluster.hear_nodes(100_000))
    asked = here.node.calls("DescribeNetworkInterfaces")

    def is_still() -> bool:
        is_idle = here.node.call(lambda: here.node.daemon.engine.flights.is_idle)
        return is_idle and here.node.calls("DescribeNetworkInterfaces") == asked

    here.node.hurry()
    here.node.pass_time(2 * START_JITTER_SECONDS)
    assert is_still()
    poll(lambda: not is_still(), "the first question")


def test_a_setting_says_how_many_nodes_there_are(site: MakeSite) -> None:
    here = site(ENID_NODES="777")
    here.start()
    poll(here.leads, "the Lease")
    here.node.pass_time(50)
    assert here.node.daemon.line.budget.nodes == 777


# Plain mode ------------------------------------------------------------------------------
PLAIN = """
import sys
asked = []
sys.addaudithook(lambda event, what: asked.append(what[1]) if event == "socket.connect" else None)
from pathlib import Path
from tests.contract.joined_node import JoinedNode, poll
node = JoinedNode(Path(sys.argv[1]), {"MY_NODE_NAME": "alone"})
node.start()
node.hurry()
assert node.add().address()
node.pass_time(20)
assert node.status()["cluster"] == {"link": "off", "sentence": ""}, node.status()["cluster"]
assert node.modes == ["normal"], node.modes
node.stop()
ours = ("kubernetes", "ipamd.kube", "ipamd.event_poster")
assert not [name for name in sys.modules if name.startswith(ours)]
assert not asked, asked
"""


def test_plain_mode_asks_nobody_and_loads_nothing_of_kubernetes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", PLAIN, str(tmp_path)], check=True, timeout=60)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        pytest.param({}, "no cluster is configured: run the daemon with a service account or KUBECONFIG", id="no-cluster"),
        pytest.param({"KUBERNETES_SERVICE_HOST": "127.0.0.1"}, "MY_NODE_NAME is not set, so the cluster is not asked for this node: set it", id="no-name"),
    ],
)  # fmt: skip
def test_custom_networking_that_can_ask_nobody_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, environ: dict[str, str], words: str
) -> None:
    node = JoinedNode(tmp_path, {**environ, CUSTOM: "true"}, FIRST)
    node.start()
    try:
        node.hurry()
        poll(lambda: node.troubles, "the trouble")
        assert f"{CUSTOM}=true" in node.troubles
        assert words in node.troubles
        assert words in " ".join(str(vars(record).get("reason")) for record in caplog.records)
        assert words in node.add().error()
        assert node.status()["cluster"]["link"] == "off"
        assert [eni["assigned"] for eni in node.status()["enis"]] == [0]
    finally:
        node.stop()
