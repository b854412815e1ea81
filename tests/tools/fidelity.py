"""What the embedded VPC models, from which source, and what it does not. Shell: it reads the tests.

The one table of the rows that `docs/fidelity.md` and `make fidelity` show. A test belongs to a row
by its marker, `@pytest.mark.row("CreateNetworkInterface")`, or its module's `pytestmark`; each row
has tests, each marker names a row (`tests/unit/test_fidelity.py`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests.tools.pure import ROOT


class Source(StrEnum):
    """How we know what AWS does."""

    SEEN = "seen"
    DOCUMENTED = "documented"
    REMEMBERED = "remembered"


SEEN, DOCUMENTED, REMEMBERED = Source


@dataclass(frozen=True, slots=True)
class Row:
    """One thing of AWS's: facts that are modelled, by their source, and what is not."""

    name: str
    section: str
    seen: str = ""
    documented: str = ""
    remembered: str = ""
    missing: str = ""

    def facts(self) -> Iterator[tuple[Source, str]]:
        """Yield what is modelled."""
        for source in Source:
            if text := getattr(self, source):
                yield source, text


API, PACKETS, IMDS = "Control plane", "Data plane", "IMDS"

ROWS = (
    # The control plane ---------------------------------------------------------------------
    Row(
        "DescribeInstanceTypes", API,
        seen="the data of 1,395 types, from moto's copy of EC2's answer",
        documented="MaxResults 5 to 100, not beside InstanceTypes",
        remembered="100 types a page for who asks for no size",
        missing="types newer than moto's copy",
    ),
    Row(
        "RunInstances", API,
        documented="addresses, prefixes and IPv6 of every ENI an instance is born with, which go"
        " with it by default; the default subnet where none is named; MaxCount instances, once a"
        " ClientToken; Hypervisor `xen` also for Nitro",
        remembered="a running instance has no StateReason; the text for an unknown type",
        missing="launch templates, ENIs that exist already, cards other than 0 at launch, MinCount"
        " as a way out, `pending`, stop and start",
    ),
    Row(
        "DescribeInstances", API,
        documented="its filters that a CNI uses, `network-interface.*` among them; pages; each ENI"
        " with prefixes, IPv6, card and attachment; PlatformDetails, SecurityGroups, names",
        missing="filters of volumes, capacity, placement groups and boot modes",
    ),
    Row(
        "CreateNetworkInterface", API,
        seen="`pending` in its own answer; InsufficientFreeAddressesInSubnet and"
        " InsufficientCidrBlocks with EC2's texts",
        documented="addresses outside the five reserved ones, once in a subnet; /28 and /80 prefixes"
        " from aligned free blocks; ClientToken; types `trunk`, `branch`, `efa`, `efa-only`;"
        " groups that are there; connection tracking as data",
        remembered="a freed address is given again last; MAC addresses that no other ENI has",
        missing="EnablePrimaryIpv6, Operator, the account's quota of ENIs",
    ),
    Row(
        "AttachNetworkInterface", API,
        seen="AttachmentLimitExceeded by type; a taken device index; an ENI that is in use",
        documented="cards with limits of their own; one zone; addresses within the type's slots;"
        " `attaching` for as long as `delays` says",
        remembered="the codes for another zone and for an instance that is going",
        missing="EnaQueueCount, EnaSrdSpecification, ENIs of another account's VPC",
    ),
    Row(
        "ModifyNetworkInterfaceAttribute", API,
        documented="DeleteOnTermination, groups, SourceDestCheck, Description, connection tracking;"
        " one a call",
        remembered="the error for two at once",
        missing="EnaSrdSpecification, EnablePrimaryIpv6, AssociatePublicIpAddress",
    ),
    Row(
        "AssignPrivateIpAddresses", API,
        seen="PrivateIpAddressLimitExceeded; `There aren't sufficient free Ipv4 addresses or"
        " prefixes` where there are too few, InsufficientCidrBlocks where no block is whole",
        documented="the answer names what is new only; prefixes take a slot each, of Nitro types;"
        " AllowReassignment in one subnet; reservations for prefixes first",
        remembered="what a reservation lacks comes from the rest; the texts for addresses that are"
        " in use or outside",
        missing="the seconds that a reassignment takes",
    ),
    Row(
        "UnassignPrivateIpAddresses", API,
        seen="the text for what is not assigned; the primary address is never given",
        documented="addresses and prefixes go back to the subnet; a public address leaves with its"
        " private one",
    ),
    Row(
        "AssignIpv6Addresses", API,
        documented="addresses and /80 prefixes, with slots of their own; answers name what is new;"
        " AssignIpv6AddressOnCreation; Unassign",
        remembered="Ipv6AddressLimitExceeded as the code past the limit",
        missing="primary IPv6 addresses, IPv6-only subnets",
    ),
    Row(
        "DescribeNetworkInterfaces", API,
        seen="the text for an ENI that is not there, the first of several; ids beside MaxResults",
        documented="every filter of the API's reference but Outposts', all of them with wildcards;"
        " pages of 5 to 1000; no Association without a public address",
        remembered="`The filter '…' is invalid`; names of hosts as with enableDnsHostnames",
        missing="the failure of unpaginated calls in large accounts",
    ),
    Row(
        "DescribeSubnets", API,
        documented="AvailableIpAddressCount less addresses, prefixes and reservations for prefixes;"
        " subnet CIDR reservations of both families; filters; pages",
        missing="the lag of the free count, by itself (`lag` is of ENIs)",
    ),
    Row(
        "DetachNetworkInterface", API,
        seen="the primary ENI cannot be detached",
        documented="`detaching` for as long as `delays` says; Force is at once",
        remembered="IncorrectState for a second Detach",
    ),
    Row(
        "DeleteNetworkInterface", API,
        seen="an ENI in use or detaching is refused; InvalidNetworkInterfaceID.NotFound afterwards",
    ),
    Row(
        "TerminateInstances", API,
        documented="an ENI goes along or becomes available, as its attachment says",
        remembered="one unknown instance keeps all from being terminated",
        missing="`shutting-down`; a terminated instance's record stays",
    ),
    Row(
        "DependencyViolation", API,
        documented="for a subnet with ENIs, a group that an ENI has, a VPC with subnets, gateways"
        " or groups, an internet gateway whose VPC has public addresses",
        missing="for a group that another group's rule names",
    ),
    Row(
        "Networks", API,
        documented="CreateTags and DeleteTags; VPCs with second CIDRs and IPv6; subnets, route"
        " tables, gateways, elastic addresses; security groups with rules, the default one's from"
        " itself; wrong CIDRs are refused and named",
        remembered="the codes for CIDRs that overlap or are too small, for tags of what is not there"
        " and of `aws:` keys",
        missing="routes other than default ones, network ACLs, peering, transit gateways,"
        " endpoints, DHCP options, private NAT gateways, IPAM",
    ),
    Row(
        "AssociateTrunkInterface", API,
        documented="trunk and branch associations with VLANs and ClientToken, as data: the branch"
        " is `associated`",
        missing="packets of branches (there is no VLAN device in every kernel), limits of branches"
        " by type, GRE",
    ),
    Row(
        "Malformed calls", API,
        seen="MissingParameter; a number out of its range",
        documented="InvalidNextToken; UnsupportedOperation names an action that is not modelled",
        remembered="the text for what is no number",
        missing="UnknownParameter: a name that is nobody's is ignored",
    ),
    Row(
        "Faults", API,
        seen="descriptions that lag; attaching and detaching that take time; answers that are lost"
        " after the deed",
        documented="RequestLimitExceeded; token buckets by action and for the account",
        remembered="HTTP 503 for it; latencies by action, with a median and a 99th percentile",
        missing="EC2's own sizes of buckets: `realistic` has what peers measured",
    ),
    Row(
        "IAM", API,
        seen="UnauthorizedOperation with HTTP 403, its sentence with caller, action and resource",
        documented="signatures and their age; a role's keys by IMDS, renewed hourly, or with a"
        " session's tags, as pods have them; identity-based policies about every resource of a call:"
        " see below",
        remembered="AuthFailure with HTTP 401; that a policy is asked before EC2 looks whether the"
        " resource is there",
        missing="STS, policies on resources, boundaries, session and service control policies",
    ),
    # IMDS ----------------------------------------------------------------------------------
    Row(
        "IMDS: the tree", IMDS,
        documented="the categories of the user guide's table, per ENI and per instance; folders end"
        " in a slash; 404 for what an instance has not; tags where they are enabled; user data;"
        " the identity document",
        remembered="the order of lists; `ipv4-prefix`; `events/maintenance/*` is `[]`",
        missing="public keys, product codes, signatures; a version's own set of keys",
    ),
    Row(
        "IMDS: tokens", IMDS,
        documented="PUT with a time to live of 1 to 21600 s; 400, 401, 403, also of a service that is"
        " turned off; HttpTokens, HttpEndpoint, HttpProtocolIpv6; not for what was forwarded",
        missing="silence on IPv6 where it is not enabled: the lab says 403",
    ),
    Row(
        "IMDS: spot and lifecycle", IMDS,
        documented="`spot/*`, `events/recommendations/rebalance`,"
        " `autoscaling/target-lifecycle-state` are there once `imds.say` has said them",
        missing="Auto Scaling groups: a node is in none, and has no lifecycle state until it is"
        " said (`InService`, as in a group)",
    ),
    Row(
        "IMDS: stale and short", IMDS,
        seen="lists of ENIs and addresses that are late, short or name what is gone, each key by"
        " itself; bursts of 5xx and 429",
        missing="the limit of requests per ENI",
    ),
    # The data plane ------------------------------------------------------------------------
    Row("hot-plug", PACKETS,
        documented="an attached ENI is a link with its MAC, MTU 9001, down until it is raised"),
    Row("names of links", PACKETS,
        seen="ens5, ens6; or names that say nothing, as other images give",
        remembered="enp1s6 of card 1",
        missing="udev's renaming a second later"),
    Row("pod to pod across nodes", PACKETS,
        documented="an address of an ENI is delivered though it is on no interface of the node"),
    Row("pods and nodes", PACKETS,
        documented="pod to remote node, to its own node, node to remote pod, node to its own pod"),
    Row("pod to internet", PACKETS,
        documented="seen as the node's public address: 1:1 NAT at the internet gateway, both ways"),
    Row("without SNAT", PACKETS,
        documented="an address without a public one gets nothing through an internet gateway"),
    Row("unassigned source", PACKETS, documented="dropped in silence"),
    Row("another ENI's address", PACKETS, documented="as a source of a node that lacks it: dropped"),
    Row("wrong ENI of its own node", PACKETS,
        documented="a pod's packets that leave by another ENI than its address's: dropped"),
    Row("forged MAC", PACKETS, remembered="a frame with another MAC than the ENI's: dropped"),
    Row("unassigned destination", PACKETS,
        remembered="no ARP reply in the own subnet, silence elsewhere"),
    Row("ARP of the router", PACKETS,
        documented="the subnet's first address answers, and so does every owned address",
        remembered="the router takes nothing from a packet's time to live",
        missing="peers' own MACs: the router answers for all"),
    Row("path MTU in the VPC", PACKETS,
        documented="9001: `ping -M do -s 8973` passes, 8974 does not"),
    Row("path MTU at the internet gateway", PACKETS,
        documented="1500: what is larger and may not be cut is answered with ICMP and that MTU"),
    Row("IMDS hop limit", PACKETS,
        documented="a token's answer goes HttpPutResponseHopLimit hops: 1 ends at the host, 2"
        " reaches a pod"),
    Row("unassign and assign", PACKETS,
        remembered="at once, for the address that leaves and for the one that comes",
        missing="the second that EC2 takes"),
    Row("delegated prefix", PACKETS,
        documented="every address of a /28 or /80 is delivered to its ENI and may be a source"),
    Row("SourceDestCheck", PACKETS, documented="off: an ENI may send as anyone; on again: dropped"),
    Row("detach", PACKETS, documented="the link goes with its routes; who sends to it hears nothing"),
    Row("IPv6", PACKETS,
        documented="between nodes, pods and the internet, without NAT, with the same checks",
        missing="router advertisements: the lab configures a node's default route"),
    Row("security groups", PACKETS,
        documented="ingress and egress rules by protocol, port, CIDR or group; replies pass; several"
        " groups allow together",
        missing="prefix lists; time-outs of tracked connections; untracked ones, which end with"
        " the rule that allowed them"),
    Row("NAT gateway", PACKETS,
        documented="a private subnet is seen as its gateway's public address, and is not found"),
    Row("egress-only gateway", PACKETS, documented="IPv6 goes out and is answered; nothing comes in"),
    Row("route tables", PACKETS,
        documented="a subnet's own table or the main one says where its default route leads",
        missing="routes other than default ones"),
    Row("others' CNIs", PACKETS,
        seen="the CNI project's plugins run unchanged, with addresses that EC2 assigned: below",
        missing="CNIs that need VLAN devices"),
)  # fmt: skip

