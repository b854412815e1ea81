"""A node's life that is recorded for later versions, and nodes as a release left them. Shell.

`recorded` lives it with the plugin, the daemon and the kernel as they are, and returns the files of
`tests.tools.releases`. `restored` makes a node of such files, with all that EC2, the kernel and the
disk would have of it, and no daemon.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sqlite3
import sys
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni.dataplane import parse_alias
from tests.lab.test_daemon import Ipamd, container_id
from tests.tools.releases import BOOT, BOOT_NS, ROOT, WALL, Exchange, Release
from vpclab.enid import prepare

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import Node

SUBNET = "10.0.79.0/24"
SETTINGS = {"WARM_ENI_TARGET": "0", "MAX_ENI": "2"}
TYPE = "t3.small"
"""Three addresses an ENI: the sixth pod fills two."""

BOOT_ID = "00000000-0000-4000-8000-00000000b007"
TOKEN = "00000000-0000-4000-8000-000000000001"
CREATED = "2026-01-01T00:00:00Z"

COLUMNS: Mapping[str, float] = {
    "since": WALL, "at": WALL, "changed": WALL, "wall": WALL,
    "boot": BOOT, "started_ns": BOOT_NS, "netns_dev": 4, "netns_ino": 1,
}  # fmt: skip
"""What is another each time, in any table, and what stands for it."""

CONF = ("forwarding", "promote_secondaries", "rp_filter", "send_redirects")


# The life ------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Step:
    """One call of a runtime's. *netns* is another than the pod's; *env* comes on top."""

    what: str
    verb: str
    pod: str = ""
    conf: Mapping[str, Any] = field(default_factory=dict)
    version: str = "1.0.0"
    previous: str = ""
    """The step whose result is the prevResult."""
    netns: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: str = ""
    before: str = ""
    waits: bool = False


ALL = [{"containerID": container_id(f"web-{n}"), "ifname": "eth0"} for n in range(5)]
VALID, ALSO_VALID = {"cni.dev/valid-attachments": ALL}, {"cni.dev/attachments": ALL}
ANNOTATED = {"runtimeConfig": {"io.kubernetes.cri.pod-annotations": {"enid.dev/mtu": "1400"}}}

STEPS = (
    Step("version", "VERSION", version="1.1.0"),
    Step("add 0.3.0", "ADD", "web-0", version="0.3.0"),
    Step("add 0.3.1", "ADD", "web-1", version="0.3.1"),
    Step("add 0.4.0, of an mtu", "ADD", "web-2", {"mtu": 1500}, "0.4.0"),
    Step("add 1.0.0, annotated, our ipam", "ADD", "web-3", {"ipam": {"type": "enid-cni"}, **ANNOTATED}),
    Step("add 1.1.0, with a deadline", "ADD", "web-4", {"deadlineSeconds": 60}, "1.1.0"),
    Step("add of no pod", "ADD", "bare", env={"CNI_ARGS": ""}),
    Step("add again", "ADD", "web-4", {"deadlineSeconds": 60}, "1.1.0"),
    Step("add in another namespace", "ADD", "web-4", netns="/run/netns/cni-bare"),
    Step("add in the node's namespace", "ADD", "evil", netns="/proc/self/ns/net"),
    Step("add of an unknown version", "ADD", "evil", version="0.2.0"),
    Step("add to no network", "ADD", "evil", {"name": "no name"}),
    Step("add with another's ipam", "ADD", "evil", {"ipam": {"type": "host-local"}}),
    Step("add of no JSON", "ADD", "evil", stdin='{"cniVersion":"1.0.0","name":"enid",}'),
    Step("add that is deleted while it waits", "ADD", "late", waits=True),
    Step("del of what waits", "DEL", "late"),
    Step("check 0.4.0", "CHECK", "web-2", {"mtu": 1500}, "0.4.0", "add 0.4.0, of an mtu"),
    Step("check 1.1.0", "CHECK", "web-4", {}, "1.1.0", "add 1.1.0, with a deadline"),
    Step("check of nobody", "CHECK", "evil", {}, "1.0.0", "add of no pod"),
    Step("check that differs", "CHECK", "bare", {}, "1.0.0", "add of no pod", before="ip route del default"),
    Step("gc", "GC", conf={**VALID, **ALSO_VALID}, version="1.1.0"),
    Step("gc of the former key", "GC", conf=ALSO_VALID, version="1.1.0"),
    Step("gc without a list", "GC", version="1.1.0"),
    Step("gc before there was one", "GC", conf=VALID),
    Step("del without a namespace", "DEL", "bare", netns=""),
    Step("del with a prevResult", "DEL", "web-3", previous="add 1.0.0, annotated, our ipam"),
    Step("del again", "DEL", "web-3"),
    Step("del of nobody", "DEL", "ghost", netns=""),
    Step("status", "STATUS", version="1.1.0"),
    Step("status before there was one", "STATUS"),
)  # fmt: skip
SPOOLED = Step("del while the daemon is away", "DEL", "web-1", version="0.3.1")
PODS = ("web-0", "web-1", "web-2", "web-4")
"""Those that are left, one of them only until its DEL is heard of."""


class Tap:
    """Stands between plugin and daemon, and keeps what both say."""

    def __init__(self, path: Path) -> None:
        self._front, self._behind = path, path.with_name("behind.sock")
        path.rename(self._behind)
        self.heard: dict[tuple[str, str], tuple[str, int]] = {}
        """By verb and container: the last frame, and how many descriptors came with it."""
        self._ear = socket.socket(socket.AF_UNIX)
        self._ear.bind(str(path))
        self._ear.listen()
        self._threads: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._ear.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as daemon:
            frame, fds, _, _ = socket.recv_fds(client, 1 << 20, 8)
            text = frame.decode()
            said = dict(re.findall(r"(CNI_COMMAND|CNI_CONTAINERID)=([^\0{]*)", text))
            if "CNI_COMMAND" in said:  # else it is `enid status`
                key = said["CNI_COMMAND"], said.get("CNI_CONTAINERID", "")
                self.heard[key] = text, len(fds)
            daemon.connect(str(self._behind))
            socket.send_fds(daemon, [frame], fds)
            for fd in fds:
                os.close(fd)
            client.sendall(b"".join(iter(lambda: daemon.recv(65536), b"")))

    def close(self) -> None:
        """Give the socket back."""
        self._ear.close()
        self._behind.rename(self._front)


class Life:
    """Takes the steps with the plugin, one after another."""

    def __init__(self, daemon: Ipamd) -> None:
        self.daemon = daemon
        self.done: list[Exchange] = []
        self._tap: Tap | None = None

    def live(self) -> None:
        """Take all of them."""
        self._tap = Tap(Path(self.daemon.socket))
        late: tuple[threading.Thread, Step] | None = None
        for step in STEPS:
            if step.waits:
                late = threading.Thread(target=self.take, args=(step,)), step
                self.daemon.netns(step.pod)
                late[0].start()
                self.daemon.wait(lambda s: s["waiting"] == 1)
                continue
            self.take(step)
            if late is not None:
                late[0].join()
                late = None
        self._tap.close()
        order = [step.what for step in STEPS]
        self.done.sort(key=lambda one: order.index(one.what))

    def take(self, step: Step) -> None:
        """Take one."""
        env, stdin = self._words(step)
        if step.before:
            self.daemon.netns(step.pod).run(["sh", "-ec", step.before])
        node = self.daemon.node
        done = node.run(self.daemon.plugin, env=env, input=stdin, check=False)
        frame, fds = "", 0
        if self._tap is not None:
            key = step.verb, env.get("CNI_CONTAINERID", "")
            frame, fds = self._tap.heard.get(key, ("", 0))
        self.done.append(
            Exchange(
                what=step.what,
                pod=step.pod,
                brings=env["CNI_NETNS"] if fds else "",
                before=step.before,
                waits=step.waits,
                sends=frame,
                exits=done.returncode,
                prints=done.stdout,
            )
        )

    def _words(self, step: Step) -> tuple[dict[str, str], str]:
        env = {"CNI_COMMAND": step.verb, "CNI_PATH": "/opt/cni/bin"}
        if step.pod:
            path = f"/run/netns/cni-{step.pod}" if step.netns is None else step.netns
            if path == f"/run/netns/cni-{step.pod}":
                self.daemon.netns(step.pod)
            args = f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={step.pod};K8S_POD_UID=uid-{step.pod}"
            env |= {
                "CNI_CONTAINERID": container_id(step.pod), "CNI_NETNS": path, "CNI_IFNAME": "eth0",
                "CNI_ARGS": f"IgnoreUnknown=1;{args}",
            }  # fmt: skip
        conf = {"cniVersion": step.version, "name": "enid", "type": "enid-cni", **step.conf}
        if step.previous:
            results = {one.what: one.answer for one in self.done}
            conf["prevResult"] = results[step.previous]
        return {**env, **step.env}, step.stdin or json.dumps(conf)


# What it leaves ------------------------------------------------------------------------
class Names:
    """What EC2 and the kernel call things here, and what stands for that in a record."""

    def __init__(self, vpc: EmbeddedVPC, node: Node) -> None:
        (found,) = vpc.ec2.describe_instances(InstanceIds=[node.instance_id])["Reservations"]
        (instance,) = found["Instances"]
        enis = vpc.ec2.describe_network_interfaces(
            Filters=[{"Name": "attachment.instance-id", "Values": [node.instance_id]}]
        )["NetworkInterfaces"]
        enis.sort(key=lambda eni: eni["Attachment"]["DeviceIndex"])
        self.real = {
            "i-00000000000000001": node.instance_id,
            "vpc-00000000000000001": instance["VpcId"],
            "subnet-00000000000000001": instance["SubnetId"],
            "sg-00000000000000001": enis[0]["Groups"][0]["GroupId"],
            BOOT_ID: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        }
        for number, eni in enumerate(enis, 1):
            self.real[f"eni-{number:017}"] = eni["NetworkInterfaceId"]
            self.real[f"eni-attach-{number:017}"] = eni["Attachment"]["AttachmentId"]
            self.real[f"02:00:00:00:00:{number:02x}"] = eni["MacAddress"]

    def settled(self, text: str) -> str:
        """Return *text* as it is recorded."""
        text = _renamed(text, {real: name for name, real in self.real.items()})
        text = re.sub(r"\b(?!00000000-)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", TOKEN, text)
        text = re.sub(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", CREATED, text)
        return re.sub(r'("\w+_seconds": )[\d.e-]+', r"\g<1>0.0", text)

    def here(self, text: str) -> str:
        """Return a recorded *text* as it is on this node."""
        return _renamed(text, self.real)


def _renamed(text: str, names: Mapping[str, str]) -> str:
    """Return *text* with each of *names* replaced, all at once: a new one may be another's old."""
    return re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], text)


