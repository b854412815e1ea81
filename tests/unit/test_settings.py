"""Settings: what each variable of the table means, alone and beside others."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from ipamd.kinds import shown
from ipamd.layers import Resolved, Sources, layers_of, read_settings, resolve
from ipamd.settings import InvalidSettingsError, RefusedSettingsError, Settings, SettingsError
from ipamd.settings_page import render_help, render_settings
from ipamd.settings_table import BY_NAME, SETTINGS, Fate, Setting
from tests.tools.references import DOCS

PEER = {
    "WARM_ENI_TARGET", "WARM_IP_TARGET", "MINIMUM_IP_TARGET", "WARM_PREFIX_TARGET", "MAX_ENI",
    "IP_COOLDOWN_PERIOD", "ENABLE_PREFIX_DELEGATION", "AWS_MANAGE_ENIS_NON_SCHEDULABLE",
    "DISABLE_NETWORK_RESOURCE_PROVISIONING", "ENABLE_IMDS_ONLY_MODE", "DISABLE_LEAKED_ENI_CLEANUP",
    "MANAGE_UNTAGGED_ENI", "ENABLE_MULTI_NIC", "ENABLE_SUBNET_DISCOVERY", "ADDITIONAL_ENI_TAGS",
    "CLUSTER_NAME", "ENABLE_IPv4", "ENABLE_IPv6", "ENABLE_V4_EGRESS", "ENABLE_V6_EGRESS",
    "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "ENI_CONFIG_ANNOTATION_DEF", "ENI_CONFIG_LABEL_DEF",
    "AWS_VPC_K8S_CNI_EXTERNALSNAT", "AWS_VPC_K8S_CNI_RANDOMIZESNAT",
    "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "AWS_EXTERNAL_SERVICE_CIDRS",
    "AWS_VPC_CNI_NODE_PORT_SUPPORT", "AWS_VPC_K8S_CNI_CONNMARK",
    "AWS_VPC_K8S_CNI_CONFIGURE_RPFILTER", "ENABLE_NFTABLES", "AWS_VPC_ENI_MTU", "POD_MTU",
    "AWS_VPC_K8S_CNI_VETHPREFIX", "ENABLE_BANDWIDTH_PLUGIN", "DISABLE_POD_V6", "ANNOTATE_POD_IP",
    "HOST_CNI_BIN_PATH", "HOST_CNI_CONFDIR_PATH", "AWS_VPC_K8S_PLUGIN_LOG_FILE",
    "AWS_VPC_K8S_PLUGIN_LOG_LEVEL", "AWS_VPC_K8S_EGRESS_V4_PLUGIN_LOG_FILE",
    "AWS_VPC_K8S_EGRESS_V6_PLUGIN_LOG_FILE", "ENABLE_POD_ENI", "POD_SECURITY_GROUP_ENFORCING_MODE",
    "DISABLE_TCP_EARLY_DEMUX", "NETWORK_POLICY_ENFORCING_MODE", "AWS_VPC_K8S_CNI_LOGLEVEL",
    "AWS_VPC_K8S_CNI_LOG_FILE", "INTROSPECTION_BIND_ADDRESS", "DISABLE_INTROSPECTION",
    "DISABLE_METRICS", "AWS_VPC_K8S_CNI_BACKING_STORE", "AWS_EC2_ENDPOINT", "HTTP_TIMEOUT",
    "MY_NODE_NAME", "MY_POD_NAME", "VPC_CNI_VERSION", "USE_CLOUDWATCH", "USE_PROMETHEUS",
    "METRIC_UPDATE_INTERVAL", "AWS_REGION", "AWS_CLUSTER_ID",
}  # fmt: skip
"""Every variable that the AWS VPC CNI v1.23.1 reads."""

OURS = {
    "ENID_POOL", "ENID_MAX_PODS", "ENID_NODES", "ENID_ACCOUNT_LIMITS", "ENID_SUBNETS",
    "ADD_WAITING_MAX", "ENID_MSS_CLAMP", "ENID_BLOCK_POD_METADATA",
    "STATUS_GRACE_SECONDS", "ENID_STATUS_FAILS_WHEN_FULL", "ENID_GC_GUARD_SECONDS",
    "ENID_METRICS_CIDRS", "ENID_METRICS_POD_NAMES", "ENID_NODE_CONDITION", "ENID_NODE_NETWORK",
    "ENID_POD_ADDRESS_RESOURCE",
    "ENID_STARTUP_TAINT", "ENID_EXHAUSTED_TAINT", "ENID_EXHAUSTED_BELOW", "ENID_EXHAUSTED_SECONDS",
}  # fmt: skip

MANIFEST = {
    "ADDITIONAL_ENI_TAGS": "{}", "ANNOTATE_POD_IP": "false", "AWS_VPC_CNI_NODE_PORT_SUPPORT": "true",
    "AWS_VPC_ENI_MTU": "9001", "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": "false",
    "AWS_VPC_K8S_CNI_EXTERNALSNAT": "false", "AWS_VPC_K8S_CNI_LOGLEVEL": "DEBUG",
    "AWS_VPC_K8S_CNI_LOG_FILE": "/host/var/log/aws-routed-eni/ipamd.log",
    "AWS_VPC_K8S_CNI_RANDOMIZESNAT": "prng", "AWS_VPC_K8S_CNI_VETHPREFIX": "eni",
    "AWS_VPC_K8S_PLUGIN_LOG_FILE": "/var/log/aws-routed-eni/plugin.log",
    "AWS_VPC_K8S_PLUGIN_LOG_LEVEL": "DEBUG", "DISABLE_INTROSPECTION": "false",
    "DISABLE_METRICS": "false", "DISABLE_NETWORK_RESOURCE_PROVISIONING": "false",
    "ENABLE_IPv4": "true", "ENABLE_IPv6": "false", "ENABLE_POD_ENI": "false",
    "ENABLE_PREFIX_DELEGATION": "false", "ENABLE_SUBNET_DISCOVERY": "true",
    "WARM_ENI_TARGET": "1", "WARM_PREFIX_TARGET": "1", "NETWORK_POLICY_ENFORCING_MODE": "standard",
    "MY_NODE_NAME": "ip-10-0-1-4.ec2.internal", "MY_POD_NAME": "aws-node-x", "VPC_CNI_VERSION": "v1",
}  # fmt: skip
"""What the peer's manifest sets for everybody."""


