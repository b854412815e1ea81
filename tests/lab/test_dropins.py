"""systemd-networkd and NetworkManager take our drop-ins as they are meant: ours is let alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.patience import PATIENCE
from tests.tools.pure import ROOT

NETWORKD = Path("/usr/lib/systemd/systemd-networkd")
CONFIG = ROOT / "config" / "networkd"
MANAGER = ROOT / ".cache" / "networkmanager" / "root"
"""What tools/fetch-networkmanager unpacks."""

DBUS = Path(shutil.which("dbus-daemon") or MANAGER.resolve() / "usr/bin/dbus-daemon")

ENOUGH_SECONDS = 4.0 * PATIENCE
"""Until networkd has seen and configured all of six links; then it is ended."""

SCENE = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
chown -R systemd-network: /run/systemd/netif
mount -t sysfs -o ro sysfs /sys  # without udev, links are ready at once
mount -t tmpfs tmpfs /etc/systemd
mkdir -p /etc/systemd/network /etc/systemd/networkd.conf.d
cp {config}/10-enid.conf /etc/systemd/networkd.conf.d/
cp {config}/0*.network /etc/systemd/network/
# The lab's ENIs are veths; on EC2 they are ENA's.
sed -i 's/^Driver=ena.*/Driver=veth/' /etc/systemd/network/06-enid-enis.network
printf '[Match]\\nName=ens* eni*\\n[Network]\\nDHCP=yes\\nLinkLocalAddressing=no\\n' \
  >/etc/systemd/network/50-all.network
for link in ens5 ens6 eni01234567; do
  ip link add $link type veth peer name f-$link
  ip link set $link up
  ip link set f-$link up
done
ip addr add 10.0.0.20/24 dev ens6 noprefixroute
ip rule add pref 512 lookup 5120 protocol 151
ip rule add pref 1536 fwmark 2/0x7f lookup 2 protocol 151
ip route add 10.0.0.5 dev eni01234567 table 5120 proto 151
ip route add default dev ens6 table 2 proto 151
show() {{
  ip rule | grep 'proto 151'; ip route show table 5120; ip route show table 2
  ip -o -4 addr show ens6 | cut -d' ' -f2-8
}}
show >{folder}/before
SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console timeout {seconds} {networkd} >{folder}/log 2>&1 || true
show >{folder}/after
"""