def frame_at(text: str, started_ns: int, seconds: int = 110) -> str:
    """Return a frame whose times are *started_ns* and so much later; a runtime is as old."""
    head, line_end, rest = text.partition("\n")
    words = head.split(" ")
    words[3:5] = [str(started_ns), str(started_ns + seconds * 10**9)]
    words[5:] = [re.sub(r"^(runtime)=\d+$", rf"\1={started_ns}", word) for word in words[5:]]
    return " ".join(words) + line_end + rest


def dumped(path: Path) -> str:
    """Return a database as SQL, with what differs each time as it is recorded."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        schema = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type DESC, name"
        lines = [f"PRAGMA user_version = {db.execute('PRAGMA user_version').fetchone()[0]};"]
        lines += [f"{sql};" for (sql,) in db.execute(schema)]
        tables = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
        for (table,) in db.execute(tables).fetchall():
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            masked = [f"quote({COLUMNS.get(c, c)})" for c in columns]
            rows = db.execute(f"SELECT {','.join(masked)} FROM {table}")  # noqa: S608 - names are the file's
            lines += sorted(
                f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(row)});"  # noqa: S608 - the same
                for row in rows.fetchall()
            )
    return "\n".join(lines) + "\n"


def network_script(daemon: Ipamd) -> str:
    """Return the node's network as commands that make it again, those of ENIs' links first."""
    node = daemon.node
    links = json.loads(node.run(["ip", "-j", "-d", "link"]).stdout)
    lines = ["# ENIs"]
    for link in sorted(links, key=lambda one: str(one["ifname"])):
        if link["ifname"].startswith("ens"):
            lines += _eni_lines(node, link)
    lines.append("# Pods")
    for link in sorted(links, key=lambda one: str(one.get("ifalias", ""))):
        if link.get("ifalias", "").startswith("enid1 "):
            lines += _pod_lines(daemon, link)
    lines.append("# Rules, routes, neighbours")
    for family in ("-4", "-6"):
        lines += sorted(
            f"ip {family} rule add pref {found[1]} {found[2]} protocol 151"
            for found in re.finditer(
                r"^(\d+):\t(.*?) proto 151$", node.run(["ip", family, "rule"]).stdout, re.MULTILINE
            )
        )
        routes = node.run(["ip", family, "route", "show", "table", "all", "proto", "151"]).stdout
        # One with a gateway needs the way to it first; the guards come last.
        order = sorted(
            (" ".join(r.split()) for r in routes.splitlines()),
            key=lambda r: (" metric " in r, " via " in r, r),
        )
        lines += [f"ip {family} route add {_settled_route(r)} proto 151" for r in order]
    neighbours = node.run(["ip", "neigh", "show", "nud", "permanent"]).stdout
    lines += sorted(
        f"ip neigh add {' '.join(n.split()).replace(' PERMANENT', '')} nud permanent"
        for n in neighbours.splitlines()
    )
    return "\n".join([*lines, "# nft", "nft -f - <<'END'", _table(node).strip("\n"), "END", ""])


def _settled_route(route: str) -> str:
    return re.sub(r" (pref medium|linkdown|dead|error \S+)", "", route)


def _conf(node: Node, name: str) -> list[str]:
    folder = f"/proc/sys/net/ipv4/conf/{name}"
    script = f"cd {folder} && grep -H . {' '.join(CONF)}"
    found = node.run(["sh", "-ec", script]).stdout.split()
    return [f"echo {value} >{folder}/{key}" for key, _, value in (f.partition(":") for f in found)]


def _eni_lines(node: Node, link: Mapping[str, Any]) -> list[str]:
    name = link["ifname"]
    shown = json.loads(node.run(["ip", "-j", "-4", "addr", "show", name]).stdout)
    addresses = [a for one in shown for a in one["addr_info"]]
    return [
        f"ip link set {name} mtu {link['mtu']} group {link['group']} up",
        *(
            f"ip addr replace {a['local']}/{a['prefixlen']} dev {name}"
            f"{' noprefixroute' if a.get('noprefixroute') else ''}"
            for a in addresses
        ),
        *_conf(node, name),
    ]


def _pod_lines(daemon: Ipamd, link: Mapping[str, Any]) -> list[str]:
    alias = parse_alias(link["ifalias"])
    assert alias is not None
    node, name = daemon.node, link["ifname"]
    inside = f"cni-{alias.sandbox.container_id.removesuffix('-' + '0' * 32)}"
    peer = alias.sandbox.ifname
    pod = ["nsenter", f"--net=/run/netns/{inside}", "ip"]
    (end,) = json.loads(node.run([*pod, "-j", "-d", "link", "show", peer]).stdout)
    shown = json.loads(node.run([*pod, "-j", "-4", "addr", "show", peer]).stdout)
    routes = node.run([*pod, "-4", "route"]).stdout.splitlines()
    routes.sort(key=lambda r: " via " in r)
    neighbours = node.run([*pod, "neigh", "show", "nud", "permanent"]).stdout.splitlines()
    queues = f"numtxqueues {link['num_tx_queues']} numrxqueues {link['num_rx_queues']}"
    add = (
        f"ip link add {name} address {link['address']} mtu {link['mtu']} group {link['group']}"
        f" {queues} type veth peer name {peer} address {end['address']} mtu {end['mtu']}"
        f" {queues} netns {inside}"
    )
    return [
        add,
        f"ip link set {name} alias '{link['ifalias']}' up",
        *_conf(node, name),
        f"ip -n {inside} link set lo up",
        f"ip -n {inside} link set {peer} addrgenmode {end['inet6_addr_gen_mode']} up",
        *(
            f"ip -n {inside} addr add {a['local']}/{a['prefixlen']} dev {peer}"
            for a in shown[0]["addr_info"]
        ),
        *(f"ip -n {inside} route add {' '.join(r.split())}" for r in routes),
        *(
            f"ip -n {inside} neigh add {' '.join(n.split()).replace(' PERMANENT', '')} nud permanent"
            for n in sorted(neighbours)
        ),
    ]


def _table(node: Node) -> str:
    """Return the nft tables as the daemon wrote them; nft prints them otherwise each year."""
    with contextlib.closing(sqlite3.connect(node.path("/var/lib/enid/journal.db"))) as db:
        ((wired,),) = db.execute("SELECT value FROM facts WHERE name = 'wired'").fetchall()
    return str(json.loads(wired)["nft"])


@contextlib.contextmanager
def a_node(vpc: EmbeddedVPC, log: Path) -> Iterator[Ipamd]:
    """Give a node without pods, and its daemon, which does not run."""
    node = vpc.launch_node("node-a", TYPE, vpc.add_subnet(SUBNET, "us-east-1a"), public=True)
    prepare(node)
    daemon = Ipamd(node, log, **SETTINGS)
    try:
        yield daemon
    finally:
        daemon.close()


def recorded(vpc: EmbeddedVPC, log: Path, root: Path = ROOT) -> dict[str, str]:
    """Live the life with the code of *root*, in a VPC that is new; return the files."""
    with a_node(vpc, log) as daemon:
        main = f"import sys; sys.path.insert(0, {str(root)!r}); from ipamd.main import main; main()"
        daemon.main = main
        daemon.plugin = [sys.executable, "-I", "-S", str(root / "cni" / "plugin.py")]
        daemon.start()
        daemon.wait(lambda s: s["ready"])
        daemon.wait(lambda _: daemon.of_node("STATUS") == (0, {}))
        life = Life(daemon)
        life.live()
        daemon.wait(lambda s: len(s["enis"]) == 2 and not s["waiting"])
        daemon.stop()
        names, node = Names(vpc, daemon.node), daemon.node
        spooled = Life(daemon)
        spooled.take(SPOOLED)
        (spool,) = node.path("/run/enid/spool").iterdir()
        journal = node.path("/var/lib/enid/journal.db")
        heartbeat = node.path("/run/enid/heartbeat").read_text().split(" ")
        heartbeat[1] = str(BOOT_NS)
        files = {
            "frames.jsonl": _frames(life.done),
            "journal.sql": dumped(journal),
            "leases.sql": dumped(node.path("/run/enid/leases.db")),
            "kernel.sh": network_script(daemon),
            "spool.json": json.dumps(frame_at(spool.read_text(), BOOT_NS)) + "\n",
            "heartbeat": " ".join(heartbeat),
        }
        return {name: names.settled(text) for name, text in sorted(files.items())}


def version(root: Path) -> str:
    """Return the version of a checkout."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def _frames(done: list[Exchange]) -> str:
    lines = []
    for one in done:
        raw = asdict(one)
        raw["sends"] = frame_at(one.sends, BOOT_NS) if one.sends else ""
        lines.append(json.dumps(raw))
    return "\n".join(lines) + "\n"