def resolved(**environ: str) -> Resolved:
    return resolve(layers_of(Sources(environ)))


# The table -----------------------------------------------------------------------------
def test_every_variable_of_the_peer_has_a_fate_and_there_are_no_others_but_ours() -> None:
    assert len(BY_NAME) == len(SETTINGS)
    assert set(BY_NAME) == PEER | OURS
    assert {setting.name for setting in SETTINGS if setting.peer is None} == OURS


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.name)
def test_a_row_says_all_that_its_fate_asks_for(setting: Setting) -> None:
    assert bool(setting.why) == (setting.fate is not Fate.HONOURED)
    assert setting.fate in {Fate.NO_EFFECT, Fate.REFUSED} or setting.field
    if setting.fate is not Fate.NO_EFFECT and setting.peer:
        assert bool(setting.adr) == (setting.kind.read(setting.peer) != setting.default)
    assert not setting.adr or (DOCS / "adr" / f"{setting.adr}.md").exists()


def test_every_field_is_set_by_a_row() -> None:
    by_row = {s.field for s in SETTINGS if s.field}
    # WARM_ENI_TARGET has two: which one, the mode says.
    assert by_row | {"fallback_eni_target"} == {f.name for f in fields(Settings)}


def test_nothing_set_is_the_documented_default() -> None:
    settings = read_settings({"PATH": "/bin", "MAX_ENI": " "})
    assert settings == Settings()
    for setting in SETTINGS:
        if setting.default is not None and setting.field in {f.name for f in fields(Settings)}:
            derived = {"provisioning": True, "leaked_eni_cleanup": True, "metrics": True}
            expected = derived.get(setting.field, setting.default)
            assert getattr(settings, setting.field) == expected


