"""`enid doctor` on a real node: what differs is said in one sentence, and mended if it is safe."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipamd.cli import ask
from tests.lab.spoiled import CAP_SECONDS, EACH, Sabotage, Scene, a_scene, thorough
from tests.lab.test_daemon import container_id
from tests.tools.pure import ROOT
from vpclab.enid import RIGHTS

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import Rights

ENID = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from ipamd.cli import main; main()"
CONFIG = base64.b64encode(json.dumps({"plugins": [{"type": "enid-cni"}]}).encode()).decode()


WAIT = ("--wait", "1.5")
"""Enough for a daemon that runs, and more than enough without one."""


class Clinic:
    """A spoiled node, its runtime's cache and its doctor."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.node = scene.daemon.node
        self.results: Path = self.node.path("/var/lib/cni/results")
        self.results.mkdir(parents=True)
        self.rights: Rights | None = None
        for number, address in enumerate(scene.pods):
            self.keep(f"web-{number}", str(address))

    def keep(self, name: str, address: str) -> Path:
        """Keep a sandbox's result as libcni does."""
        kept = {
            "kind": "cniCacheV1",
            "containerId": container_id(name),
            "config": CONFIG,
            "ifName": "eth0",
            "networkName": "enid",
            "cniArgs": [["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", name]],
            "result": {"cniVersion": "1.0.0", "ips": [{"address": f"{address}/32"}]},
        }
        path = self.results / f"enid-{container_id(name)}-eth0"
        path.write_text(json.dumps(kept))
        return path

    def ask(self, *words: str) -> tuple[int, dict[str, Any]]:
        """Return the doctor's exit status and report."""
        status, text = self._run("-o", "json", *WAIT, *words)
        return status, json.loads(text)

    def read(self, *words: str) -> tuple[int, str]:
        """Return the doctor's exit status and what a person reads."""
        return self._run(*words)

    def _run(self, *words: str) -> tuple[int, str]:
        argv = [sys.executable, "-c", ENID, "doctor", *words]
        done = self.node.run(argv, check=False, cwd="/", timeout=120, rights=self.rights)
        assert done.stdout, done.stderr
        return done.returncode, str(done.stdout)


