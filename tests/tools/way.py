"""What is captured for `docs/how-a-pod-gets-its-address.md`, and how two captures compare. Shell (reads the page).

`tests.e2e.way` makes the cluster and captures. Every block of the page that shows output has its
look's name above it:

    <!-- captured: rules -->
    ```console
    node-a$ ip rule
    0:	from all lookup local

The page shows one run as it was. Another run has other addresses, names and times: two are the same
if they are so once each of these is its kind and a number, in the order in which they first appear,
so an address must be *that pod's* wherever it is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "how-a-pod-gets-its-address.md"

BLOCK = re.compile(
    r"^<!-- captured: (?P<name>[\w-]+) -->\n```console\n(?P<place>[\w-]+)\$ (?P<command>.+)\n"
    r"(?P<output>(?:.*\n)*?)```$",
    re.MULTILINE,
)
CONSOLE = re.compile(r"^```console$", re.MULTILINE)
FILE = re.compile(r"^```(?:yaml|python|nft)\n(# (\S+)\n.*?)^```$", re.MULTILINE | re.DOTALL)


NAME = re.compile(r"\{\w+\}")
OPEN, CLOSE = "\x01", "\x02"
"""Braces that are the command's own, while names are looked for."""

ARGS = re.compile(r"(?<=^CNI_ARGS=).*$", re.MULTILINE)
"""They come in no order."""

ENDPOINTS = re.compile(r"<address\d+>(?:,<address\d+>)+")
"""Nor do these."""


@dataclass(frozen=True, slots=True)
class Look:
    """One command at a place; {names} stand for what the run has.

    A command that is a comment is the script's own look. *counts*: how many of something there
    are depends on who came first, and is not compared.
    """

    name: str
    place: str
    command: str
    counts: bool = False

    @property
    def pattern(self) -> re.Pattern[str]:
        """What the command can be, with names in it."""
        parts = NAME.split(self.command.replace("{{", OPEN).replace("}}", CLOSE))
        text = r"\S+".join(re.escape(part) for part in parts)
        return re.compile(text.replace(OPEN, r"\{").replace(CLOSE, r"\}"))


TCPDUMP = "tcpdump -c 2 -tnei"
SYN = "tcp[13] & 2 != 0"

