"""A node with two ENIs, eleven pods and a lot of others' things, for those who spoil it."""

from __future__ import annotations

import difflib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from cni.dataplane import host_ifname
from cni.spec import Sandbox
from tests.lab.patience import PATIENCE
from tests.lab.test_daemon import Ipamd
from vpclab.enid import prepare

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC

CAP_SECONDS = 15.0
"""Until everything is back: what an event tells of 0.2 s on a calm machine, 3 s more what is too
much, and some more what had been mended a moment ago; and this machine is shared."""

thorough = pytest.mark.skipif(os.environ.get("DRIFT") != "all", reason="`make drift` runs it")

STRANGERS = """
ip link add stranger type veth peer name strangers-end
ip link set stranger alias "of somebody else" group 42
ip link set stranger up
ip link set strangers-end up
ip addr add 192.0.2.1/24 dev stranger
ip rule add pref 100 from 192.0.2.7 lookup 77
ip rule add pref 512 to 192.0.2.9 lookup 77
ip rule add pref 1536 fwmark 0x100/0x100 lookup 77
ip rule add pref 600 from 192.0.2.7 blackhole
ip rule add pref 600 from 192.0.2.8 tos 0x10 goto 1024
ip rule add not pref 512 to 0.0.0.0/1 from 192.0.2.7 iif stranger lookup 78
ip route add default via 192.0.2.254 dev stranger table 77
ip route add 203.0.113.9 tos 0x10 dev stranger table 5120
ip route add 203.0.113.128/25 via 192.0.2.254
ip route add 203.0.113.9 dev stranger table 5120
ip neigh add 192.0.2.254 lladdr 02:00:00:00:00:99 dev stranger nud permanent
nft add table ip others
nft add chain ip others forward '{ type filter hook forward priority 0; policy accept; }'
nft add rule ip others forward ip daddr 192.0.2.7 accept
nft add table ip kube-proxy
nft add chain ip kube-proxy nat '{ type nat hook prerouting priority dstnat; }'
nft add table ip6 others
nft add set ip6 others ends '{ type ipv6_addr; elements = { 2001:db8:77::9 }; }'
nft add chain ip6 others forward '{ type filter hook forward priority 0; policy accept; }'
nft add rule ip6 others forward ip6 daddr @ends counter accept
ip -6 addr add 2001:db8:77::1/64 dev stranger nodad
ip -6 rule add pref 100 from 2001:db8:77::7 lookup 77
ip -6 rule add pref 512 to 2001:db8:77::9 lookup 77
ip -6 rule add pref 600 from 2001:db8:77::7 prohibit
ip -6 rule add pref 512 to 2001:db8:77::8 lookup 77
ip -6 route add default via 2001:db8:77::fe dev stranger onlink table 77
ip -6 route add 2001:db8:99::/64 via 2001:db8:77::fe dev stranger onlink
ip -6 route add 2001:db8:98::/64 dev stranger table 5120
ip -6 neigh add 2001:db8:77::fe lladdr 02:00:00:00:00:99 dev stranger nud permanent
! command -v iptables || iptables -A FORWARD -d 192.0.2.77 -j ACCEPT
! command -v ip6tables || ip6tables -A FORWARD -d 2001:db8:77::77 -j ACCEPT
"""

DUMP = """
for family in -4 -6; do
  # In the kernel's order, which counts at one preference; ours that come again are the last there.
  echo "# $family rules of others"; ip $family rule | grep -v "proto 151"
  echo "# $family rules of ours"; ip $family rule | grep "proto 151" | sort
  for what in "route show table all" "addr"; do
    # Of link-local addresses, which the kernel makes and tries for a second, nobody's thing hangs.
    echo "# $family $what"; ip $family $what | grep -v -e fe80:: -e ff00:: | sort
  done
done
echo "# links"; ip -d link | sort
echo "# neighbours"; ip neigh show nud permanent | sort
for link in $(ls /proc/sys/net/ipv4/conf | sort); do
  for name in forwarding rp_filter send_redirects promote_secondaries; do
    echo "$link $name $(cat /proc/sys/net/ipv4/conf/$link/$name)"
  done
done
nft list tables | grep " enid$" | sort | while read table; do nft list $table; done
nft list tables | grep -v " enid$" | while read table; do nft -a list $table; done
for family in iptables ip6tables; do
  ! command -v $family || $family-save -c | sed "/^#/d; /^:/s/ .[0-9:]*]$//"
done
"""


