"""What the daemon was told, typed and checked as a whole. Pure.

`ipamd.settings_table` says which variable is which field, `ipamd.layers` where a value comes
from. The rule to keep: a field says what holds, not what was written. A target that has no
effect in the chosen mode is None here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar

from ipamd.kinds import is_reserved

NO_TAGS: Mapping[str, str] = MappingProxyType({})
ENI_CONFIG_KEY = "k8s.amazonaws.com/eniConfig"


ENI_MTU = 9001
"""The MTU of an ENI inside a VPC."""


class SettingsError(Exception):
    """The settings cannot be used; the text has one line a complaint."""

    id: ClassVar[str] = "SETTINGS"


class InvalidSettingsError(SettingsError):
    """A setting cannot be, or two contradict each other: the text has one line a complaint."""

    id = "SETTINGS-INVALID"


class RefusedSettingsError(SettingsError):
    """A setting asks for isolation or traffic that is not there: unset it, or use another CNI."""

    id = "SETTINGS-REFUSED"


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds now. None is "not set"; a target without effect is None as well.

    *demand*: the pool is sized by the pods that are there, no target rules. *provisioning*: EC2
    is asked for ENIs and addresses. *nodes* share the account's EC2 limits; None: as many as
    the cluster's Lease tells, or we are alone. *max_pods* caps what the node's capacity says.
    *fallback_eni_target* is the WARM_ENI_TARGET of types that take no prefixes (`on_type`).
    """

    demand: bool = True
    warm_eni_target: int | None = None
    warm_ip_target: int | None = None
    minimum_ip_target: int | None = None
    warm_prefix_target: int | None = None
    fallback_eni_target: int | None = None
    max_eni: int | None = None
    max_pods: int | None = None
    prefix_delegation: bool = False
    cooldown_seconds: int = 30
    add_waiting_max: int = 64
    status_grace_seconds: int = 120
    status_fails_when_full: bool = False
    gc_guard_seconds: int = 300
    custom_networking: bool = False
    eni_config_annotation: str = ENI_CONFIG_KEY
    eni_config_label: str = ENI_CONFIG_KEY
    subnet_discovery: bool = True
    subnets: tuple[str, ...] = ()
    additional_eni_tags: Mapping[str, str] = field(default_factory=lambda: NO_TAGS)
    cluster_name: str = ""
    imds_only: bool = False
    provisioning: bool = True
    leaked_eni_cleanup: bool = True
    manage_enis_non_schedulable: bool = False
    manage_untagged_eni: bool = True
    multi_nic: bool = False
    ec2_endpoint: str = ""
    http_timeout_seconds: int = 10
    nodes: int | None = None
    account_limits: str = ""
    external_snat: bool = False
    exclude_snat_cidrs: tuple[str, ...] = ()
    randomize_snat: str = "prng"
    external_service_cidrs: tuple[str, ...] = ()
    node_port_support: bool = True
    connmark: str = "0x80"
    eni_mtu: int | None = None
    pod_mtu: int | None = None
    veth_prefix: str = "eni"
    mss_clamp: bool = False
    disable_pod_v6: bool = False
    block_pod_metadata: bool = False
    metrics: bool = True
    metrics_cidrs: tuple[str, ...] = ()
    metrics_pods: bool = False
    log_level: str = "INFO"
    node_name: str = ""
    node_condition: bool = True
    node_network: bool = True
    pod_address_resource: bool = False
    annotate_pod_ip: bool = False
    startup_taint: str = ""
    exhausted_taint: str = ""
    exhausted_below: int = 1
    exhausted_seconds: int = 30

    @property
    def by_address(self) -> bool:
        """Whether one of the two IP targets rules: growth and release address by address."""
        return self.warm_ip_target is not None or self.minimum_ip_target is not None