@pytest.mark.skipif(not NETWORKD.exists(), reason=f"{NETWORKD} is not installed")
def test_networkd_leaves_links_addresses_routes_and_rules_of_ours(tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    folder.mkdir()
    script = SCENE.format(config=CONFIG, folder=folder, networkd=NETWORKD, seconds=ENOUGH_SECONDS)
    unshare = shutil.which("unshare") or "unshare"
    done = subprocess.run(
        [unshare, "--net", "--mount", "--fork", "sh", "-c", script],
        capture_output=True, text=True, check=False, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    log = (folder / "log").read_text(errors="replace")
    assert "ens6: State changed: initialized -> unmanaged" in log
    assert "eni01234567: State changed: initialized -> unmanaged" in log
    assert "ens5: Configuring with /etc/systemd/network/50-all.network" in log, "the node's own"
    assert not [line for line in log.splitlines() if "Unknown" in line or "Failed to parse" in line]
    assert (folder / "after").read_text() == (folder / "before").read_text()


NM_SCENE = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
mount -t sysfs -o ro sysfs /sys  # without udev, links are ready at once
mkdir -p /run/dbus /run/conf.d /run/nm /var/lib/NetworkManager
{copy}
# An address that is tried for a second, and a link that is not seen up yet, change by themselves.
echo 0 2>/dev/null >/proc/sys/net/ipv6/conf/default/accept_dad || true
ip link set lo up
ip link add eni01234567 type veth peer name theirs
# The lab's ENIs are bridges, as a pod's veth is none; on EC2 they are ENA's.
for link in ens5 ens6; do ip link add $link type bridge; done
for link in ens5 ens6 eni01234567 theirs; do ip link set $link up; done
ip addr add 10.0.0.10/24 dev ens5
ip addr add 10.0.0.20/24 dev ens6 noprefixroute
ip route add 10.0.0.5 dev eni01234567 table 5120 proto 151
show() {{
  for link in ens6 eni01234567; do
    ip -d -o link show $link | sed 's/_timer *[0-9.]*//g'
    ip -o addr show $link; ip route show table all dev $link
    grep -r . /proc/sys/net/ipv4/conf/$link /proc/sys/net/ipv6/conf/$link 2>/dev/null || true
  done
}}
until ip link show eni01234567 | grep -q 'state UP'; do sleep 0.05; done
show >{folder}/before
cat >/run/bus.conf <<END
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen>
<auth>EXTERNAL</auth><policy context="default"><allow own="*"/><allow send_destination="*"/>
<allow receive_sender="*"/></policy></busconfig>
END
{dbus} --config-file=/run/bus.conf --nofork --nopidfile --print-address=1 >{folder}/bus 2>&1 &
bus=$!
until grep -q unix: {folder}/bus; do kill -0 $bus; sleep 0.05; done
printf '[main]\nplugins=keyfile\nauth-polkit=false\ndhcp=internal\n' >/run/nm.conf
{root}/usr/sbin/NetworkManager --no-daemon --config /run/nm.conf --config-dir /run/conf.d \
  --system-config-dir /run/none --intern-config /run/none.conf --state-file /run/nm/state \
  --pid-file /run/nm/pid >{folder}/log 2>&1 &
manager=$!
until {root}/usr/bin/nmcli -t -f DEVICE,STATE device >{folder}/devices 2>/dev/null &&
  grep -q '^ens5:connected' {folder}/devices && grep -q '^theirs:connecting' {folder}/devices
do kill -0 $manager; sleep 0.05; done
show >{folder}/after
kill $manager $bus
wait
"""


def libraries() -> str:
    """Return where NetworkManager's libraries are, and D-Bus's if they came along."""
    return ":".join(sorted({str(path.parent) for path in MANAGER.resolve().rglob("*.so.*")}))


@dataclass(frozen=True)
class Managed:
    """What NetworkManager makes of links, by name, and of two of them before and after."""

    states: dict[str, str]
    before: str
    after: str


def manage(folder: Path, copy: str) -> Managed:
    """Let NetworkManager run on links like a node's; *copy* puts a drop-in into /run/conf.d."""
    folder.mkdir()
    script = NM_SCENE.format(copy=copy, folder=folder, root=MANAGER.resolve(), dbus=DBUS)
    unshare = shutil.which("unshare") or "unshare"
    done = subprocess.run(
        [unshare, "--net", "--mount", "--pid", "--mount-proc", "--kill-child", "sh", "-c", script],
        capture_output=True, text=True, check=False, timeout=ENOUGH_SECONDS * 5,
        env=dict(os.environ) | {"LD_LIBRARY_PATH": libraries()},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    states = dict(line.split(":", 1) for line in (folder / "devices").read_text().splitlines())
    return Managed(states, (folder / "before").read_text(), (folder / "after").read_text())


no_manager = pytest.mark.skipif(
    not (MANAGER.exists() and DBUS.exists()), reason="no NetworkManager: tools/fetch-networkmanager"
)
DROP_IN = ROOT / "config" / "NetworkManager" / "10-enid.conf"


@no_manager
def test_networkmanager_lets_pods_links_and_our_enis_alone(tmp_path: Path) -> None:
    """It runs, and does with a veth of others what it would do with ours."""
    copy = f"sed 's/driver:ena/driver:bridge/' {DROP_IN} >/run/conf.d/10-enid.conf"
    found = manage(tmp_path / "seen", copy)
    assert (found.states["eni01234567"], found.states["ens6"]) == ("unmanaged", "unmanaged")
    assert found.states["ens5"] == "connected (externally)", "the node's own"
    assert found.states["theirs"].startswith("connecting")
    assert found.after == found.before


@no_manager
def test_without_the_drop_in_it_takes_them(tmp_path: Path) -> None:
    found = manage(tmp_path / "seen", "true")
    assert found.states["eni01234567"].startswith("connecting")
    assert found.states["ens6"] == "connected (externally)"
    assert found.after != found.before


@no_manager
def test_networkmanager_knows_every_key_of_ours(tmp_path: Path) -> None:
    (tmp_path / "NetworkManager.conf").touch()
    words = ["--config", str(tmp_path / "NetworkManager.conf"), "--print-config"]
    folder = ["--config-dir", str(ROOT / "config" / "NetworkManager")]
    told = subprocess.run(
        [str(MANAGER / "usr/sbin/NetworkManager"), *folder, *words],
        capture_output=True, text=True, check=True, env={"LD_LIBRARY_PATH": libraries()},
    ).stdout  # fmt: skip
    assert "WARNING" not in told, told
    keyfile, pods, enis = "[keyfile]", "[device-enid-pods]", "[device-enid-enis]"
    assert f"{keyfile}\nunmanaged-devices=interface-name:eni*\n" in told
    assert f"{pods}\nmatch-device=interface-name:eni*\nmanaged=0\n" in told
    assert f"{enis}\nmatch-device=driver:ena,except:" in told
