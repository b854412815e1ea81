"""Every setting there is, the peer's and ours, and its fate. Pure.

One table: what is read, what `docs/settings.md` is made from, what `enid settings` shows and
what a complaint quotes. Every variable of the AWS VPC CNI has a row, also those that we do
not honour: whoever brings their environment along learns what becomes of each. Long, because
it is a table.

The rule to keep: a row says what is true today. What is refused is what would weaken
isolation, or break traffic without a word, if it were ignored (docs/adr/0012).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ipamd.kinds import (
    CLUSTER,
    NODE_KEY,
    PATH,
    PREFIX,
    SUBNETS,
    URL,
    Bit,
    Boolean,
    Choice,
    Cidrs,
    Kind,
    Tags,
    Text,
    Value,
    Whole,
)
from ipamd.settings import ENI_CONFIG_KEY, NO_TAGS, Settings


class Fate(StrEnum):
    """What becomes of a setting."""

    HONOURED = "honoured"
    DIFFERENT = "honoured, with a difference"
    NO_EFFECT = "accepted without effect"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Condition:
    """When a setting has no effect, though it is honoured; *when* ends "no effect: "."""

    when: str
    holds: Callable[[Settings, Value], bool]


@dataclass(frozen=True, slots=True)
class Lenient:
    """What an environment that comes from the peer may say, though it is not valid: *pattern*.

    The peer runs with it, so that a swapped DaemonSet must start: *value* holds, and a warning
    says so by *words*.
    """

    pattern: str
    value: Value
    words: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable. *peer* is the peer's default as it writes it, None if it has none such.

    *why* is the reason of its fate: the difference, why it has no effect, why it is refused.
    *accepted* are values of a REFUSED setting that are taken without effect, with a warning;
    *lenient* are texts of the environment that are no values, and are taken for one.
    *restart*: read at start only. *pinned*: only the environment may set it, since it belongs
    to one node. *silent*: never warned about, because whoever sets it means somebody else.
    *adr* explains a default that is not the peer's.
    """

    name: str
    section: str
    kind: Kind
    fate: Fate
    meaning: str
    field: str = ""
    default: Value = None
    peer: str | None = ""
    why: str = ""
    idle: tuple[Condition, ...] = ()
    accepted: tuple[str, ...] = ()
    lenient: tuple[Lenient, ...] = ()
    restart: bool = False
    pinned: bool = False
    silent: bool = False
    adr: str = ""

    def taken(self, text: str) -> Lenient | None:
        """Return what holds in place of a *text* that is not valid, None if nothing does."""
        return next((way for way in self.lenient if re.fullmatch(way.pattern, text)), None)

    def idle_reason(self, settings: Settings, value: Value) -> str:
        """Return why *value* has no effect beside *settings*; "" if it has one."""
        return next((c.when for c in self.idle if c.holds(settings, value)), "")


HONOURED, DIFFERENT, NO_EFFECT, REFUSED = Fate

POOL = "How much is held ready"
EC2 = "ENIs and EC2"
NETWORKS = "Subnets and custom networking"
FAMILY = "IP families"
SNAT = "Source addresses and marks"
LINKS = "Links and the plugin"
SECURITY = "Security groups and network policies"
TOLD = "What Kubernetes is told"
DAEMON = "The daemon"
HELPER = "The peer's metrics helper"