def settings_from(values: Mapping[str, Any], fields: Mapping[str, str]) -> Settings:
    """Return the settings of *values*, by variable; *fields* names each one's field."""
    plain = {
        name: values[variable] for variable, name in fields.items() if values[variable] is not None
    }
    imds_only = values["ENABLE_IMDS_ONLY_MODE"]
    provisioning = not (imds_only or values["DISABLE_NETWORK_RESOURCE_PROVISIONING"])
    tags = {k: v for k, v in values["ADDITIONAL_ENI_TAGS"].items() if not is_reserved(k)}
    derived = {
        "provisioning": provisioning,
        "leaked_eni_cleanup": provisioning and not values["DISABLE_LEAKED_ENI_CLEANUP"],
        "metrics": not values["DISABLE_METRICS"],
        "additional_eni_tags": MappingProxyType(tags),
    }
    return Settings(**plain | derived | _targets(values))


def _targets(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the six fields that say how much to hold ready, as far as they have effect.

    The peer's manifest sets WARM_ENI_TARGET and WARM_PREFIX_TARGET to 1 for everybody, so
    that under ENID_POOL=demand a 1 there is nobody's wish. An IP target of 0 is the peer's
    way to write "not set".
    """
    pool, with_prefixes = values["ENID_POOL"], values["ENABLE_PREFIX_DELEGATION"]
    by_address = {
        "warm_ip_target": values["WARM_IP_TARGET"] or None,
        "minimum_ip_target": values["MINIMUM_IP_TARGET"] or None,
    }
    is_by_address = any(by_address.values())

    def whole(variable: str) -> int | None:
        value: int | None = values[variable]
        if is_by_address or (pool == "demand" and value == 1):
            return None
        return 1 if value is None and pool == "fixed" else value

    eni, prefix = whole("WARM_ENI_TARGET"), whole("WARM_PREFIX_TARGET")
    ruling = (None, prefix, eni) if with_prefixes else (eni, None, None)
    names = ("warm_eni_target", "warm_prefix_target", "fallback_eni_target")
    is_fixed = is_by_address or any(target is not None for target in ruling[:2])
    return {"demand": not is_fixed, **dict(zip(names, ruling, strict=True)), **by_address}


def on_type(settings: Settings, *, takes_prefixes: bool) -> Settings:
    """Return what of *settings* holds on an instance type.

    Where its ENIs take no prefixes single addresses serve, by the targets that rule those.
    """
    if takes_prefixes or not settings.prefix_delegation:
        return settings
    target = settings.fallback_eni_target
    return replace(
        settings,
        prefix_delegation=False,
        warm_eni_target=target,
        warm_prefix_target=None,
        demand=target is None and not settings.by_address,
    )


def contradictions(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each pair of settings that cannot both be."""
    if settings.prefix_delegation and settings.warm_prefix_target == 0:
        yield (
            "ENABLE_PREFIX_DELEGATION=true with WARM_PREFIX_TARGET=0 and no IP target holds nothing"
            " ready: set WARM_IP_TARGET, MINIMUM_IP_TARGET or WARM_PREFIX_TARGET to 1 or more, or"
            " none of them"
        )
    if settings.custom_networking and settings.max_eni == 1:
        yield (
            "MAX_ENI=1 with AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true leaves no ENI for pods: the"
            " primary has none of them then; MAX_ENI must be 2 or more"
        )
    if settings.startup_taint and settings.startup_taint == settings.exhausted_taint:
        yield (
            f"ENID_STARTUP_TAINT and ENID_EXHAUSTED_TAINT are both {settings.startup_taint}: one"
            " goes at the first address, the other comes without one; they need two names"
        )


def doubts(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each pair of settings of which one holds the other back."""
    wanted, most = settings.minimum_ip_target, settings.max_pods
    if wanted is not None and most is not None and wanted > most:
        yield (
            f"MINIMUM_IP_TARGET={wanted} is above ENID_MAX_PODS={most}: no more than {most}"
            " addresses are held"
        )
    pods, links = settings.pod_mtu, settings.eni_mtu or ENI_MTU
    if pods is not None and pods > links:
        yield (
            f"POD_MTU={pods} is above the ENIs' {links}: larger packets cost pods an ICMP message"
            " each"
        )