@pytest.fixture(scope="module")
def the_clinic(vpc: EmbeddedVPC, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    with a_scene(vpc, 78, tmp_path_factory.mktemp("doctor")) as scene:
        yield Clinic(scene)


@pytest.fixture(params=[pytest.param(None, marks=thorough), RIGHTS], ids=["root", "container"])
def clinic(the_clinic: Clinic, request: pytest.FixtureRequest) -> Clinic:
    """Give it with a doctor who is the host's root, and with one in the daemon's container."""
    the_clinic.rights = request.param
    return the_clinic


def found(report: dict[str, Any]) -> list[str]:
    return [finding["sentence"] for finding in report["findings"]]


def test_all_agree_on_a_node_that_is_well(clinic: Clinic) -> None:
    status, text = clinic.read()
    assert text.splitlines()[-1] == "all agree", text
    assert status == 0
    heard = text.splitlines()[0]
    for word in ("pods: 11", "journal: 11", "kernel: 11", "EC2: 2", "ipamd answers"):
        assert word in heard


ADDRESS = "ip -br -4 addr show ens6 | tr -s ' ' | cut -d' ' -f3"
SPOOF_RULE = "nft -a list chain ip enid leave | sed -n 's/.*127.0.0.0.*handle //p'"

SYSCTL = "echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter"

SABOTAGES = {
    "ip rule del pref 512 lookup 5120 protocol 151": "rule 512: from all lookup 5120 is missing",
    "ip rule del pref 1536 fwmark 0x2/0x7f": "rule 1536: from all fwmark 0x2/0x7f lookup 2 is missing",
    "ip rule del pref 32765 lookup 2": "lookup 2 is missing",
    "ip route del {pod0} table 5120 metric 0": "route to {pod0} of default/web-0 is missing",
    "ip route replace {pod1} dev ens5 table 5120": "route to {pod1} of default/web-1 leads to link #",
    "ip route del unreachable {pod2} table 5120 metric 4278198272": "guard of {pod2}/32 is missing",
    "ip route flush table 2": "route default of ENI 2, table 2 is missing",
    f"nft replace rule ip enid leave handle $({SPOOF_RULE}) accept": (
        "nft table enid has other rules than were written"
    ),
    "ip route replace prohibit {pod4} table 5120": "route to {pod4} of default/web-4 is of type",
    "ip neigh del {pod3} dev {veth3}": "permanent neighbour {pod3} of default/web-3 is missing",
    "ip neigh replace {pod4} lladdr 02:00:00:00:00:55 dev {veth4} nud permanent": (
        "permanent neighbour {pod4} of default/web-4 has another MAC"
    ),
    f"ip addr del $({ADDRESS}) dev ens6": "of ens6 is missing",
    "ip link set ens6 mtu 1500": "link ens6 of ENI 2: its MTU is 1500 and must be 9001",
    "ip link set ens5 group default": "link ens5 of ENI 1: its group is 0 and must be 5249",
    "ip link set {veth5} down": "veth {veth5} of default/web-5: is down",
    "ip link set {veth6} address 02:00:00:00:00:77": "its MAC is 02:00:00:00:00:77 and must be",
    "ip link set {veth7} group 0": "veth {veth7} of default/web-7: its group is 0",
    "ip link set {veth8} alias ''": "veth {veth8} of default/web-8: its alias is missing",
    "ip link set {veth9} alias mine": "veth {veth9} of default/web-9: its alias is 'mine'",
    "echo 0 > /proc/sys/net/ipv4/conf/{veth10}/rp_filter": "web-10: rp_filter is 0 and must be 1",
    SYSCTL: "net.ipv4.conf.all.rp_filter is 1 and must be 0",
}  # fmt: skip
"""What is done while no daemon runs, and what the doctor says of it."""


def test_without_a_daemon_each_sabotage_is_one_sentence_and_mended(clinic: Clinic) -> None:
    scene = clinic.scene
    before = scene.dump()
    scene.daemon.stop()
    scene.sh("\n".join(SABOTAGES))
    status, report = clinic.ask("--no-ec2")
    wanted = {sentence.format(**scene.names) for sentence in SABOTAGES.values()}
    said = found(report)
    assert {one for one in wanted if not any(one in sentence for sentence in said)} == set()
    assert (status, report["daemon"]) == (1, False)
    assert scene.dump() != before
    status, report = clinic.ask("--no-ec2", "--fix")
    left = [f for f in report["findings"] if not f["fixed"]]
    assert report["refused"] == []
    assert set(report["silent"]) == {"EC2", "ipamd"}
    if clinic.rights is None:
        assert (status, left) == (3, [])
    else:
        (sysctl,) = left
        assert (status, sysctl["sentence"]) == (1, SABOTAGES[SYSCTL])
        assert sysctl["cure"].startswith("on the host: `sysctl -w net.ipv4.conf.all.rp_filter=0`")
        assert "--fix" not in clinic.read("--no-ec2", "--wait", "0")[1]
        scene.sh("sysctl -w net.ipv4.conf.all.rp_filter=0")
    assert scene.dump() == before
    scene.daemon.start()


@thorough
def test_a_daemon_that_runs_has_mended_it_before_and_the_doctor_says_so(clinic: Clinic) -> None:
    scene = clinic.scene
    before = scene.dump()
    scene.sh("ip rule del pref 1024; nft delete table ip enid")
    scene.await_dump(before)
    scene.daemon.wait(lambda _: len(clinic.ask("--no-ec2")[1]["lately"]) >= 2, CAP_SECONDS)
    status, report = clinic.ask()
    assert (status, report["findings"]) == (0, [])
    lately = " ".join(report["lately"])
    assert "rule 1024: from all fwmark 0x80/0x80 lookup main had vanished" in lately
    assert "nft table enid had vanished (ip) (by nft)" in lately


@thorough
def test_the_fix_is_the_daemons_where_one_runs(clinic: Clinic) -> None:
    scene = clinic.scene
    before = scene.dump()
    ask(scene.daemon.socket, "MEND")  # and what was mended before does not count
    for _ in range(4):  # and now it waits before it mends this once more
        scene.sh("ip rule del pref 1024")
        scene.await_dump(before)
    scene.sh("ip rule del pref 1024")
    status, report = clinic.ask("--fix")
    assert status == 0, report
    assert scene.dump() == before


@thorough
@pytest.mark.parametrize("sabotage", EACH.values(), ids=EACH.keys())
def test_each_sabotage_alone_is_a_sentence_with_its_repair(
    the_clinic: Clinic, sabotage: Sabotage
) -> None:
    clinic, scene = the_clinic, the_clinic.scene
    clinic.rights = RIGHTS
    assert scene.daemon.process is not None
    if scene.daemon.process.poll() is None:
        scene.daemon.stop()
    before = scene.dump()
    assert found(clinic.ask("--no-ec2", "--wait", "0")[1]) == []
    scene.sh(sabotage.script)
    status, report = clinic.ask("--no-ec2", "--wait", "0")
    wanted = (sabotage.doctor or sabotage.daemon).format(**scene.names)
    (finding, *_) = [f for f in report["findings"] if wanted in f["sentence"]]
    assert (status, finding["fixable"]) == (1, not sabotage.undo)
    assert finding["cure"]
    _, report = clinic.ask("--no-ec2", "--wait", "0", "--fix")
    assert [f["sentence"] for f in report["findings"] if f["fixable"] and not f["fixed"]] == []
    scene.sh(sabotage.undo)
    scene.await_dump(before)


def test_what_only_one_of_the_four_knows_is_said(the_clinic: Clinic, vpc: EmbeddedVPC) -> None:
    clinic, scene = the_clinic, the_clinic.scene
    clinic.rights = RIGHTS
    ghost = clinic.keep("ghost", "10.0.78.250")
    forgotten = clinic.results / f"enid-{container_id('web-1')}-eth0"
    text = forgotten.read_text()
    forgotten.unlink()
    web_2 = clinic.keep("web-2", "10.0.78.251")
    scene.daemon.stop()
    scene.sh("ip link del {veth3}; nft add table ip fw;"
             " nft add chain ip fw forward '{{ type filter hook forward priority 0; policy drop; }}';"
             " ip rule add pref 900 fwmark 0x40/0xf0 lookup 99;"
             " ip route add blackhole 198.51.100.0/24 table 2;"
             " ip -6 route add prohibit 2001:db8:9::/48 table 5120;"
             " ip route add {pod0} tos 0x10 dev ens5 table 5120 proto static")  # fmt: skip
    by_address = {str(a["PrivateIpAddress"]): eni for eni in vpc.ec2.describe_network_interfaces()[
        "NetworkInterfaces"] for a in eni["PrivateIpAddresses"]}  # fmt: skip
    taken = str(scene.pods[4])
    vpc.ec2.unassign_private_ip_addresses(
        NetworkInterfaceId=by_address[taken]["NetworkInterfaceId"], PrivateIpAddresses=[taken]
    )
    status, report = clinic.ask()
    said = "\n".join(found(report))
    assert status == 1
    for sentence in (
        "the runtime runs sandbox ghost-000000 of default/ghost with 10.0.78.250, and no lease",
        f"the lease of {scene.pods[1]} is of default/web-1, and the runtime knows no sandbox",
        "web-2 has 10.0.78.251, and its lease says",
        f"the lease of {scene.pods[3]} is of default/web-3, and its veth is gone",
        "chain forward of nft table ip fw drops what is forwarded, and pods are forwarded",
        "rule 900 of somebody else looks at our mark bits: 0x40/0xf0",
        "route 198.51.100.0/24 in table 2 is somebody else's and drops what goes there (blackhole)",
        "route 2001:db8:9::/48 in table 5120 is somebody else's and drops what goes there (prohibit)",
        "tos 0x10 in table 5120 is somebody else's and takes packets to default/web-0 to link #",
        f"default/web-4 has {taken} of ",
        f"the journal holds {taken}/32 of ",
    ):
        assert sentence in said
    assert all(f["cure"] for f in report["findings"])
    ghost.unlink()
    forgotten.write_text(text)
    web_2.unlink()
    clinic.keep("web-2", str(scene.pods[2]))
    scene.sh("nft delete table ip fw; ip rule del pref 900;"
             " ip route del blackhole 198.51.100.0/24 table 2;"
             " ip -6 route del prohibit 2001:db8:9::/48 table 5120;"
             " ip route del {pod0} tos 0x10 table 5120")  # fmt: skip


def test_where_nothing_can_be_read_it_says_so(clinic: Clinic) -> None:
    nowhere = ("--run-folder", "/nowhere", "--state-folder", "/nowhere", "--results", "/nowhere")
    status, report = clinic.ask(*nowhere, "--no-ec2")
    assert set(report["silent"]) == {"pods", "journal", "EC2", "ipamd"}
    assert status == 3
