"""What the verbs answer, on a daemon with the rights that production gives it.

Each test runs with the plugin's source and with each file that was built of it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.lab.starts import STARTS, Start
from tests.lab.test_daemon import Ipamd
from vpclab.enid import prepare

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def agent(vpc: EmbeddedVPC, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ipamd]:
    """A daemon that serves all tests here."""
    subnet = vpc.add_subnet("10.0.1.0/24", "us-east-1a")
    node = vpc.launch_node("node-a", "m5.large", subnet, public=True)
    prepare(node)
    log = tmp_path_factory.mktemp("verbs") / "log"
    daemon = Ipamd(node, log, MAX_ENI="1", IP_COOLDOWN_PERIOD="0")
    daemon.start()
    yield daemon
    daemon.close()


@pytest.fixture(params=STARTS, ids=lambda start: start.name, autouse=True)
def start(agent: Ipamd, request: pytest.FixtureRequest) -> Start:
    """One of the ways to start the plugin."""
    start: Start = request.param
    agent.plugin = start.argv
    return start


@pytest.fixture
def name(agent: Ipamd) -> Iterator[str]:
    """A pod of the test's own."""
    name = f"web-{next(NUMBERS)}"
    yield name
    agent.delete(name)


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_a_result_is_what_the_kernel_shows_in_every_version(
    agent: Ipamd, name: str, version: str
) -> None:
    code, result = agent.call("ADD", name, cniVersion=version, mtu=1500)
    assert (code, result["cniVersion"]) == (0, version)
    host, pod = result["interfaces"]
    links = {
        link["ifname"]: link for link in json.loads(agent.node.run(["ip", "-j", "link"]).stdout)
    }
    inside = json.loads(agent.netns(name).run(["ip", "-j", "addr", "show", "eth0"]).stdout)[0]
    assert host["mac"] == links[host["name"]]["address"]
    assert (pod["name"], pod["mac"]) == ("eth0", inside["address"])
    assert pod["sandbox"] == agent.netns(name).path
    ((ip,), (address,)) = result["ips"], inside["addr_info"][:1]
    assert ip["address"] == f"{address['local']}/{address['prefixlen']}"
    assert ip.get("version") == ("4" if version.startswith("0.") else None)
    assert (ip["gateway"], ip["interface"]) == ("169.254.1.1", 1)
    default = json.loads(agent.netns(name).run(["ip", "-j", "route", "show", "default"]).stdout)
    assert [(r["dst"], r["gw"]) for r in result["routes"]] == [("0.0.0.0/0", default[0]["gateway"])]
    mtus = [i.get("mtu") for i in result["interfaces"]]
    assert (inside["mtu"], mtus) == (1500, [1500, 1500] if version == "1.1.0" else [None, None])
    if version >= "0.4.0":
        assert agent.call("CHECK", name, cniVersion=version, prevResult=result) == (0, {})


def test_a_pods_annotation_sets_its_mtu(agent: Ipamd, name: str) -> None:
    told = {"io.kubernetes.cri.pod-annotations": {"enid.dev/mtu": "1400"}}
    assert agent.call("ADD", name, mtu=9001, runtimeConfig=told)[0] == 0
    link = json.loads(agent.netns(name).run(["ip", "-j", "link", "show", "eth0"]).stdout)[0]
    assert link["mtu"] == 1400


def test_a_check_says_what_is_not_as_it_was_made_and_repairs_nothing(
    agent: Ipamd, name: str
) -> None:
    _, result = agent.call("ADD", name)
    assert agent.call("CHECK", name, prevResult=result) == (0, {})
    # Inside the pod: what is the node's, the daemon mends by itself.
    agent.netns(name).run(["ip", "route", "del", "default"])
    for _ in range(2):
        code, answer = agent.call("CHECK", name, prevResult=result)
        assert (code, answer["code"]) == (1, 100)
        assert "the pod has no default route by 169.254.1.1 on eth0" in answer["msg"]
    code, answer = agent.call(
        "CHECK", name, path=agent.netns(f"not-{name}").path, prevResult=result
    )
    assert "CNI_NETNS is not the namespace that the attachment is in" in answer["msg"]
    code, answer = agent.call("CHECK", "ghost", prevResult=result)
    assert (code, answer["code"]) == (1, 3)
    assert name in " ".join(lease["container_id"] for lease in agent.status()["leases"])