class Sabotage(NamedTuple):
    """What somebody does, and what is said of it."""

    script: str
    daemon: str
    """What a daemon that runs says when it has mended it."""
    doctor: str = ""
    """What the doctor says where no daemon runs; empty: the same."""
    undo: str = ""
    """What undoes it where `--fix` may not: it takes nothing away."""
    is_silent: bool = False
    """Whether no event tells of it."""


ENI_ADDRESS = "ip -br -4 addr show ens6 | tr -s ' ' | cut -d' ' -f3"
ENI_MAC = "ip -br link show ens6 | tr -s ' ' | cut -d' ' -f3"
NEEDLESS = "carries our protocol and is not needed"
A_RULE = "nft -a list chain ip enid leave | sed -n 's/.*127.0.0.0.*handle //p'"
CONF = "/proc/sys/net/ipv4/conf"


def _setting(where: str, who: str, name: str, bad: int, good: int) -> Sabotage:
    is_silent = name in {"send_redirects", "promote_secondaries"}
    says = f"{who}: {name} %s {bad} and must be {good}"
    script = f"echo {bad} > {CONF}/{where}/{name}"
    return Sabotage(script, says % "was", says % "is", is_silent=is_silent)


def _gone(what: str, script: str) -> Sabotage:
    return Sabotage(script, f"{what} had vanished", f"{what} is missing")


def _was(what: str, script: str) -> Sabotage:
    return Sabotage(script, what.replace("{is_}", "was"), what.replace("{is_}", "is"))


ENI_1, ENI_2, WEB = "link ens5 of ENI 1", "link ens6 of ENI 2", "veth {veth0} of default/web-0"