# When a setting has no effect ----------------------------------------------------------
ZERO = Condition("0 means not set", lambda _, value: value == 0)
AS_SHIPPED = Condition(
    "ENID_POOL=demand, where 1, which the peer's manifest sets for everybody, counts as not set",
    lambda s, value: s.demand and value == 1,
)
BY_ADDRESS = Condition(
    "WARM_IP_TARGET or MINIMUM_IP_TARGET is set and rules", lambda s, _: s.by_address
)
WITH_PREFIXES = Condition(
    "ENABLE_PREFIX_DELEGATION=true: WARM_PREFIX_TARGET or the IP targets rule where the type takes"
    " prefixes",
    lambda s, _: s.prefix_delegation,
)
WITHOUT_PREFIXES = Condition("ENABLE_PREFIX_DELEGATION=false", lambda s, _: not s.prefix_delegation)
OVERRULED = Condition(
    "a target is set and rules", lambda s, value: value == "demand" and not s.demand
)
NOT_PROVISIONING = Condition(
    "nothing is provisioned: DISABLE_NETWORK_RESOURCE_PROVISIONING or ENABLE_IMDS_ONLY_MODE",
    lambda s, _: not s.provisioning,
)
IMDS_ONLY = Condition("ENABLE_IMDS_ONLY_MODE=true", lambda s, _: s.imds_only)
CUSTOM = Condition(
    "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true: the ENIConfig names the subnet",
    lambda s, _: s.custom_networking,
)
NOT_CUSTOM = Condition(
    "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=false", lambda s, _: not s.custom_networking
)
EXTERNAL_SNAT = Condition("AWS_VPC_K8S_CNI_EXTERNALSNAT=true", lambda s, _: s.external_snat)
NO_METRICS = Condition("DISABLE_METRICS=true", lambda s, _: not s.metrics)
NO_CLUSTER = Condition("MY_NODE_NAME is not set", lambda s, _: not s.node_name)
NO_EXHAUSTED = Condition("ENID_EXHAUSTED_TAINT is not set", lambda s, _: not s.exhausted_taint)
NAMED_SUBNETS = Condition("ENID_SUBNETS names the subnets", lambda s, _: bool(s.subnets))

# The decisions that explain a default which is not the peer's ---------------------------
DEMAND = "0010-demand-is-the-default"
IGNORED = "0012-what-cannot-be-ignored-is-refused"
LOGS = "0013-info-to-stderr"
WAITING = "0014-so-many-may-wait"
WIRE = "0021-settings-of-the-wire"
RECORD = "0038-a-record-of-each-nodes-blocks"
TOLD_BY_US = "0039-what-a-node-says-of-its-addresses"
METRICS = "0030-the-metrics-port-answers-anybody"

TARGET = (NOT_PROVISIONING, ZERO)
BOOLEAN = Boolean()
NO_POLICY = "network policies are not enforced yet"


