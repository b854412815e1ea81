"""systemd-networkd and NetworkManager take our drop-ins as they are meant: ours is let alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lab.patience import PATIENCE
from tests.tools.pure import ROOT

NETWORKD = Path("/usr/lib/systemd/systemd-networkd")
CONFIG = ROOT / "config" / "networkd"
MANAGER = ROOT / ".cache" / "networkmanager" / "root"
"""What tools/fetch-networkmanager unpacks."""

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


@pytest.mark.skipif(not MANAGER.exists(), reason="no NetworkManager: tools/fetch-networkmanager")
def test_networkmanager_knows_every_key_of_ours_and_lets_pods_links_alone(tmp_path: Path) -> None:
    """It takes the file whole; what it does to links needs D-Bus and udev, and is not tried."""
    (tmp_path / "NetworkManager.conf").touch()
    (libraries,) = {path.parent for path in MANAGER.rglob("libnm.so.0")}
    words = ["--config", str(tmp_path / "NetworkManager.conf"), "--print-config"]
    folder = ["--config-dir", str(ROOT / "config" / "NetworkManager")]
    told = subprocess.run(
        [str(MANAGER / "usr/sbin/NetworkManager"), *folder, *words],
        capture_output=True, text=True, check=True, env={"LD_LIBRARY_PATH": str(libraries)},
    ).stdout  # fmt: skip
    assert "WARNING" not in told, told
    keyfile, pods, enis = "[keyfile]", "[device-enid-pods]", "[device-enid-enis]"
    assert f"{keyfile}\nunmanaged-devices=interface-name:eni*\n" in told
    assert f"{pods}\nmatch-device=interface-name:eni*\nmanaged=0\n" in told
    assert f"{enis}\nmatch-device=driver:ena,except:" in told