LOOKS = (
    Look("fleet", "admin", "kubectl get nodenetworks", counts=True),
    Look("apply", "admin", "kubectl apply -f hello.yaml"),
    Look("scheduled", "admin", "kubectl get events --field-selector involvedObject.name={a},reason=Scheduled -o custom-columns=BY:.reportingComponent,WHAT:.message"),
    Look("runtime", "node-a", "grep {a} /var/log/containerd.log"),
    Look("conflist", "node-a", "cat /etc/cni/net.d/05-enid.conflist"),
    Look("frame", "node-a", "# what enid-cni wrote to /run/enid/ipamd.sock"),
    Look("answer", "node-a", "# and what it was answered: its exit status, and what it prints (in one line)"),
    Look("log", "admin", "kubectl logs -n kube-system {enid} -c ipamd | grep {a}"),
    Look("status", "admin", "kubectl exec -n kube-system {enid} -c ipamd -- enid status | grep -e ' ENI ' -e ' of 9 '", counts=True),
    Look("lease", "node-a", "sqlite3 -line /run/enid/leases.db \"select * from leases join leased on lease = id where address = '{ip_a}'\""),
    Look("journal", "node-a", "sqlite3 -line /var/lib/enid/journal.db \"select block, eni_id, blocks.state as of_block, device_index, enis.state as of_eni from blocks join enis using (eni_id) where block = '{ip_a}/32'\""),
    Look("pod-address", "admin", "kubectl exec {a} -- ip addr show eth0"),
    Look("pod-routes", "admin", "kubectl exec {a} -- ip route"),
    Look("pod-neighbours", "admin", "kubectl exec {a} -- ip neigh"),
    Look("route", "node-a", "ip route show table 5120 {ip_a}"),
    Look("veth", "node-a", "ip link show {veth_a}"),
    Look("rules", "node-a", "ip rule"),
    Look("eni-table", "node-a", "ip route show table 2"),
    Look("leave", "node-a", "nft list chain ip enid leave"),
    Look("eni", "node-a", "python3 eni_of.py {ip_a}", counts=True),
    Look("record", "admin", "kubectl get nodenetwork node-a -o jsonpath='{{range .status.enis[*]}}{{.number}}  {{.id}}  {{.cidrs}}{{\"\\n\"}}{{end}}'", counts=True),
    Look("pod-ips", "admin", "kubectl get pod {a} -o jsonpath='{{.status.podIPs}}'"),
    Look("pod", "admin", "kubectl describe pod {a} | sed -n '/^Status/,/^Controlled/p; /^Events/,$p'"),
    Look("times", "node-a", "# how long that took, and its share of the whole"),
    Look("service", "admin", "kubectl get service,endpointslices -l app=hello"),
    Look("ask", "admin", "kubectl exec {a} -- wget -qO- http://{service}/cgi-bin/who"),
    Look("at-veth-a", "node-a", f"{TCPDUMP} {{veth_a}} '{SYN} and host {{service}}'"),
    Look("trace", "node-a", "nft monitor trace"),
    Look("decided", "node-a", "ip route get {ip_b} from {ip_a} iif {veth_a} mark 2"),
    Look("at-eni-a", "node-a", f"{TCPDUMP} ens6 '{SYN} and host {{ip_b}}'"),
    Look("at-vpc", "vpc", f"tcpdump -c 4 -tnei any '{SYN} and host {{ip_a}} and host {{ip_b}}'"),
    Look("vpc-route", "vpc", "ip route show table all {ip_b}"),
    Look("at-eni-b", "node-b", f"{TCPDUMP} ens5 '{SYN} and host {{ip_a}}'"),
    Look("route-b", "node-b", "ip route get {ip_b} from {ip_a} iif ens5"),
    Look("at-veth-b", "node-b", f"{TCPDUMP} {{veth_b}} '{SYN} and host {{ip_a}}'"),
    Look("back-b", "node-b", "ip route get {ip_a} from {ip_b} iif {veth_b}"),
    Look("trace-back", "node-a", "nft monitor trace"),
    Look("known-a", "node-a", "conntrack -L -s {ip_a} -d {service}"),
    Look("known-b", "node-b", "conntrack -L -s {ip_a} -d {ip_b}"),
    Look("direct", "admin", "kubectl exec {a} -- wget -qO- http://{ip_b}:8080/cgi-bin/who"),
    Look("direct-known", "node-a", "conntrack -L -s {ip_a} -d {ip_b}"),
    Look("out", "admin", "kubectl exec {a} -- ping -c 1 203.0.113.1"),
    Look("out-trace", "node-a", "nft monitor trace"),
    Look("out-veth", "node-a", f"{TCPDUMP} {{veth_a}} icmp"),
    Look("out-eni", "node-a", f"{TCPDUMP} ens5 'icmp and host 203.0.113.1'"),
    Look("out-internet", "internet", "tcpdump -c 2 -tni any icmp"),
    Look("out-known", "node-a", "conntrack -L -s {ip_a} -p icmp"),
    Look("drops", "vpc", "# what the VPC has dropped of all this"),
    Look("waits", "admin", "kubectl describe pod one-more | grep -e ^Name: -e ^Status: -e Reason -e ' default-scheduler ' -e ' enid '"),
    Look("full", "admin", "kubectl describe node node-a | grep PodAddressesAvailable"),
)  # fmt: skip
"""All, in the order of the page."""

CUT = (
    (r"^trace id \w+ ip way .*\n", ""),
    (r"(packet: .*?) ether saddr .*? ip saddr", r"\1 … ip saddr"),
    (r"(packet: .*?) ip dscp .*? ip ttl", r"\1 … ip ttl"),
    (r"(packet: .*?) ip id \d+ .*? (tcp sport|icmp type)", r"\1 … \2"),
    (r"(packet: .*?) (?:tcp flags|icmp code) .*$", r"\1 …"),
    (r" +counter packets \d+ bytes \d+", ""),
    (r"(Flags \[\S+\]),.*", r"\1 …"),
    (r", length \d+: (?=\d)", ": "),
    (r"^conntrack v.*\n", ""),
    (r"[ \t]+$", ""),
)
"""What nobody needs to see of a line, in all blocks."""