def test_what_the_peers_manifest_sets_is_warned_about_only_for_policies() -> None:
    told = resolved(**MANIFEST, ENID_POOL="demand")
    assert told.settings == Settings(
        log_level="DEBUG", node_name=MANIFEST["MY_NODE_NAME"], eni_mtu=9001
    )
    (warning,) = told.warnings
    assert warning.startswith("environment: NETWORK_POLICY_ENFORCING_MODE=standard has no effect")


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.name)
def test_the_peers_default_and_ours_are_always_taken(setting: Setting) -> None:
    """Whoever writes out what holds anyway must not be refused."""
    for text in {setting.peer, shown(setting.default)} - {None, "", "the image's"}:
        read_settings({setting.name: str(text)})


# Values --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("environ", "field", "value"),
    [
        ({"WARM_IP_TARGET": "3"}, "warm_ip_target", 3),
        ({"MAX_ENI": "2"}, "max_eni", 2),
        ({"IP_COOLDOWN_PERIOD": "0"}, "cooldown_seconds", 0),
        ({"ENID_SUBNETS": "subnet-0a1b2c3d"}, "subnets", ("subnet-0a1b2c3d",)),
        ({"ENABLE_IMDS_ONLY_MODE": "1"}, "imds_only", True),
        ({"ENABLE_IMDS_ONLY_MODE": "1"}, "provisioning", False),
        ({"ENABLE_IMDS_ONLY_MODE": "1"}, "leaked_eni_cleanup", False),
        ({"DISABLE_NETWORK_RESOURCE_PROVISIONING": "true"}, "provisioning", False),
        ({"DISABLE_LEAKED_ENI_CLEANUP": "true"}, "leaked_eni_cleanup", False),
        ({"AWS_VPC_K8S_CNI_LOGLEVEL": "error"}, "log_level", "ERROR"),
        ({"ENID_NODES": "1000"}, "nodes", 1000),
        ({"ENABLE_MULTI_NIC": "true"}, "multi_nic", True),
        ({"HTTP_TIMEOUT": "20"}, "http_timeout_seconds", 20),
        ({"AWS_VPC_K8S_CNI_EXTERNALSNAT": "true"}, "external_snat", True),
        (
            {"AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS": "10.1.2.3/16"},
            "exclude_snat_cidrs",
            ("10.1.0.0/16",),
        ),
        ({"AWS_VPC_K8S_CNI_RANDOMIZESNAT": "none"}, "randomize_snat", "none"),
        ({"AWS_EXTERNAL_SERVICE_CIDRS": "10.1.0.0/16"}, "external_service_cidrs", ("10.1.0.0/16",)),
        ({"AWS_VPC_CNI_NODE_PORT_SUPPORT": "false"}, "node_port_support", False),
        ({"AWS_VPC_K8S_CNI_CONNMARK": "65536"}, "connmark", "0x10000"),
        ({"AWS_VPC_ENI_MTU": "1500"}, "eni_mtu", 1500),
        ({"POD_MTU": "1400"}, "pod_mtu", 1400),
        ({"AWS_VPC_K8S_CNI_VETHPREFIX": "cali"}, "veth_prefix", "cali"),
        ({"DISABLE_POD_V6": "true"}, "disable_pod_v6", True),
        ({"ENID_MSS_CLAMP": "true"}, "mss_clamp", True),
        ({"ENID_BLOCK_POD_METADATA": "true"}, "block_pod_metadata", True),
        ({"DISABLE_METRICS": "true"}, "metrics", False),
        ({"ENID_METRICS_CIDRS": "10.0.0.0/8"}, "metrics_cidrs", ("10.0.0.0/8",)),
        ({"ENID_METRICS_POD_NAMES": "true"}, "metrics_pods", True),
    ],
    ids=str,
)
def test_a_value_is_its_field(environ: dict[str, str], field: str, value: object) -> None:
    assert getattr(read_settings(environ), field) == value