# A node as it was left -----------------------------------------------------------------
@contextlib.contextmanager
def restored(vpc: EmbeddedVPC, log: Path, release: Release) -> Iterator[Ipamd]:
    """Give a node as *release* left it, in a VPC that is new; no daemon runs."""
    with a_node(vpc, log) as daemon, contextlib.closing(release.database("journal")) as journal:
        _give_addresses(vpc, daemon.node, journal)
        names, node = Names(vpc, daemon.node), daemon.node
        for name in PODS:
            daemon.netns(name)
        script = names.here(release.text("kernel.sh"))
        node.run(["sh", "-ec", script])
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for folder in ("/run/enid/spool", "/var/lib/enid"):
            node.path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        made = _Made(names, now_ns, {container_id(n): daemon.netns(n).fd for n in PODS})
        made.database(release, "journal", node.path("/var/lib/enid/journal.db"))
        made.database(release, "leases", node.path("/run/enid/leases.db"))
        spooled = f"{container_id(SPOOLED.pod)}.eth0.{now_ns}"
        frame = frame_at(release.spooled, now_ns)
        (node.path("/run/enid/spool") / spooled).write_text(frame)
        heartbeat = names.here(release.text("heartbeat")).replace(str(BOOT_NS), str(now_ns), 1)
        node.path("/run/enid/heartbeat").write_text(heartbeat)
        yield daemon