KINDS: Mapping[str, str] = {
    "time": r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z?",
    "number": r"\b\d+\.\d{4,}\b|\b\d\.\d+e-\d+\b|(?<=since = )[\d.]+",
    "uid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "sandbox": r"\b[0-9a-f]{64}\b",
    "id": r"\b(?:eni|i|subnet)-[0-9a-f]{17}\b",
    "short": r"\beni-[0-9a-f]{12}(?=…)",
    "mac": r"\b[0-9a-f]{2}(?::[0-9a-f]{2}){5}\b",
    "link": r"\bfe80:[0-9a-f:]+",
    "address": r"\b\d{1,3}(?:\.\d{1,3}){3}\b",
    "veth": r"\beni[0-9a-f]{11}\b",
    "port": r"\be-[0-9a-f]{12}\b",
    "pod": r"\bhello-[0-9a-f]{6,10}-[a-z0-9]{5}\b",
    "slice": r"\bhello-[a-z0-9]{5}\b",
    "daemon": r"\benid-[a-z0-9]{5}\b",
    "chain": r"\bKUBE-(?:SEP|SVC)-[A-Z0-9]{16}\b",
    "trace": r"(?<=trace id )[0-9a-f]+",
    "ping": r"(?<=\bid[ =])\d+\b",
    "tcp": r"\b(?:32[7-9]\d\d|3[3-9]\d{3}|[45]\d{4}|60\d{3})\b(?!:\t)",
}
"""What another run has others of; the same value is the same thing wherever it is. (A number of 32768
to 60999 is a client's port, but for the preferences of rules, which a colon and a tab follow.)"""

NAMELESS = ("time", "number")
"""Kinds whose values are no things."""

VARYING = (
    (r"(?<=^enid1 )[\d ]+", "<n>"),
    (
        r"(?<=@if)\d+|(?<=ifindex )\d+|(?<=started_ns = )\d+|(?<=netns_ino = )\d+|(?<= id = )\d+|(?<=lease = )\d+",
        "<n>",
    ),
    (r"^\d+: (?=\S+@)", ""),
    (r" link-netns(?:id)? \S+", ""),
    (r"(?<=^tcp      6 )\d+|(?<=^icmp     1 )\d+", "<n>"),
    (
        r"\b[\d.]+/[\d.]+/[\d.]+ ms|\b\d+(?:\.\d+)? ?ms\b|\b\d+\.\d %|\b(?:\d+[hm])*\d+[hms]\b",
        "<took>",
    ),
    (r"(?<= )-+(?= )", "-"),
    (r"[ \t]+", " "),
)
"""What nothing else depends on: counters, indexes, how long something took or is ago, columns' widths."""

LIST = re.compile(r"\[[^]*]+\]")
COUNTS = ((r"[█▒·]+", "<bar>"), (r"(?<![<\w.])\d+(?![\w.>])", "<n>"))


def settled(text: str) -> str:
    """Return *text* without what nobody needs to see of it."""
    for pattern, word in CUT:
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return text.strip("\n") + "\n"


def block(look: Look, command: str, output: str) -> str:
    """Return the block as the page has it."""
    return f"<!-- captured: {look.name} -->\n```console\n{look.place}$ {command}\n{output}```"


def rewritten(page: str, blocks: Mapping[str, str]) -> str:
    """Return *page* with each of its blocks as it is in *blocks*."""
    return BLOCK.sub(lambda found: blocks[found["name"]], page)


def files(page: str) -> dict[str, str]:
    """Return the page's files by name: blocks whose first line is a comment that is their name."""
    return {name: text for text, name in FILE.findall(page)}


def shape(page: str) -> list[str]:
    """Return the lines of all captured blocks, with kinds and numbers for what varies."""
    return list(_shape(page))


def _shape(page: str) -> Iterator[str]:
    seen: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
    values = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in KINDS.items()))
    counting = {look.name for look in LOOKS if look.counts}

    def kind(found: re.Match[str]) -> str:
        name = str(found.lastgroup)
        if name in NAMELESS:
            return f"<{name}>"
        return f"<{name}{seen[name].setdefault(found[0], len(seen[name]) + 1)}>"

    for found in BLOCK.finditer(page):
        text = f"{found['place']}$ {found['command']}\n{found['output']}"
        text = ARGS.sub(lambda args: ";".join(sorted(args[0].split(";"))), text)
        varying: tuple[tuple[str, str], ...] = VARYING
        if found["name"] in counting:
            text, varying = LIST.sub("<list>", text), (*VARYING, *COUNTS)
        text = values.sub(kind, text)
        text = ENDPOINTS.sub(lambda each: ",".join(sorted(each[0].split(","))), text)
        for pattern, word in varying:
            text = re.sub(pattern, word, text, flags=re.MULTILINE)
        yield f"[{found['name']}]"
        yield from text.splitlines()
