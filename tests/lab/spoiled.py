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
from typing import TYPE_CHECKING

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
ip route add default via 192.0.2.254 dev stranger table 77
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
ip -6 rule add pref 512 to 2001:db8:77::8 lookup 77
ip -6 route add default via 2001:db8:77::fe dev stranger table 77
ip -6 route add 2001:db8:99::/64 via 2001:db8:77::fe
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
        return veths | {f"pod{n}": str(address) for n, address in enumerate(self.pods)}

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
    daemon = Ipamd(node, folder / "log", WARM_ENI_TARGET="0", IP_COOLDOWN_PERIOD="1")
    try:
        daemon.start()
        pods = [daemon.add(f"web-{number}") for number in range(11)]  # 9 on the primary ENI
        daemon.wait(lambda s: len(s["enis"]) == 2 and not s["waiting"])
        node.run(["sh", "-ec", STRANGERS])
        yield Scene(daemon, pods)
    finally:
        daemon.close()
        node.terminate()