def _give_addresses(vpc: EmbeddedVPC, node: Node, journal: sqlite3.Connection) -> None:
    """Have EC2 give the node the ENIs and addresses that the journal tells of."""
    rows = journal.execute(
        "SELECT eni_id, device_index, parameters FROM enis ORDER BY device_index"
    )
    for eni_id, index, parameters in rows.fetchall():
        told = json.loads(parameters)
        held = "SELECT block FROM blocks WHERE eni_id = ? AND state = 'held'"
        blocks = [block.partition("/")[0] for (block,) in journal.execute(held, (eni_id,))]
        names = Names(vpc, node)
        if index == 0:
            vpc.ec2.assign_private_ip_addresses(
                NetworkInterfaceId=names.real["eni-00000000000000001"], PrivateIpAddresses=blocks
            )
            continue
        tags = [{"Key": key, "Value": names.here(value)} for key, value in told["tags"]]
        primary = told["eni"]["primary"]
        made = vpc.ec2.create_network_interface(
            SubnetId=names.real["subnet-00000000000000001"],
            Groups=[names.real["sg-00000000000000001"]],
            Description=names.here(told["description"]),
            PrivateIpAddresses=[
                {"PrivateIpAddress": a, "Primary": a == primary} for a in (primary, *blocks)
            ],
            TagSpecifications=[{"ResourceType": "network-interface", "Tags": tags}],
        )["NetworkInterface"]["NetworkInterfaceId"]
        attached = vpc.ec2.attach_network_interface(
            NetworkInterfaceId=made, InstanceId=node.instance_id, DeviceIndex=index
        )
        vpc.ec2.modify_network_interface_attribute(
            NetworkInterfaceId=made,
            Attachment={"AttachmentId": attached["AttachmentId"], "DeleteOnTermination": True},
        )


@dataclass(frozen=True, slots=True)
class _Made:
    """Makes a release's files of this node and this moment."""

    names: Names
    now_ns: int
    netns: Mapping[str, int]

    def database(self, release: Release, name: str, path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.executescript(self.names.here(release.text(f"{name}.sql")))
            tables = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
            for (table,) in tables:
                self._date(db, table)
            if name == "leases":
                for container, fd in self.netns.items():
                    found = os.fstat(fd)
                    db.execute(
                        "UPDATE leases SET netns_dev = ?, netns_ino = ? WHERE container_id = ?",
                        (found.st_dev, found.st_ino, container),
                    )

    def _date(self, db: sqlite3.Connection, table: str) -> None:
        now = {WALL: time.time(), BOOT: self.now_ns / 1e9, BOOT_NS: self.now_ns}
        for _, column, *_ in db.execute(f"PRAGMA table_info({table})").fetchall():
            if (stands := COLUMNS.get(column)) in now:
                sql = f"UPDATE {table} SET {column} = ?"  # noqa: S608 - the same
                db.execute(sql, (now[stands],))