def test_reserved_tags_are_dropped_with_a_warning() -> None:
    told = resolved(
        ADDITIONAL_ENI_TAGS='{"a": "1", "x.k8s.amazonaws.com/y": "2", "eks:eni:owner": "3"}'
    )
    assert told.settings.additional_eni_tags == {"a": "1"}
    (warning,) = told.warnings
    assert warning == (
        "environment: ADDITIONAL_ENI_TAGS: reserved keys are dropped:"
        " x.k8s.amazonaws.com/y, eks:eni:owner"
    )


def targets(settings: Settings) -> tuple[object, ...]:
    s = settings
    return (
        s.demand,
        s.warm_eni_target,
        s.warm_ip_target,
        s.minimum_ip_target,
        s.warm_prefix_target,
    )


WITH_PREFIXES = {"ENABLE_PREFIX_DELEGATION": "true"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({}, (True, None, None, None, None), id="nothing-set-is-demand"),
        pytest.param({"WARM_ENI_TARGET": "1"}, (False, 1, None, None, None), id="a-target-means-what-it-says"),
        pytest.param({"WARM_ENI_TARGET": "0"}, (False, 0, None, None, None), id="no-warm-eni-is-a-target"),
        pytest.param(
            {"ENID_POOL": "demand", "WARM_ENI_TARGET": "1", "WARM_PREFIX_TARGET": "1"},
            (True, None, None, None, None), id="demand-and-the-manifest",
        ),
        pytest.param(
            {"ENID_POOL": "demand", "WARM_ENI_TARGET": "1", "WARM_PREFIX_TARGET": "1"} | WITH_PREFIXES,
            (True, None, None, None, None), id="demand-and-the-manifest-with-prefixes",
        ),
        pytest.param(
            {"ENID_POOL": "demand", "WARM_ENI_TARGET": "2"}, (False, 2, None, None, None),
            id="a-target-that-is-not-the-manifest's-rules",
        ),
        pytest.param(
            {"ENID_POOL": "demand", "WARM_ENI_TARGET": "1", "WARM_IP_TARGET": "4"},
            (False, None, 4, None, None), id="an-ip-target-rules-beside-the-manifest",
        ),
        pytest.param({"ENID_POOL": "fixed"}, (False, 1, None, None, None), id="fixed-is-the-peer's-default"),
        pytest.param(
            {"ENID_POOL": "fixed"} | WITH_PREFIXES, (False, None, None, None, 1),
            id="fixed-with-prefixes-is-the-peer's-default",
        ),
        pytest.param(
            {"WARM_ENI_TARGET": "2", "MINIMUM_IP_TARGET": "9"}, (False, None, None, 9, None),
            id="ip-targets-overrule-enis",
        ),
        pytest.param(
            {"WARM_PREFIX_TARGET": "2", "WARM_IP_TARGET": "9"} | WITH_PREFIXES,
            (False, None, 9, None, None), id="ip-targets-overrule-prefixes",
        ),
        pytest.param(
            {"WARM_IP_TARGET": "0", "MINIMUM_IP_TARGET": "0"}, (True, None, None, None, None),
            id="an-ip-target-of-0-is-not-set",
        ),
        pytest.param(
            {"WARM_PREFIX_TARGET": "2"}, (True, None, None, None, None),
            id="a-target-without-effect-is-none",
        ),
        pytest.param(
            {"WARM_ENI_TARGET": "2"} | WITH_PREFIXES, (True, None, None, None, None),
            id="enis-do-not-count-with-prefixes",
        ),
    ],
)  # fmt: skip
def test_targets(environ: dict[str, str], expected: tuple[object, ...]) -> None:
    settings = read_settings(environ)
    assert targets(settings) == expected
    assert settings.by_address == bool(expected[2] or expected[3])