EACH = {
    "rule 512": _gone(
        "rule 512: from all lookup 5120", "ip rule del pref 512 lookup 5120 protocol 151"
    ),
    "rule 1024": _gone("rule 1024: from all fwmark 0x80/0x80 lookup main", "ip rule del pref 1024"),
    "rule 1535": _gone("rule 1535: from all to 198.18.0.0/15 lookup main", "ip rule del pref 1535"),
    "rule 1536": _gone(
        "rule 1536: from all fwmark 0x2/0x7f lookup 2", "ip rule del pref 1536 fwmark 0x2/0x7f"
    ),
    "rule 32765": _gone(" lookup 2", "ip rule del pref 32765"),
    "rule too many": Sabotage(
        "ip rule add pref 600 lookup 5120 protocol 151",
        f"rule 600: from all lookup 5120 {NEEDLESS}",
        undo="ip rule del pref 600 lookup 5120",
    ),
    "rule that drops": Sabotage(
        "ip rule add pref 600 from 192.0.2.7 blackhole protocol 151",
        f"rule 600: from 192.0.2.7 blackhole {NEEDLESS}",
        undo="ip rule del pref 600 from 192.0.2.7 blackhole protocol 151",
    ),
    "rule that jumps": Sabotage(
        "ip rule add pref 600 from 192.0.2.8 tos 0x10 goto 1024 protocol 151",
        f"rule 600: from 192.0.2.8 tos 0x10 goto 1024 {NEEDLESS}",
        undo="ip rule del pref 600 from 192.0.2.8 tos 0x10 goto 1024 protocol 151",
    ),
    "rule that asks less": Sabotage(
        "ip rule add pref 1536 lookup 2 protocol 151",
        f"rule 1536: from all lookup 2 {NEEDLESS}",
        undo="ip rule del pref 1536 lookup 2 && ip rule add pref 1536 fwmark 2/0x7f lookup 2"
        " protocol 151 && ip rule del pref 1536 lookup 2",
    ),
    "rule of IPv6": Sabotage(
        "ip -6 rule add pref 512 lookup 5120 protocol 151",
        f"rule of IPv6 512: from all lookup 5120 {NEEDLESS}",
        undo="ip -6 rule del pref 512 lookup 5120 protocol 151",
    ),
    "rule of IPv6 that drops": Sabotage(
        "ip -6 rule add pref 600 from 2001:db8:77::7 prohibit protocol 151",
        f"rule of IPv6 600: from 2001:db8:77::7 prohibit {NEEDLESS}",
        undo="ip -6 rule del pref 600 from 2001:db8:77::7 prohibit protocol 151",
    ),
    "route of some packets": Sabotage(
        "ip route add {pod0} tos 0x10 dev ens5 table 5120 proto 151",
        f"route {{pod0}}/32 tos 0x10 in table 5120 {NEEDLESS}",
        undo="ip route del {pod0} tos 0x10 table 5120",
    ),
    "pod's route": _gone(
        "route to {pod0} of default/web-0", "ip route del {pod0} table 5120 metric 0"
    ),
    "pod's route elsewhere": Sabotage(
        "ip route replace {pod0} dev ens5 table 5120",
        "route to {pod0} of default/web-0 led to link #",
        "route to {pod0} of default/web-0 leads to link #",
    ),
    "pod's route a blackhole": Sabotage(
        "ip route replace blackhole {pod0} table 5120",
        "route to {pod0} of default/web-0 was of type blackhole",
        "route to {pod0} of default/web-0 is of type blackhole",
    ),
    "route too many": Sabotage(
        "ip route add blackhole 9.9.9.9/32 table 2 proto 151",
        f"blackhole 9.9.9.9/32 in table 2 {NEEDLESS}",
        undo="ip route del blackhole 9.9.9.9/32 table 2",
    ),
    "guard": _gone(
        "guard of {pod0}/32", "ip route del unreachable {pod0} table 5120 metric 4278198272"
    ),
    "guard too many": Sabotage(
        "ip route add unreachable {net}.99 table 5120 metric 4278198272 proto 151",
        f"guard {{net}}.99/32 in table 5120 {NEEDLESS}",
        undo="ip route del unreachable {net}.99 table 5120 metric 4278198272",
    ),
    "ENI's route": _gone("route default of ENI 2, table 2", "ip route del default table 2"),
    "ENI's table": _gone("route {net}.1/32 of ENI 2, table 2", "ip route flush table 2"),
    "neighbour": _gone(
        "permanent neighbour {pod0} of default/web-0", "ip neigh del {pod0} dev {veth0}"
    ),
    "neighbour's MAC": Sabotage(
        "ip neigh replace {pod0} lladdr 02:00:00:00:00:55 dev {veth0} nud permanent",
        "permanent neighbour {pod0} of default/web-0 had another MAC",
        "permanent neighbour {pod0} of default/web-0 has another MAC",
    ),
    "nft table ip": _gone("nft table enid", "nft delete table ip enid"),
    "nft table ip6": _gone("nft table enid", "nft delete table ip6 enid"),
    "nft tables": _gone("nft table enid", "nft 'delete table ip enid; delete table ip6 enid'"),
    "nft rule": Sabotage(
        f"nft replace rule ip enid leave handle $({A_RULE}) accept",
        "nft table enid has other rules than were written",
    ),
    "nft chain": Sabotage(
        "nft add chain ip enid mine '{{ type filter hook forward priority 0; policy drop; }}'",
        "nft table enid has a chain more: ip mine",
    ),
    "ENI down": _was(f"{ENI_2}: {{is_}} down", "ip link set ens6 down"),
    "ENI's group": _was(
        f"{ENI_1}: its group {{is_}} 0 and must be 5249", "ip link set ens5 group 0"
    ),
    "ENI's MTU": _was(
        f"{ENI_2}: its MTU {{is_}} 1500 and must be 9001", "ip link set ens6 mtu 1500"
    ),
    "ENI's MAC": Sabotage(
        f"{ENI_MAC} > /tmp/ens6; ip link set ens6 address 02:00:00:00:00:66",
        f"{ENI_2}: its MAC was 02:00:00:00:00:66 and must be",
        " in use, and the kernel shows no link ",
        undo="ip link set ens6 address $(cat /tmp/ens6)",
    ),
    "ENI's address": _gone(" of ens6", f"ip addr del $({ENI_ADDRESS}) dev ens6"),
    "foreign address": Sabotage(
        "ip addr add {net}.200/32 dev ens6",
        "address {net}.200/32 of ens6 is foreign to an ENI of pods",
        undo="ip addr del {net}.200/32 dev ens6",
    ),
    "veth down": _was(f"{WEB}: {{is_}} down", "ip link set {veth0} down"),
    "veth's name": _was(
        f"{WEB}: {{is_}} down, its name {{is_}} 'mine' and must be '{{veth0}}'",
        "ip link set dev {veth0} down name mine",
    ),
    "veth's MAC": _was(
        f"{WEB}: its MAC {{is_}} 02:00:00:00:00:77 and must be",
        "ip link set {veth0} address 02:00:00:00:00:77",
    ),
    "veth's group": _was(f"{WEB}: its group {{is_}} 0 and must be", "ip link set {veth0} group 0"),
    "veth's alias gone": _gone(f"{WEB}: its alias", "ip link set {veth0} alias ''"),
    "veth's alias": _was(
        f"{WEB}: its alias {{is_}} 'mine' and must be", "ip link set {veth0} alias mine"
    ),
    "veth's forwarding": _setting("{veth0}", WEB, "forwarding", 0, 1),
    "veth's rp_filter": _setting("{veth0}", WEB, "rp_filter", 0, 1),
    "ENI 1's forwarding": _setting("ens5", ENI_1, "forwarding", 0, 1),
    "ENI 2's forwarding": _setting("ens6", ENI_2, "forwarding", 0, 1),
    "ENI's rp_filter": _setting("ens6", ENI_2, "rp_filter", 1, 2),
    "ENI 1's send_redirects": _setting("ens5", ENI_1, "send_redirects", 1, 0),
    "ENI 2's send_redirects": _setting("ens6", ENI_2, "send_redirects", 1, 0),
    "ENI's promote_secondaries": _setting("ens6", ENI_2, "promote_secondaries", 0, 1),
}
"""Each sabotage, to be done alone."""