TEXTS = (
    ("AttachmentLimitExceeded", "Interface count 4 exceeds the limit for m5.large", SEEN,
     "cilium/cilium#8830"),
    ("DependencyViolation", "Network vpc-… has some mapped public address(es). …", REMEMBERED, ""),
    ("IncorrectState", "… is currently 'detaching'", REMEMBERED, ""),
    ("InsufficientCidrBlocks", "The specified subnet does not have enough free cidr blocks to satisfy the request.", SEEN, "aws/amazon-vpc-cni-k8s"),
    ("InsufficientFreeAddressesInSubnet", "The specified subnet does not have enough free addresses to satisfy the request.", SEEN, "aws/amazon-vpc-cni-k8s#1773"),
    ("InvalidIPAddress.InUse", "The address … is in use", REMEMBERED, ""),
    ("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID 'eni-…' does not exist", SEEN,
     "aws/amazon-vpc-cni-k8s#307"),
    ("InvalidParameterCombination", "The parameter networkInterfaceSet cannot be used with the parameter maxResults", SEEN, "aws/aws-cli#1976, of volumes"),
    ("InvalidParameterValue", "Network interface 'eni-…' is currently in use.", SEEN,
     "aws/amazon-vpc-cni-k8s#1399"),
    ("InvalidParameterValue", "Instance 'i-…' already has an interface attached at device index '2'.", SEEN, "logs of CNIs"),
    ("InvalidParameterValue", "Some of the specified addresses are not assigned to interface eni-…",
     SEEN, "logs of CNIs"),
    ("InvalidParameterValue", "There aren't sufficient free Ipv4 addresses or prefixes", SEEN,
     "cilium/cilium#31016, aws/amazon-vpc-cni-k8s#3105"),
    ("InvalidParameterValue", "Value ( 1 ) for parameter maxResults is invalid. Expecting a value greater than or equal to 5.", SEEN, "aws/aws-sdk-kotlin#1016"),
    ("MissingParameter", "The request must contain the parameter …", SEEN, "floci-io/floci#2094"),
    ("OperationNotPermitted", "The network interface at device index 0 and networkCard index 0 cannot be detached.", SEEN, "redhat-performance/cloud-governance#952"),
    ("PrivateIpAddressLimitExceeded", "eni-…: Number of private addresses will exceed limit.", SEEN,
     "logs of CNIs"),
    ("RequestLimitExceeded", "Request limit exceeded.", REMEMBERED, "with HTTP 503; the code is documented"),
)  # fmt: skip
"""Errors whose texts callers read; the lab adds ids and numbers in brackets at some."""