# Without effect ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("environ", "name", "why"),
    [
        ({"WARM_ENI_TARGET": "2"} | WITH_PREFIXES, "WARM_ENI_TARGET", "ENABLE_PREFIX_DELEGATION=true"),
        ({"WARM_ENI_TARGET": "2", "WARM_IP_TARGET": "1"}, "WARM_ENI_TARGET", "is set and rules"),
        ({"WARM_PREFIX_TARGET": "2"}, "WARM_PREFIX_TARGET", "ENABLE_PREFIX_DELEGATION=false"),
        ({"ENI_CONFIG_LABEL_DEF": "zone"}, "ENI_CONFIG_LABEL_DEF", "CUSTOM_NETWORK_CFG=false"),
        ({"ENI_CONFIG_ANNOTATION_DEF": "zone"}, "ENI_CONFIG_ANNOTATION_DEF", "CUSTOM_NETWORK_CFG=false"),
        (
            {"ENABLE_SUBNET_DISCOVERY": "false", "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": "true"},
            "ENABLE_SUBNET_DISCOVERY", "the ENIConfig names the subnet",
        ),
        (
            {"ENABLE_SUBNET_DISCOVERY": "false", "ENID_SUBNETS": "subnet-0a1b2c3d"},
            "ENABLE_SUBNET_DISCOVERY", "ENID_SUBNETS names",
        ),
        (
            {"ENID_SUBNETS": "subnet-0a1b2c3d", "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": "true"},
            "ENID_SUBNETS", "the ENIConfig names the subnet",
        ),
        ({"CLUSTER_NAME": "a", "ENABLE_IMDS_ONLY_MODE": "true"}, "CLUSTER_NAME", "nothing is provisioned"),
        (
            {"WARM_IP_TARGET": "2", "DISABLE_NETWORK_RESOURCE_PROVISIONING": "true"},
            "WARM_IP_TARGET", "nothing is provisioned",
        ),
        (
            {"DISABLE_NETWORK_RESOURCE_PROVISIONING": "true", "ENABLE_IMDS_ONLY_MODE": "true"},
            "DISABLE_NETWORK_RESOURCE_PROVISIONING", "ENABLE_IMDS_ONLY_MODE=true",
        ),
        ({"ENID_NODES": "9", "ENABLE_IMDS_ONLY_MODE": "true"}, "ENID_NODES", "IMDS_ONLY"),
        ({"ENID_POOL": "demand", "WARM_IP_TARGET": "1"}, "ENID_POOL", "a target is set and rules"),
        ({"WARM_IP_TARGET": "0"}, "WARM_IP_TARGET", "0 means not set"),
        (
            {"AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS": "10.1.0.0/16", "AWS_VPC_K8S_CNI_EXTERNALSNAT": "true"},
            "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "EXTERNALSNAT=true",
        ),
        (
            {"AWS_VPC_K8S_CNI_RANDOMIZESNAT": "none", "AWS_VPC_K8S_CNI_EXTERNALSNAT": "true"},
            "AWS_VPC_K8S_CNI_RANDOMIZESNAT", "EXTERNALSNAT=true",
        ),
        ({"DISABLE_TCP_EARLY_DEMUX": "true"}, "DISABLE_TCP_EARLY_DEMUX", "branch ENIs"),
        ({"ENABLE_NFTABLES": "true"}, "ENABLE_NFTABLES", "nftables is always used"),
        ({"ENABLE_BANDWIDTH_PLUGIN": "what?"}, "ENABLE_BANDWIDTH_PLUGIN", "chained by `enid install"),
        ({"NETWORK_POLICY_ENFORCING_MODE": "standard"}, "NETWORK_POLICY_ENFORCING_MODE", "not enforced yet"),
    ],
    ids=str,
)  # fmt: skip
def test_a_setting_without_effect_is_one_warning_that_says_why(
    environ: dict[str, str], name: str, why: str
) -> None:
    told = resolved(**environ)
    assert why in told.chosen[name].effect
    (warning,) = (w for w in told.warnings if f": {name}=" in w)
    assert why in warning


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({"WARM_ENI_TARGET": "1", "WARM_IP_TARGET": "5"}, id="the-manifest's-default"),
        pytest.param({"ENID_POOL": "demand", "WARM_ENI_TARGET": "1"}, id="demand-beside-the-manifest"),
        pytest.param({"ENABLE_BANDWIDTH_PLUGIN": "F"}, id="a-default-in-other-words"),
        pytest.param({"AWS_REGION": "us-east-1", "MY_POD_NAME": "a"}, id="what-is-meant-for-others"),
        pytest.param({"AWS_VPC_K8S_CNI_CONNMARK": "128"}, id="the-same-mark-in-decimal"),
    ],
)  # fmt: skip
def test_what_is_nobodys_wish_is_no_warning(environ: dict[str, str]) -> None:
    assert resolved(**environ).warnings == ()