@dataclass
class Scene:
    """A node with two ENIs, eleven pods and a lot of others' things."""

    daemon: Ipamd
    pods: list[IPv4Address]

    def sh(self, script: str) -> str:
        return str(self.daemon.node.run(["sh", "-ec", script.format(**self.names)]).stdout)

    @property
    def names(self) -> dict[str, str]:
        veths = {f"veth{n}": self.veth(f"web-{n}") for n in range(len(self.pods))}
        pods = {f"pod{n}": str(address) for n, address in enumerate(self.pods)}
        return veths | pods | {"net": str(self.pods[0]).rpartition(".")[0]}

    @staticmethod
    def veth(pod: str) -> str:
        return host_ifname(Sandbox("enid", f"{pod}-{'0' * 32}", "eth0"))

    def dump(self) -> str:
        text = str(self.daemon.node.run(["sh", "-c", DUMP]).stdout)
        return re.sub(r"counter packets \d+ bytes \d+|\b\d+sec\b", "", text)

    def said(self) -> list[str]:
        """Return what was mended until now, in the daemon's words."""
        lines = self.daemon.log.read_text().splitlines()
        notes = (json.loads(line) for line in lines if '"kernel state mended' in line)
        return [note["what"] for note in notes if "what" in note]

    def unsaid(self, sentences: list[str], since: int) -> list[str]:
        said = self.said()[since:]
        return [wanted for wanted in sentences if not any(wanted in what for what in said)]

    def await_dump(self, wanted: str, seconds: float = CAP_SECONDS) -> None:
        end = time.monotonic() + seconds * PATIENCE
        while (found := self.dump()) != wanted:
            if time.monotonic() > end:
                lines = difflib.unified_diff(
                    wanted.splitlines(), found.splitlines(), n=0, lineterm=""
                )
                pytest.fail("\n".join(lines))


@contextmanager
def a_scene(vpc: EmbeddedVPC, number: int, folder: Path) -> Iterator[Scene]:
    """Give a node in a subnet 10.0.*number*.0/24."""
    subnet = vpc.add_subnet(f"10.0.{number}.0/24", "us-east-1a")
    node = vpc.launch_node(f"node-{number}", "m5.large", subnet, public=True)
    prepare(node)
    settings = {"WARM_ENI_TARGET": "0", "IP_COOLDOWN_PERIOD": "1"}
    external = "198.18.0.0/15"
    daemon = Ipamd(node, folder / "log", **settings, AWS_EXTERNAL_SERVICE_CIDRS=external)
    try:
        daemon.start()
        pods = [daemon.add(f"web-{number}") for number in range(11)]  # 9 on the primary ENI
        daemon.wait(lambda s: len(s["enis"]) == 2 and not s["waiting"])
        node.run(["sh", "-ec", STRANGERS])
        yield Scene(daemon, pods)
    finally:
        daemon.close()
        node.terminate()