def marked() -> dict[str, set[str]]:
    """Return the tests of each row, or the modules whose `pytestmark` names it."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        for node in tree.body:
            names = set(_names(node))
            where = f"{path.stem}::{node.name}" if isinstance(node, ast.FunctionDef) else path.stem
            for name in names:
                found.setdefault(name, set()).add(where)
    return found


def _names(node: ast.stmt) -> Iterator[str]:
    """Yield the rows that the markers in a statement name."""
    for below in ast.walk(node):
        if isinstance(below, ast.Call) and ast.unparse(below.func) == "pytest.mark.row":
            yield from (str(a.value) for a in below.args if isinstance(a, ast.Constant))


# The page ------------------------------------------------------------------------------------
ABOUT = {
    API: "moto keeps VPCs, instances, tags and the wire protocol; ENIs, addresses, limits and errors"
    " are ours (`vpclab/ec2/`).",
    IMDS: "A service of our own (`vpclab/imds.py`, `vpclab/metadata.py`); which instance asks is told"
    " by the source address, which the fabric has checked.",
    PACKETS: "Packets between network namespaces, routed (`vpclab/fabric.py`, `vpclab/gates.py`)."
    " What is dropped is counted by cause: `EmbeddedVPC.drops()`.",
}

HEAD = """\
# What the lab shows of AWS