def test_demand_says_why_the_manifests_target_does_not_count() -> None:
    told = resolved(ENID_POOL="demand", WARM_ENI_TARGET="1")
    assert "counts as not set" in told.chosen["WARM_ENI_TARGET"].effect


# Refused -------------------------------------------------------------------------------
OTHERWISE = {
    "ENABLE_IPv4": "false", "ENABLE_IPv6": "true", "ENABLE_V6_EGRESS": "true",
    "ENABLE_POD_ENI": "true", "NETWORK_POLICY_ENFORCING_MODE": "strict",
}  # fmt: skip


def test_what_is_refused_is_listed_here() -> None:
    assert {s.name for s in SETTINGS if s.fate is Fate.REFUSED} == set(OTHERWISE)


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_cannot_be_ignored_is_refused(name: str) -> None:
    with pytest.raises(RefusedSettingsError) as refused:
        read_settings({name: OTHERWISE[name]})
    assert str(refused.value) == (
        f"environment: {name}={OTHERWISE[name]} is refused: {BY_NAME[name].why}"
    )


# Contradictions ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("environ", "words"),
    [
        pytest.param(
            {"WARM_PREFIX_TARGET": "0", "WARM_IP_TARGET": "0", "MINIMUM_IP_TARGET": "0"} | WITH_PREFIXES,
            "ENABLE_PREFIX_DELEGATION=true with WARM_PREFIX_TARGET=0", id="prefixes-with-all-targets-0",
        ),
        pytest.param(
            {"MAX_ENI": "1", "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": "true"},
            "MAX_ENI must be 2 or more", id="no-eni-for-pods",
        ),
        pytest.param(
            {"ENID_STARTUP_TAINT": "a/b", "ENID_EXHAUSTED_TAINT": "a/b"},
            "are both a/b", id="one-taint-for-two",
        ),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other(environ: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidSettingsError, match=words):
        read_settings(environ)


@pytest.mark.parametrize(
    "environ",
    [
        WITH_PREFIXES,
        WITH_PREFIXES | {"WARM_PREFIX_TARGET": "0", "WARM_IP_TARGET": "1"},
        {"WARM_PREFIX_TARGET": "0"},
        {"MAX_ENI": "1"},
    ],
    ids=str,
)
def test_settings_that_only_look_like_it(environ: dict[str, str]) -> None:
    read_settings(environ)


def test_a_minimum_above_the_pods_is_a_warning() -> None:
    told = resolved(MINIMUM_IP_TARGET="20", ENID_MAX_PODS="10")
    assert told.warnings == (
        "MINIMUM_IP_TARGET=20 is above ENID_MAX_PODS=10: no more than 10 addresses are held",
    )
    assert resolved(MINIMUM_IP_TARGET="10", ENID_MAX_PODS="10").warnings == ()


def test_a_pod_mtu_above_the_enis_is_a_warning() -> None:
    (warning,) = resolved(POD_MTU="9001", AWS_VPC_ENI_MTU="1500").warnings
    assert warning.startswith("POD_MTU=9001 is above the ENIs' 1500: larger packets cost pods")
    assert resolved(POD_MTU="1500", AWS_VPC_ENI_MTU="1500").warnings == ()


@pytest.mark.parametrize(
    ("name", "text", "field", "value", "words"),
    [
        pytest.param("HTTP_TIMEOUT", "5", "http_timeout_seconds", 10, "is below 10 seconds: 10 is taken", id="timeout"),
        pytest.param("MAX_ENI", "0", "max_eni", None, "is below 1 ENIs: not set is taken", id="max-eni"),
        pytest.param("AWS_VPC_K8S_CNI_LOGLEVEL", "Warning", "log_level", "WARN", "is none of DEBUG, INFO, WARN, ERROR, FATAL: WARN is taken", id="warning"),
        pytest.param("AWS_VPC_K8S_CNI_LOGLEVEL", "trace", "log_level", "INFO", "is none of DEBUG, INFO, WARN, ERROR, FATAL: INFO is taken", id="level"),
    ],
)  # fmt: skip
def test_what_the_peer_starts_with_is_taken_from_the_environment_and_said(
    name: str, text: str, field: str, value: object, words: str
) -> None:
    told = resolved(**{name: text})
    assert getattr(told.settings, field) == value
    assert told.warnings == (f"environment: {name}={text} {words}",)
    with pytest.raises(InvalidSettingsError, match=f"ConfigMap: {name}={text} is"):
        resolve(layers_of(Sources(files={name: text})))


@pytest.mark.parametrize(
    ("name", "text"),
    [("HTTP_TIMEOUT", "-5"), ("HTTP_TIMEOUT", "301"), ("MAX_ENI", "-1"), ("MAX_ENI", "few")],
)
def test_what_is_nonsense_is_a_complaint_in_the_environment_too(name: str, text: str) -> None:
    with pytest.raises(InvalidSettingsError, match=f"environment: {name}={text} is"):
        resolved(**{name: text})


def test_every_complaint_comes_at_once_refusals_first() -> None:
    environ = {
        "WARM_ENI_TARGET": "-1", "MAX_ENI": "-1", "MINIMUM_IP_TARGET": "many, or more",
        "ADDITIONAL_ENI_TAGS": "x" * 100, "ENABLE_POD_ENI": "true",
    }  # fmt: skip
    with pytest.raises(SettingsError) as refused:
        read_settings(environ)
    assert refused.value.id == "SETTINGS-REFUSED"
    first, *others = str(refused.value).splitlines()
    assert "ENABLE_POD_ENI=true is refused" in first
    assert others == [
        "environment: WARM_ENI_TARGET=-1 is below 0 ENIs",
        "environment: MINIMUM_IP_TARGET='many, or more' is not a whole number of addresses",
        "environment: MAX_ENI=-1 is below 1 ENIs",
        f"environment: ADDITIONAL_ENI_TAGS='{'x' * 60}…' is not a JSON object of strings",
    ]


# The page ------------------------------------------------------------------------------
def test_the_reference_names_every_setting() -> None:
    page = "\n".join(render_settings())
    assert all(f"| `{s.name}` | {s.fate.value} |" in page for s in SETTINGS)


def test_no_cell_breaks_the_page() -> None:
    rows = [line for line in render_settings() if line.startswith("| `")]
    assert {line.count("|") for line in rows} == {8}


def test_the_help_names_what_has_an_effect() -> None:
    lines = list(render_help())
    assert all(len(line) < 160 and not line.endswith(".") for line in lines)
    named = {line.split()[0] for line in lines}
    assert named == {s.name for s in SETTINGS if s.fate in {Fate.HONOURED, Fate.DIFFERENT}}


def test_settings_can_be_compared() -> None:
    first: Any = read_settings({"ADDITIONAL_ENI_TAGS": '{"a": "1"}'})
    assert first == read_settings({"ADDITIONAL_ENI_TAGS": '{"a":"1"}'})
