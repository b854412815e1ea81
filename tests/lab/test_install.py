"""`enid install` and `enid uninstall` on a node: whole, twice the same, and gone without a trace."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.dataplane import NODE_SYSCTLS
from ipamd.installation import CONFLIST, DROP_INS
from tests.lab.test_daemon import Ipamd, network_of
from tests.tools.pure import ROOT

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import Node

ENID = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from ipamd.cli import main; main()"
PLUGIN = b"#!/bin/sh\n"
PORTMAP = """#!/bin/sh
echo '{"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0"]}'
"""


class Host:
    """A node and what its image holds, before and after."""

    def __init__(self, node: Node, shipped: Path) -> None:
        self.node, self.shipped = node, shipped
        self.conf = node.path("/etc/cni/net.d")
        self.bin = node.path("/opt/cni/bin")
        for folder in ("/etc/systemd/network", "/etc/NetworkManager/conf.d"):
            link = node.path("/".join(folder.split("/")[:3]))
            if link.is_symlink():  # this machine's own, which is nobody's to write in
                link.unlink()
            node.path(folder).mkdir(parents=True, exist_ok=True)

    def enid(self, *words: str) -> tuple[int, list[dict[str, Any]]]:
        """Return a command's exit status and its log."""
        where = ("--shipped", str(self.shipped), "--host", "/")
        argv = [sys.executable, "-c", ENID, *words, *where]
        done = self.node.run(argv, check=False, cwd="/")
        return done.returncode, [json.loads(line) for line in done.stderr.splitlines()]

    def sysctls(self) -> dict[str, str]:
        names = sorted(NODE_SYSCTLS)
        return dict(zip(names, self.node.run(["sysctl", "-n", *names]).stdout.split(), strict=True))

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Return the files of all folders that are written in, each with its inode."""
        folders = ("/etc/cni/net.d", "/opt/cni/bin", "/etc/systemd", "/etc/NetworkManager")
        paths = (p for f in folders for p in self.node.path(f).rglob("*") if p.is_file())
        return {str(path): (path.stat().st_ino, path.read_bytes()) for path in paths}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the image has, with a plugin of a line."""
    folder = tmp_path_factory.mktemp("shipped")
    (folder / CONFLIST).write_bytes((ROOT / "config" / CONFLIST).read_bytes())
    (folder / "enid-cni").write_bytes(PLUGIN)
    (folder / "enid-cni").chmod(0o755)
    (folder / "plugins").mkdir()
    (folder / "plugins/loopback").write_bytes(PLUGIN)
    for name in DROP_INS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((ROOT / "config" / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def subnet(vpc: EmbeddedVPC) -> Any:
    return vpc.add_subnet("10.0.90.0/24", "us-east-1a")


@pytest.fixture
def host(vpc: EmbeddedVPC, subnet: Any, shipped: Path) -> Iterator[Host]:
    node = vpc.launch_node("fresh", "m5.large", subnet, public=True)
    try:
        yield Host(node, shipped)
    finally:
        node.terminate()


def test_a_node_has_it_all_and_the_second_time_nothing_is_written(host: Host) -> None:
    peers = host.conf / "10-aws.conflist"
    peers.write_text("{}")
    assert host.enid("install")[0] == 0
    assert host.sysctls() == dict(sorted(NODE_SYSCTLS.items()))
    assert (host.bin / "enid-cni").read_bytes() == PLUGIN
    assert (host.bin / "enid-cni").stat().st_mode & 0o777 == 0o755
    assert json.loads((host.conf / CONFLIST).read_text())["cniVersion"] == "1.0.0"
    assert sorted(path.name for path in host.conf.iterdir()) == [
        CONFLIST,
        "10-aws.conflist.enid-aside",
    ]
    assert all(host.node.path(f"/{to}").exists() for _, to in DROP_INS.values())
    before = host.files()
    assert host.enid("install")[0] == 0
    assert host.files() == before


def test_a_new_plugin_takes_the_place_of_the_old_one_whole(host: Host) -> None:
    assert host.enid("install")[0] == 0
    with (host.bin / "enid-cni").open("rb") as running:
        (host.shipped / "enid-cni").write_bytes(b"#!/bin/true\n")
        try:
            assert host.enid("install")[0] == 0
        finally:
            (host.shipped / "enid-cni").write_bytes(PLUGIN)
        assert running.read() == PLUGIN
    assert (host.bin / "enid-cni").read_bytes() == b"#!/bin/true\n"
    assert {path.name for path in host.bin.iterdir()} == {"enid-cni", "loopback"}


def test_a_plugin_that_is_to_follow_is_asked_what_it_speaks(host: Host) -> None:
    (host.bin / "portmap").write_text(PORTMAP)
    (host.bin / "portmap").chmod(0o755)
    status, log = host.enid("install", "--chain", "portmap", "--chain", "bandwidth")
    assert status == 0
    said = json.loads((host.conf / CONFLIST).read_text())
    assert [plugin["type"] for plugin in said["plugins"]] == ["enid-cni", "portmap"]
    assert [line["plugin"] for line in log if line["level"] == "warning"] == ["bandwidth"]


def test_another_cnis_conflist_that_comes_first_is_one_line(host: Host) -> None:
    (host.conf / "00-other.conflist").write_text("{}")
    status, log = host.enid("install")
    assert status == 0
    (line,) = (line for line in log if line["level"] == "warning")
    assert line["file"] == "/etc/cni/net.d/00-other.conflist"


def test_a_host_whose_etc_is_read_only_does_without_drop_ins(host: Host) -> None:
    shutil.rmtree(host.node.path("/etc/systemd"))
    host.node.path("/etc/systemd").symlink_to("/sys")  # where nobody makes a file
    (host.node.path("/etc/NetworkManager/conf.d")).rmdir()
    status, log = host.enid("install")
    assert status == 0
    warned = [line["file"] for line in log if line["level"] == "warning"]
    assert warned == ["/etc/systemd/networkd.conf.d/10-enid.conf"]
    assert (host.conf / CONFLIST).exists()


def test_a_chain_of_nonsense_is_refused_before_anything_is_written(host: Host) -> None:
    before = host.files()
    status, (line,) = host.enid("install", "--chain", "nonsense")
    assert (status, line["id"]) == (78, "CHAIN")
    assert host.files() == before


def test_a_node_that_has_run_pods_is_as_it_was_before(host: Host, tmp_path: Path) -> None:
    (host.conf / "10-aws.conflist").write_text('{"their": "own"}')
    files, sysctls, network = host.files(), host.sysctls(), network_of(host.node)
    assert host.enid("install")[0] == 0
    daemon = Ipamd(host.node, tmp_path / "ipamd.log")
    try:
        daemon.start()
        daemon.add("web")
        assert daemon.stop() == 0
        status, log = host.enid("uninstall")
        assert (status, log[-1]["id"]) == (78, "PODS-LEFT")
        daemon.start()
        daemon.delete("web")
        assert daemon.stop() == 0
    finally:
        daemon.close()
    status, log = host.enid("uninstall")
    assert status == 0, log
    assert {path: text for path, (_, text) in host.files().items()} == {
        path: text for path, (_, text) in files.items()
    }
    assert host.sysctls() == sysctls
    assert network_of(host.node) == network
    assert not host.node.path("/run/enid").exists()
    assert not host.node.path("/var/lib/enid").exists()
    assert host.enid("uninstall")[0] == 0, "it may be said twice"