The embedded VPC (`vpclab`) is a model. This page says what it models, how we know, and what it
does not; why it is built so is [ADR 0005](adr/0005-routed-fabric-over-moto.md). It is made by
`python -m tests.tools.references` from the table that the tests are held against.

    make fidelity      one line for each row below: its tests have just passed, or not

How we know:

- **seen**: in public logs, issues or code, where EC2's own words are quoted;
- **documented**: in the EC2 API reference, the EC2 or the VPC user guide, or botocore's model;
- **remembered**: by people who have used it. Nobody has compared: be careful.

Nothing here was compared with a real account yet: the contract tests use boto3 only, so that they
could be."""

TAIL = """\
## IAM

Without a policy whoever calls may do everything, with any keys. With one (`EmbeddedVPC.restrict`,
`enid lab up --policy`) calls are signed and asked about, resource by resource
([ADR 0008](adr/0008-the-lab-evaluates-iam-itself.md)).

| part | modelled | source |
| --- | --- | --- |
| elements | Effect, Action, NotAction, Resource, NotResource, Condition, Sid; versions 2012-10-17 and 2008-10-17; an explicit Deny wins | documented: IAM User Guide |
| operators | StringEquals, StringLike and theirs with Not and IgnoreCase; ArnEquals, ArnLike and theirs with Not; Bool; Null; IfExists; ForAllValues, ForAnyValue | documented |
| variables | `${key}` of a key below with one value, with a default; `${*}`, `${?}`, `${$}` | documented |
| keys | aws:ResourceTag, aws:RequestTag, aws:PrincipalTag, aws:TagKeys, ec2:ResourceTag, ec2:Subnet, ec2:SubnetID, ec2:Vpc, ec2:VpcID, ec2:AvailabilityZone, ec2:InstanceID, ec2:InstanceType, ec2:NetworkInterfaceID, ec2:SecurityGroupID, ec2:CreateAction, ec2:AssociatePublicIpAddress, ec2:SourceInstanceARN, ec2:Region, aws:RequestedRegion, aws:PrincipalArn, aws:ViaAWSService, aws:SecureTransport (said to be true) | documented: Service Authorization Reference |
| | aws:ARN and ec2:ARN, the resource's own ARN | seen in public policies (the first), remembered |
| resources of a call | as the reference lists them; a new resource has a star for its id and the request's tags; tags at creation are asked about as CreateTags, too | documented |
| a variable without a value in a negated comparison, or in NotResource | an Allow does not apply | ours: the guide does not say |
| anything else | an error when the policy is read | ours |