SETTINGS: tuple[Setting, ...] = (
    # How much is held ready ------------------------------------------------------------
    Setting(
        "ENID_POOL", POOL, Choice(("demand", "fixed")), HONOURED,
        "demand: as much as the pods on the node need, and headroom learned from recent arrivals."
        " fixed: what the targets say; without one, WARM_ENI_TARGET=1 or, with prefixes,"
        " WARM_PREFIX_TARGET=1. Not set: demand, unless a target is set.",
        field="demand", peer=None, idle=(NOT_PROVISIONING, OVERRULED),
    ),
    Setting(
        "WARM_ENI_TARGET", POOL, Whole("ENIs"), HONOURED,
        "Keep this many ENIs' worth of addresses free.",
        field="warm_eni_target", peer="1", adr=DEMAND,
        idle=(NOT_PROVISIONING, WITH_PREFIXES, BY_ADDRESS, AS_SHIPPED),
    ),
    Setting(
        "WARM_IP_TARGET", POOL, Whole("addresses"), HONOURED,
        "Keep this many addresses free; more are asked for, and surplus given back, one by one.",
        field="warm_ip_target", idle=TARGET,
    ),
    Setting(
        "MINIMUM_IP_TARGET", POOL, Whole("addresses"), HONOURED,
        "Hold at least this many addresses, used or not.",
        field="minimum_ip_target", idle=TARGET,
    ),
    Setting(
        "WARM_PREFIX_TARGET", POOL, Whole("prefixes"), HONOURED,
        "Keep this many /28 prefixes wholly free.",
        field="warm_prefix_target", peer="1", adr=DEMAND,
        idle=(NOT_PROVISIONING, WITHOUT_PREFIXES, BY_ADDRESS, AS_SHIPPED),
    ),
    Setting(
        "ENABLE_PREFIX_DELEGATION", POOL, BOOLEAN, DIFFERENT,
        "Ask for /28 prefixes, 16 addresses in the place of one.",
        field="prefix_delegation", default=False, peer="false",
        why="a subnet without a free /28 gives single addresses until it has one again; on a type"
        " that takes no prefixes WARM_ENI_TARGET rules, and a warning says so",
        idle=(NOT_PROVISIONING,),
    ),
    Setting(
        "IP_COOLDOWN_PERIOD", POOL, Whole("seconds"), DIFFERENT,
        "A released address goes to no other pod for this long, so that peers forget it.",
        field="cooldown_seconds", default=30, peer="30",
        why="it holds over a restart, and cooling addresses never count as free",
    ),
    Setting(
        "MAX_ENI", POOL, Whole("ENIs", 1), HONOURED,
        "Attach at most this many ENIs, the primary included; the instance type's limit holds"
        " as well. 0 in the environment counts as not set.",
        field="max_eni", idle=(NOT_PROVISIONING,),
        lenient=(Lenient("0", None, "not set is taken"),),
    ),
    Setting(
        "ENID_MAX_PODS", POOL, Whole("pods", 1, 1000), HONOURED,
        "Hold addresses for at most this many pods. Not set: the node's capacity, where a cluster"
        " tells it; else what the instance type takes.",
        field="max_pods", peer=None,
    ),
    Setting(
        "ADD_WAITING_MAX", POOL, Whole("pods", 1, 1000), HONOURED,
        "So many pods wait for an address at once; the next are told to try again, at once."
        " A plugin that waits costs 2.4 MB: less on nodes with little memory.",
        field="add_waiting_max", default=64, peer=None, adr=WAITING,
    ),
    # ENIs and EC2 ----------------------------------------------------------------------
    Setting(
        "DISABLE_NETWORK_RESOURCE_PROVISIONING", EC2, BOOLEAN, HONOURED,
        "Create, attach, assign and give back nothing; serve what is there.",
        field="provisioning", default=False, peer="false", idle=(IMDS_ONLY,),
    ),
    Setting(
        "ENABLE_IMDS_ONLY_MODE", EC2, BOOLEAN, HONOURED,
        "No EC2 call at all: what IMDS tells is all there is, and nothing is provisioned.",
        field="imds_only", default=False, peer="false", restart=True,
    ),
    Setting(
        "DISABLE_LEAKED_ENI_CLEANUP", EC2, BOOLEAN, DIFFERENT,
        "Leave ENIs alone that were left behind by others of the cluster.",
        field="leaked_eni_cleanup", default=False, peer="false", idle=(NOT_PROVISIONING,),
        why="one elected node sweeps for the cluster; without an API server a node looks after its"
        " own",
    ),
    Setting(
        "AWS_MANAGE_ENIS_NON_SCHEDULABLE", EC2, BOOLEAN, HONOURED,
        "Go on attaching and giving back while the node is cordoned.",
        field="manage_enis_non_schedulable", default=False, peer="false", idle=(NOT_PROVISIONING,),
    ),
    Setting(
        "MANAGE_UNTAGGED_ENI", EC2, BOOLEAN, HONOURED,
        "Use attached ENIs also without this instance's tag; false leaves them alone and counts"
        " them.",
        field="manage_untagged_eni", default=True, peer="true", restart=True, idle=(IMDS_ONLY,),
    ),
    Setting(
        "ENABLE_MULTI_NIC", EC2, BOOLEAN, NO_EFFECT,
        "Use ENIs on network cards above 0.",
        field="multi_nic", default=False, peer="false",
        why="ENIs on other network cards are left alone and counted, and a pod gets one interface",
    ),
    Setting(
        "ADDITIONAL_ENI_TAGS", EC2, Tags(), HONOURED,
        "More tags for the ENIs that are created; keys with k8s.amazonaws.com, and ours, are"
        " dropped.",
        field="additional_eni_tags", default=NO_TAGS, peer="{}", idle=(NOT_PROVISIONING,),
    ),
    Setting(
        "CLUSTER_NAME", EC2, CLUSTER, DIFFERENT,
        "The cluster's name: a tag on every ENI, and the bounds of the sweep and of subnet"
        " discovery.",
        field="cluster_name", restart=True, idle=(NOT_PROVISIONING,),
        why="without it no node deletes what nodes that are gone have left, since another cluster's"
        " cannot be told apart, and the elected one says so; the peer sweeps the whole VPC then",
    ),
    Setting(
        "AWS_EC2_ENDPOINT", EC2, URL, DIFFERENT,
        "Where EC2 is asked. Not set: the region's endpoint.",
        field="ec2_endpoint", restart=True, idle=(IMDS_ONLY,),
        why="EC2's own client uses it, which the peer's does not",
    ),
    Setting(
        "HTTP_TIMEOUT", EC2, Whole("seconds", 10, 300), DIFFERENT,
        "How long an answer of EC2 is waited for.",
        field="http_timeout_seconds", default=10, peer="10", restart=True, idle=(IMDS_ONLY,),
        why="less than 10 in the environment is taken as 10, with a warning, as the peer does;"
        " elsewhere it is a complaint",
        lenient=(Lenient("[0-9]", 10, "10 is taken"),),
    ),
    Setting(
        "ENID_NODES", EC2, Whole("nodes", 1, 100_000), HONOURED,
        "So many nodes share the account's EC2 limits, and each keeps to its part. Not set: as many"
        " as the cluster's Lease told last; where none ever did, 1.",
        field="nodes", peer=None, idle=(IMDS_ONLY,),
    ),
    Setting(
        "ENID_ACCOUNT_LIMITS", EC2, PATH, HONOURED,
        "A JSON file with the account's EC2 request limits by action. Not set:"
        " assumptions after AWS' documentation.",
        field="account_limits", peer=None, restart=True, idle=(IMDS_ONLY,),
    ),
    # Subnets and custom networking -----------------------------------------------------
    Setting(
        "ENABLE_SUBNET_DISCOVERY", NETWORKS, BOOLEAN, HONOURED,
        "Take new ENIs from whichever of the zone's subnets that carry kubernetes.io/role/cni has"
        " most free addresses. false takes the primary ENI's subnet.",
        field="subnet_discovery", default=True, peer="true",
        idle=(NOT_PROVISIONING, CUSTOM, NAMED_SUBNETS),
    ),
    Setting(
        "ENID_SUBNETS", NETWORKS, SUBNETS, HONOURED,
        "Take new ENIs from these subnets only.",
        field="subnets", default=(), peer=None, idle=(NOT_PROVISIONING, CUSTOM),
    ),
    Setting(
        "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", NETWORKS, BOOLEAN, DIFFERENT,
        "Secondary ENIs have subnet and security groups of an ENIConfig; the primary carries no"
        " pods.",
        field="custom_networking", default=False, peer="false", restart=True,
        why="an ENIConfig that is not there yet stops growth, not the daemon",
    ),
    Setting(
        "ENI_CONFIG_ANNOTATION_DEF", NETWORKS, NODE_KEY, HONOURED,
        "The node annotation that names the ENIConfig.",
        field="eni_config_annotation", default=ENI_CONFIG_KEY, peer=ENI_CONFIG_KEY,
        idle=(NOT_CUSTOM,),
    ),
    Setting(
        "ENI_CONFIG_LABEL_DEF", NETWORKS, NODE_KEY, HONOURED,
        "The node label that names the ENIConfig, where the annotation is not there.",
        field="eni_config_label", default=ENI_CONFIG_KEY, peer=ENI_CONFIG_KEY, idle=(NOT_CUSTOM,),
    ),
    # IP families -----------------------------------------------------------------------
    Setting(
        "ENABLE_IPv4", FAMILY, BOOLEAN, REFUSED,
        "Pods have IPv4 addresses.",
        default=True, peer="true", why="pods have IPv4 addresses, and there is nothing else yet",
    ),
    Setting(
        "ENABLE_IPv6", FAMILY, BOOLEAN, REFUSED,
        "Pods have IPv6 addresses.",
        default=False, peer="false",
        why="IPv6 is not supported yet; pods would get IPv4 addresses instead",
    ),
    Setting(
        "ENABLE_V4_EGRESS", FAMILY, BOOLEAN, NO_EFFECT,
        "Give pods of an IPv6 cluster a way out by IPv4.",
        default=True, peer="true", why="it is for IPv6 clusters, and pods have IPv4 addresses",
    ),
    Setting(
        "ENABLE_V6_EGRESS", FAMILY, BOOLEAN, REFUSED,
        "Give pods of an IPv4 cluster a way out by IPv6.",
        default=False, peer="false", why="pods have no IPv6 yet and would not reach what needs it",
    ),
    Setting(
        "DISABLE_POD_V6", FAMILY, BOOLEAN, DIFFERENT,
        "New pods have no IPv6 address at all: neither ::1 nor a link-local one.",
        field="disable_pod_v6", default=False, peer="false",
        why="addresses are kept away instead of three sysctls set: what other plugins add to a pod"
        " is theirs",
    ),
    # Source addresses and marks --------------------------------------------------------
    Setting(
        "AWS_VPC_K8S_CNI_EXTERNALSNAT", SNAT, BOOLEAN, DIFFERENT,
        "Pods keep their own source address on the way out of the VPC.",
        field="external_snat", default=False, peer="false",
        why="a change holds for new connections; those that are there go on as they began",
    ),
    Setting(
        "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", SNAT, Cidrs(), HONOURED,
        "Destinations outside the VPC to which pods keep their own source address.",
        field="exclude_snat_cidrs", default=(), idle=(EXTERNAL_SNAT,),
    ),
    Setting(
        "AWS_VPC_K8S_CNI_RANDOMIZESNAT", SNAT, Choice(("prng", "hashrandom", "none")), HONOURED,
        "How source ports are chosen: fully at random, by a hash of the connection, or the pod's"
        " own where it is free.",
        field="randomize_snat", default="prng", peer="prng", idle=(EXTERNAL_SNAT,),
    ),
    Setting(
        "AWS_EXTERNAL_SERVICE_CIDRS", SNAT, Cidrs(), HONOURED,
        "Destinations that are always routed by the main table, whatever ENI the pod is on.",
        field="external_service_cidrs", default=(),
    ),
    Setting(
        "AWS_VPC_CNI_NODE_PORT_SUPPORT", SNAT, BOOLEAN, DIFFERENT,
        "Replies to NodePort and hostPort traffic leave by the ENI by which it came.",
        field="node_port_support", default=True, peer="true",
        why="on every ENI, not on the primary alone; and SNAT does not depend on it",
    ),
    Setting(
        "AWS_VPC_K8S_CNI_CONNMARK", SNAT, Bit(), DIFFERENT,
        "The bit of packet and connection marks that stands for the primary ENI.",
        field="connmark", default="0x80", peer="0x80", restart=True,
        why="the seven bits below it are ours, too: they are an ENI's number. Change it on a node"
        " without pods: connections that are there lose their way",
    ),
    Setting(
        "AWS_VPC_K8S_CNI_CONFIGURE_RPFILTER", SNAT, BOOLEAN, NO_EFFECT,
        "Has no effect in the peer either.",
        why="each ENI's rp_filter is always set",
    ),
    Setting(
        "ENABLE_NFTABLES", SNAT, BOOLEAN, NO_EFFECT,
        "Has no effect in the peer either.",
        why="nftables is always used, whatever iptables the host has",
    ),
    # Links and the plugin --------------------------------------------------------------
    Setting(
        "AWS_VPC_ENI_MTU", LINKS, Whole("bytes", 576, 9001), DIFFERENT,
        "The MTU of ENIs. Not set: 9001 on those that are attached, and the primary ENI keeps what"
        " the operating system gave it.",
        field="eni_mtu", peer="9001", adr=WIRE,
        why="the peer sets the primary ENI's, too, when nobody asked for it",
    ),
    Setting(
        "POD_MTU", LINKS, Whole("bytes", 576, 9001), HONOURED,
        "The MTU of new pods' interfaces. Not set: that of ENIs. The conflist's `mtu` and a pod's"
        " annotation `enid.dev/mtu` come before it.",
        field="pod_mtu",
    ),
    Setting(
        "AWS_VPC_K8S_CNI_VETHPREFIX", LINKS, PREFIX, HONOURED,
        "What the names of new pods' host interfaces begin with.",
        field="veth_prefix", default="eni", peer="eni",
    ),
    Setting(
        "ENID_MSS_CLAMP", LINKS, BOOLEAN, HONOURED,
        "Lower the segment size of pods' new TCP connections to what the route takes. For paths"
        " below the pods' MTU that lose the ICMP message which would tell them.",
        field="mss_clamp", default=False, peer=None,
    ),
    Setting(
        "ENABLE_BANDWIDTH_PLUGIN", LINKS, BOOLEAN, NO_EFFECT,
        "Chain the bandwidth plugin.",
        default=False, peer="false",
        why="it is chained by `enid install --chain bandwidth` (the chart's `cni.chained`)",
    ),
    Setting(
        "ANNOTATE_POD_IP", LINKS, BOOLEAN, DIFFERENT,
        "Write a pod's address to its annotation vpc.amazonaws.com/pod-ips, and empty that at the"
        " DEL.",
        field="annotate_pod_ip", default=False, peer="false", idle=(NO_CLUSTER,),
        why="no ADD waits for it, and what could not be written is written later; it needs the"
        " right to patch pods",
    ),
    Setting(
        "HOST_CNI_BIN_PATH", LINKS, PATH, NO_EFFECT,
        "Where plugins are installed.",
        default="/host/opt/cni/bin", peer="/host/opt/cni/bin",
        why="the daemon installs nothing: `enid install` does, in the init container",
    ),
    Setting(
        "HOST_CNI_CONFDIR_PATH", LINKS, PATH, NO_EFFECT,
        "Where the conflist is installed.",
        default="/host/etc/cni/net.d", peer="/host/etc/cni/net.d",
        why="the daemon installs nothing: `enid install` does, in the init container",
    ),
    Setting(
        "AWS_VPC_K8S_PLUGIN_LOG_FILE", LINKS, Text("a path or stderr"), NO_EFFECT,
        "The plugin's log.",
        default="/var/log/aws-routed-eni/plugin.log", peer="/var/log/aws-routed-eni/plugin.log",
        why="the plugin writes none: the daemon logs each ADD and DEL",
    ),
    Setting(
        "AWS_VPC_K8S_PLUGIN_LOG_LEVEL", LINKS, Text("a level"), NO_EFFECT,
        "The plugin's log level.",
        default="DEBUG", peer="DEBUG",
        why="the plugin writes no log: the daemon logs each ADD and DEL",
    ),
    Setting(
        "AWS_VPC_K8S_EGRESS_V4_PLUGIN_LOG_FILE", LINKS, Text("a path"), NO_EFFECT,
        "The log of the peer's IPv4 egress plugin.",
        default="/var/log/aws-routed-eni/egress-v4-plugin.log",
        peer="/var/log/aws-routed-eni/egress-v4-plugin.log",
        why="there is no such plugin",
    ),
    Setting(
        "AWS_VPC_K8S_EGRESS_V6_PLUGIN_LOG_FILE", LINKS, Text("a path"), NO_EFFECT,
        "The log of the peer's IPv6 egress plugin.",
        default="/var/log/aws-routed-eni/egress-v6-plugin.log",
        peer="/var/log/aws-routed-eni/egress-v6-plugin.log",
        why="there is no such plugin",
    ),
    # Security groups and network policies ----------------------------------------------
    Setting(
        "ENABLE_POD_ENI", SECURITY, BOOLEAN, REFUSED,
        "Pods may have security groups of their own, on branch ENIs.",
        default=False, peer="false",
        why="branch ENIs are not supported, and such pods would run with the node's security"
        " groups",
    ),
    Setting(
        "POD_SECURITY_GROUP_ENFORCING_MODE", SECURITY, Choice(("strict", "standard")), NO_EFFECT,
        "How the security groups of pods are enforced.",
        default="strict", peer="strict",
        why="it is for ENABLE_POD_ENI=true, which is refused",
    ),
    Setting(
        "DISABLE_TCP_EARLY_DEMUX", SECURITY, BOOLEAN, NO_EFFECT,
        "Let kubelet reach pods on branch ENIs.",
        default=False, peer="false",
        why="it is for pods on branch ENIs (ENABLE_POD_ENI=true is refused); to others the node's"
        " way is the same with net.ipv4.tcp_early_demux on and off, and it stays as it is",
    ),
    Setting(
        "ENID_BLOCK_POD_METADATA", SECURITY, BOOLEAN, HONOURED,
        "Pods do not reach the instance's metadata, and so not its role's credentials. The node and"
        " pods of its own network do.",
        field="block_pod_metadata", default=False, peer=None,
    ),
    Setting(
        "NETWORK_POLICY_ENFORCING_MODE", SECURITY, Choice(("none", "standard", "strict")), REFUSED,
        "strict: a pod is closed until its policies are known; standard: it is open until then.",
        default="none", peer="standard", accepted=("standard",), adr=IGNORED,
        why=NO_POLICY + ", and pods that strict closes would be open; standard is taken, with a"
        " warning, because the peer's manifest sets it for everybody",
    ),
    # What Kubernetes is told -----------------------------------------------------------
    Setting(
        "ENID_NODE_CONDITION", TOLD, BOOLEAN, HONOURED,
        "The Node has a condition PodAddressesAvailable: whether another pod would get an address.",
        field="node_condition", default=True, peer=None, idle=(NO_CLUSTER,),
    ),
    Setting(
        "ENID_NODE_NETWORK", TOLD, BOOLEAN, HONOURED,
        "A NodeNetwork of the node's name has its ENIs, CIDRs and counts (`kubectl get nn`).",
        field="node_network", default=True, peer=None, restart=True, idle=(NO_CLUSTER,), adr=RECORD,
    ),
    Setting(
        "ENID_STARTUP_TAINT", TOLD, NODE_KEY, HONOURED,
        "The taint of this key goes from the Node when an address is usable. Who registers the node"
        " puts it there (kubelet's --register-with-taints). Not set: no taint is removed.",
        field="startup_taint", peer=None, idle=(NO_CLUSTER,),
    ),
    Setting(
        "ENID_EXHAUSTED_TAINT", TOLD, NODE_KEY, HONOURED,
        "The Node has a taint of this key (NoSchedule) while it has no address for more pods and"
        " can get none. For the cluster autoscaler the key must begin with"
        " status-taint.cluster-autoscaler.kubernetes.io/. Not set: none.",
        field="exhausted_taint", peer=None, idle=(NO_CLUSTER,), adr=TOLD_BY_US,
    ),
    Setting(
        "ENID_EXHAUSTED_BELOW", TOLD, Whole("addresses", 1, 1000), HONOURED,
        "With fewer addresses than this for more pods a node that can get none is tainted; with"
        " twice as many no longer.",
        field="exhausted_below", default=1, peer=None, idle=(NO_EXHAUSTED,),
    ),
    Setting(
        "ENID_EXHAUSTED_SECONDS", TOLD, Whole("seconds", 1, 3600), HONOURED,
        "So long must it be so before the taint comes, or goes.",
        field="exhausted_seconds", default=30, peer=None, idle=(NO_EXHAUSTED,),
    ),
    Setting(
        "ENID_POD_ADDRESS_RESOURCE", TOLD, BOOLEAN, HONOURED,
        "The Node has the extended resource enid.dev/pod-addresses: how many pods could have an"
        " address there. The scheduler counts it for pods that ask for 1.",
        field="pod_address_resource", default=False, peer=None, idle=(NO_CLUSTER,), adr=TOLD_BY_US,
    ),
    # The daemon ------------------------------------------------------------------------
    Setting(
        "AWS_VPC_K8S_CNI_LOGLEVEL", DAEMON, Choice(("DEBUG", "INFO", "WARN", "ERROR", "FATAL")),
        HONOURED, "From which level on the daemon logs. Another word in the environment is taken as"
        " INFO, Warning as WARN.",
        field="log_level", default="INFO", peer="DEBUG", adr=LOGS,
        lenient=(
            Lenient("(?i)warning", "WARN", "WARN is taken"), Lenient(".*", "INFO", "INFO is taken"),
        ),
    ),
    Setting(
        "AWS_VPC_K8S_CNI_LOG_FILE", DAEMON, Text("a path, stdout, stderr"), NO_EFFECT,
        "The daemon's log.",
        default="stderr", peer="/host/var/log/aws-routed-eni/ipamd.log", adr=LOGS,
        why="the log goes to stderr, where the container runtime keeps and rotates it",
    ),
    Setting(
        "INTROSPECTION_BIND_ADDRESS", DAEMON, Text("address:port or unix:path"), NO_EFFECT,
        "Where the peer's introspection answers.",
        default="127.0.0.1:61679", peer="127.0.0.1:61679",
        why="there is none on a port: `enid status` asks by the socket",
    ),
    Setting(
        "DISABLE_INTROSPECTION", DAEMON, BOOLEAN, NO_EFFECT,
        "Close the peer's introspection.",
        default=False, peer="false",
        why="there is none on a port: `enid status` asks by the socket, as root only",
    ),
    Setting(
        "DISABLE_METRICS", DAEMON, BOOLEAN, DIFFERENT,
        "Serve no metrics, and answer nobody but the node itself on port 61678.",
        field="metrics", default=False, peer="false",
        why="the node's own probes are answered all the same: kubelet asks them there, where the"
        " peer's manifest runs a program",
    ),
    Setting(
        "ENID_METRICS_CIDRS", DAEMON, Cidrs(), HONOURED,
        "Who is answered on port 61678 beside the node itself. Not set: everybody, because scrapers"
        " are pods.",
        field="metrics_cidrs", default=(), peer=None, idle=(NO_METRICS,), adr=METRICS,
    ),
    Setting(
        "ENID_METRICS_POD_NAMES", DAEMON, BOOLEAN, HONOURED,
        "`/metrics` has a row for each pod, with its namespace, name and address.",
        field="metrics_pods", default=False, peer=None, idle=(NO_METRICS,),
    ),
    Setting(
        "AWS_VPC_K8S_CNI_BACKING_STORE", DAEMON, PATH, NO_EFFECT,
        "The peer's file of leases.",
        default="/var/run/aws-node/ipam.json", peer="/var/run/aws-node/ipam.json",
        why="leases are in /run/enid and the journal in /var/lib/enid",
    ),
    Setting(
        "STATUS_GRACE_SECONDS", DAEMON, Whole("seconds", 15, 3600), HONOURED,
        "So long may the daemon be silent before CNI STATUS fails."
        " That takes the node out of service: longer than a restart that waits for its image.",
        field="status_grace_seconds", default=120, peer=None,
    ),
    Setting(
        "ENID_STATUS_FAILS_WHEN_FULL", DAEMON, BOOLEAN, HONOURED,
        "CNI STATUS fails also while the node has no address for another pod and can get none."
        " New pods go elsewhere then, and Services drop those that run here.",
        field="status_fails_when_full", default=False, peer=None,
    ),
    Setting(
        "ENID_GC_GUARD_SECONDS", DAEMON, Whole("seconds", 120, 86400), HONOURED,
        "CNI GC releases no attachment that is younger."
        " A runtime notes it when the ADD has ended, and a pod may take 240 s.",
        field="gc_guard_seconds", default=300, peer=None,
    ),
    Setting(
        "MY_NODE_NAME", DAEMON, Text("a node's name", r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"),
        HONOURED, "The node's name in Kubernetes. Not set: nothing is asked of the API server.",
        field="node_name", restart=True, pinned=True,
    ),
    Setting(
        "MY_POD_NAME", DAEMON, Text("a pod's name"), NO_EFFECT,
        "The daemon's own pod.",
        why="no event is told of the daemon's own pod", silent=True,
    ),
    Setting(
        "VPC_CNI_VERSION", DAEMON, Text("a version"), NO_EFFECT,
        "The peer's version.", peer="the image's",
        why="EC2 is told of our own version", silent=True,
    ),
    # The peer's metrics helper ---------------------------------------------------------
    Setting(
        "USE_CLOUDWATCH", HELPER, BOOLEAN, NO_EFFECT,
        "Send metrics to CloudWatch.",
        default=True, peer="true", why="there is no such helper: scrape port 61678",
    ),
    Setting(
        "USE_PROMETHEUS", HELPER, BOOLEAN, NO_EFFECT,
        "Serve all nodes' metrics in one place.",
        default=False, peer="false", why="there is no such helper: scrape port 61678",
    ),
    Setting(
        "METRIC_UPDATE_INTERVAL", HELPER, Whole("seconds"), NO_EFFECT,
        "How often nodes are scraped.",
        default=30, peer="30", why="there is no such helper: scrape port 61678",
    ),
    Setting(
        "AWS_REGION", HELPER, Text("a region"), NO_EFFECT,
        "Where CloudWatch is.", why="IMDS tells the region", silent=True,
    ),
    Setting(
        "AWS_CLUSTER_ID", HELPER, Text("text"), NO_EFFECT,
        "The cluster's name in CloudWatch.", why="there is no such helper: scrape port 61678",
    ),
)  # fmt: skip
"""Every setting, in the order of the documentation."""

BY_NAME: Mapping[str, Setting] = {setting.name: setting for setting in SETTINGS}
FIELDS: Mapping[str, str] = {
    setting.name: setting.field
    for setting in SETTINGS
    if setting.field and setting.name != "ENID_POOL"
}
"""The field of `Settings` that a variable sets; some are put right by others afterwards."""
