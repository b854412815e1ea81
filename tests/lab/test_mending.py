"""What others do to the kernel state of a real node, and how soon it is as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from ipamd.cli import ask
from ipamd.reconcile import PERIOD_SECONDS
from tests.lab.spoiled import CAP_SECONDS, EACH, Sabotage, Scene, a_scene, thorough
from tests.lab.test_daemon import fetch

if TYPE_CHECKING:
    from ipamd.status import Status
    from vpclab import EmbeddedVPC


@pytest.fixture(scope="module")
def scene(vpc: EmbeddedVPC, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with a_scene(vpc, 77, tmp_path_factory.mktemp("mending")) as scene:
        yield scene


PODS_ROUTES = "ip route show table 5120 | grep proto.151"
SPOOF_RULE = "nft -a list chain ip enid leave | sed -n 's/.*127.0.0.0.*handle //p'"
ENI_ADDRESS = "ip -br -4 addr show ens6 | tr -s ' ' | cut -d' ' -f3"
OTHER_HOOK = "'{{ type filter hook prerouting priority -90; policy drop; }}'"

ROUNDS = {
    "one thing of each kind": {
        "ip rule del pref 512 lookup 5120 protocol 151": "rule 512: from all lookup 5120 had vanished",
        "ip rule del pref 1536 fwmark 0x2/0x7f": "rule 1536: from all fwmark 0x2/0x7f lookup 2 had",
        "ip rule add pref 600 lookup 5120 protocol 151": "rule 600: from all lookup 5120 carries",
        "ip rule add pref 600 from 192.0.2.7 blackhole protocol 151": (
            "rule 600: from 192.0.2.7 blackhole carries our protocol and is not needed"
        ),
        "ip rule add not pref 500 from 192.0.2.0/24 goto 512 protocol 151": (
            "rule 500: not from 192.0.2.0/24 goto 512 carries our protocol"
        ),
        "ip rule add pref 1536 lookup 2 protocol 151": "rule 1536: from all lookup 2 carries",
        "ip -6 rule add pref 512 lookup 5120 protocol 151": "rule of IPv6 512: from all lookup 5120",
        "ip route add {pod1} tos 0x10 dev ens5 table 5120 proto 151": (
            "route {pod1}/32 tos 0x10 in table 5120 carries our protocol"
        ),
        "ip route del {pod0} table 5120 metric 0": "route to {pod0} of default/web-0 had vanished",
        "ip route replace {pod1} dev ens5 table 5120": "route to {pod1} of default/web-1 led to",
        "ip route del unreachable {pod2} table 5120 metric 4278198272": "guard of {pod2}/32 had",
        "ip route add blackhole 9.9.9.9/32 table 2 proto 151": "blackhole 9.9.9.9/32 in table 2 carries",
        "ip -6 route add prohibit 2001:db8::9 table 5120 proto 151": (
            "prohibit 2001:db8::9/128 in table 5120 carries our protocol"
        ),
        "ip route replace blackhole {pod10} table 5120": "of default/web-10 was of type blackhole",
        "ip route del default table 2": "route default of ENI 2, table 2 had vanished",
        "nft delete table ip enid": "nft table enid had vanished (ip)",
        "ip neigh del {pod3} dev {veth3}": "permanent neighbour {pod3} of default/web-3 had vanished",
        "ip neigh replace {pod4} lladdr 02:00:00:00:00:55 dev {veth4} nud permanent": (
            "permanent neighbour {pod4} of default/web-4 had another MAC"
        ),
        f"ip addr del $({ENI_ADDRESS}) dev ens6": "of ens6 had vanished",
        "ip link set dev ens6 mtu 1500 address 02:00:00:00:00:66": (
            "link ens6 of ENI 2: its MAC was 02:00:00:00:00:66 and must be"
        ),
        "ip link set ens5 group default": "link ens5 of ENI 1: its group was 0 and must be 5249",
        "ip link set {veth5} down": "veth {veth5} of default/web-5: was down",
        "ip link set {veth6} address 02:00:00:00:00:77": "its MAC was 02:00:00:00:00:77 and must be",
        "ip link set {veth7} group 0": "veth {veth7} of default/web-7: its group was 0",
        "ip link set {veth8} alias ''": "veth {veth8} of default/web-8: its alias had vanished",
        "ip link set {veth9} alias mine": "veth {veth9} of default/web-9: its alias was 'mine'",
    },
    "everything of a kind, and settings": {
        "ip rule del pref 512 lookup 5120": "rule 512: from all lookup 5120 had vanished",
        "ip rule del pref 1024": "rule 1024: from all fwmark 0x80/0x80 lookup main had vanished",
        "ip rule del pref 32765": "lookup 2 had vanished",
        f"{PODS_ROUTES} | while read r; do ip route del table 5120 $r; done": "guard of 10.0.77.",
        "ip route flush table 2": "route 10.0.77.1/32 of ENI 2, table 2 had vanished",
        f"nft replace rule ip enid leave handle $({SPOOF_RULE}) accept": (
            "nft table enid has other rules than were written"
        ),
        "ip addr add 10.0.77.200/32 dev ens6": "address 10.0.77.200/32 of ens6 is foreign",
        "ip link set ens6 group 0": "link ens6 of ENI 2: its group was 0 and must be 5250",
        "echo 0 > /proc/sys/net/ipv4/conf/ens5/rp_filter": "of ENI 1: rp_filter was 0 and must be 2",
        "echo 0 > /proc/sys/net/ipv4/conf/{veth0}/rp_filter": "web-0: rp_filter was 0 and must be 1",
        "echo 0 > /proc/sys/net/ipv4/conf/{veth1}/forwarding": "web-1: forwarding was 0 and must be",
        "ip link set dev {veth2} down alias '' group 7": (
            "veth {veth2} of default/web-2: was down, its group was 7 and must be 5121, its alias had"
        ),
    },
    "an ENI down": {
        "ip link set ens6 down": "link ens6 of ENI 2: was down",
        f"nft add chain ip enid leave {OTHER_HOOK}": "nft table enid lacks chain ip leave, or has it",
    },
}  # fmt: skip
"""What is done, and what the daemon says of it."""


@pytest.mark.parametrize("sabotages", ROUNDS.values(), ids=ROUNDS.keys())
def test_what_was_changed_is_back_and_strangers_things_are_as_they_were(
    scene: Scene, sabotages: dict[str, str]
) -> None:
    before, said = scene.dump(), len(scene.said())
    scene.sh("\n".join(sabotages))
    scene.await_dump(before)
    wanted = [sentence.format(**scene.names) for sentence in sabotages.values()]
    scene.daemon.wait(lambda _: not scene.unsaid(wanted, said), CAP_SECONDS)


@thorough
@pytest.mark.parametrize(
    "sabotage", [pytest.param(s, id=name) for name, s in EACH.items() if not s.is_silent]
)
def test_each_is_back_and_said(scene: Scene, sabotage: Sabotage) -> None:
    ask(scene.daemon.socket, "MEND")  # what was mended just before does not count as undone
    before, said = scene.dump(), len(scene.said())
    scene.sh(sabotage.script)
    scene.await_dump(before)
    wanted = [sabotage.daemon.format(**scene.names)]
    scene.daemon.wait(lambda _: not scene.unsaid(wanted, said), CAP_SECONDS)


@thorough
def test_what_no_event_tells_of_is_back_within_a_period(scene: Scene) -> None:
    ask(scene.daemon.socket, "MEND")
    silent = [sabotage for sabotage in EACH.values() if sabotage.is_silent]
    before, said = scene.dump(), len(scene.said())
    scene.sh("\n".join(sabotage.script for sabotage in silent))
    scene.await_dump(before, PERIOD_SECONDS + CAP_SECONDS)
    words = " ".join(scene.said()[said:])
    assert [s.daemon for s in silent if s.daemon.partition(": ")[2] not in words] == []


SYSCTLS = {"ip_forward": ("0", "1"), "conf/all/rp_filter": ("2", "0")}


@pytest.mark.parametrize(("path", "values"), SYSCTLS.items(), ids=SYSCTLS.keys())
def test_a_sysctl_of_the_node_is_said_counted_once_and_gone_when_it_is_reset(
    scene: Scene, path: str, values: tuple[str, str]
) -> None:
    before, (bad, good) = scene.dump(), values
    counted = unrepaired(scene)
    trouble = (
        f"kernel: net.ipv4.{path.replace('/', '.')} is {bad} and must be {good}; ipamd may not"
    )

    def is_said(status: Status) -> bool:
        return any(what.startswith(trouble) for what in status["troubles"])

    scene.sh(f"echo {bad} > /proc/sys/net/ipv4/{path}")
    scene.daemon.wait(is_said)
    ask(scene.daemon.socket, "MEND")
    assert unrepaired(scene) == counted + 1
    scene.sh(f"echo {good} > /proc/sys/net/ipv4/{path}")
    scene.daemon.wait(lambda status: not is_said(status))
    scene.await_dump(before)


def test_a_foreign_rule_on_our_mark_bits_is_warned_of_once_and_left_alone(scene: Scene) -> None:
    def warnings() -> list[str]:
        lines = scene.daemon.log.read_text().splitlines()
        return [line for line in lines if '"mark bits are not ours alone"' in line]

    assert warnings() == []  # the stranger's mark 0x100/0x100 is beside ours
    scene.sh("ip rule add not pref 900 fwmark 0x40/0xf0 lookup 99")
    before = scene.dump()
    scene.daemon.wait(lambda _: len(warnings()) == 1)
    assert "rule 900 of somebody else looks at our mark bits: 0x40/0xf0" in warnings()[0]
    scene.daemon.kill()
    scene.daemon.start()
    scene.daemon.wait(lambda _: len(warnings()) == 2)  # each life says it at its start
    ask(scene.daemon.socket, "MEND")
    assert (len(warnings()), scene.dump()) == (2, before)
    scene.sh("ip rule del pref 900")


def unrepaired(scene: Scene) -> int:
    _, text = fetch(scene.daemon, "/metrics")
    (line,) = (x for x in text.splitlines() if x.startswith("enid_unrepaired_total"))
    assert '{part="node-sysctl"}' in line
    return int(float(line.split()[-1]))


def test_a_veth_that_was_renamed_gets_its_name_back(scene: Scene) -> None:
    """Also before 6.2, where a kernel refuses it of a link that is up."""
    before = scene.dump()
    renamed = "printf 'link set {veth10} %s\n' down 'name mine'"
    for then in ("; echo link set mine up", ""):
        # One process, and it goes on: the daemon may have put a part back meanwhile.
        scene.sh(f"({renamed}{then}) | ip -force -batch - || true")
        scene.await_dump(before)


def test_inside_a_pod_nothing_is_mended_and_check_says_what_differs(scene: Scene) -> None:
    pod = scene.daemon.netns("web-0")
    _, result = scene.daemon.call("ADD", "web-0")  # the same once more
    pod.run(["ip", "route", "del", "default"])
    before, said = scene.dump(), len(scene.said())
    ask(scene.daemon.socket, "MEND")
    assert pod.run(["ip", "route", "show", "default"]).stdout == ""
    assert (scene.dump(), scene.said()[said:]) == (before, [])
    code, answer = scene.daemon.call("CHECK", "web-0", prevResult=result)
    assert (code, "default" in answer["msg"] + answer["details"]) == (1, True)