The managed AmazonEKS_CNI_Policy and [our two policies](iam.md) are cases. On 6,000 random policies the
evaluator was compared with an independent one (npm's @cloud-copilot/iam-simulate 0.1.173, once, by hand, on
26 November 2026): 21 verdicts differ, 11 for the row above on variables, and 10 because it does not take
`${*}` for a star.

## What others do in it

| what | how | |
| --- | --- | --- |
| the CNI project's `ptp`, `bridge`, `host-device`, `sbr` with `static` and `host-local` | in every run of the tests, where they are installed | [others.md](others.md) |
| the AWS VPC CNI 1.23.1, unchanged, with kube-apiserver 1.34 and containerd | once, by hand | [others.md](others.md) |
| enid's own daemon and plugin | the demo and the tests | |

## Limits

- One region, one account, one VPC with packets; other VPCs are data.
- State is in memory, and gone with the process.
- The kernel is this machine's: what it lacks (VLAN devices, netem) the lab lacks. There is no loss
  and no bandwidth limit on a wire; time on it is microseconds.
- About 400 pods before the kernel's neighbour table, one for all namespaces, is full
  (`net.ipv4.neigh.default.gc_thresh3`).
- Not there at all: flow logs, load balancers, DNS (169.254.169.253), NTP, VPC endpoints, peering,
  Auto Scaling, quotas of an account, ENA's allowances and queues.

## What a routed fabric cannot show

Each ENI has a wire of its own to the VPC's router: there is no bridge (ADR 0005). So

- a frame to another ENI's MAC with a foreign destination address inside a subnet is not delivered,
  as Calico without encapsulation would send with the source check off; a CNI that uses the VPC's
  own addresses sends none;
- ARP shows the router's MAC for every neighbour, where EC2 shows the neighbour's;
- broadcast and multicast reach nobody, which is so on EC2, too."""


def render() -> Iterator[str]:
    """Yield the lines of `docs/fidelity.md`."""
    yield HEAD
    for section, about in ABOUT.items():
        yield ""
        yield f"## {section}"
        yield ""
        yield about
        yield ""
        yield "| row | modelled | not modelled |"
        yield "| --- | --- | --- |"
        for row in _of(section):
            facts = "<br>".join(f"**{source}**: {text}" for source, text in row.facts())
            yield f"| {row.name} | {facts} | {row.missing} |"
        if section == API:
            yield ""
            yield "Errors whose texts callers read:"
            yield ""
            yield "| code | text | source |"
            yield "| --- | --- | --- |"
            for code, text, source, where in TEXTS:
                yield f"| `{code}` | {text} | {source}{f': {where}' if where else ''} |"
    yield ""
    yield TAIL


def _of(section: str) -> Iterable[Row]:
    return (row for row in ROWS if row.section == section)
