"""The CNI's words: every complaint at once, every version's shape."""

from __future__ import annotations

import json
from ipaddress import ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.spec import (
    VERSIONS,
    Attached,
    CniError,
    Code,
    Collect,
    Interface,
    NetConf,
    Pod,
    Previous,
    Request,
    Sandbox,
    Verb,
    error_json,
    parse_request,
    result_json,
)

ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
ENV = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c" * 64,
    "CNI_NETNS": "/run/netns/x",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "K8S_POD_UID=u;IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web-0",
}
CONF = {"cniVersion": "1.0.0", "name": "enid", "type": "enid-cni", "mtu": 9001}


def ask(conf: object = CONF, **env: str | None) -> Request:
    full = {k: v for k, v in {**ENV, **env}.items() if v is not None}
    stdin = conf if isinstance(conf, bytes) else json.dumps(conf).encode()
    request = parse_request(full, stdin)
    assert isinstance(request, Request)
    return request


def test_an_add_is_read_whole() -> None:
    assert ask() == Request(
        verb=Verb.ADD,
        sandbox=Sandbox("enid", "c" * 64, "eth0"),
        netns_path="/run/netns/x",
        pod=Pod("prod", "web-0", "u"),
        conf=NetConf("1.0.0", "enid", 9001),
    )


def test_a_del_needs_no_netns_and_takes_a_prev_result() -> None:
    request = ask({**CONF, "prevResult": {"ips": []}}, CNI_COMMAND="DEL", CNI_NETNS=None)
    assert request.verb is Verb.DEL
    assert request.netns_path == ""


RESULT = {
    "cniVersion": "1.1.0",
    "interfaces": [
        {"name": "eni0", "mac": "0A:58:a9:fe:01:01", "mtu": 9001},
        {"name": "eth0", "mac": "0a:58:0a:00:01:14", "sandbox": "/run/netns/x"},
    ],
    "ips": [{"address": "10.0.1.20/32", "gateway": "169.254.1.1", "interface": 1}],
}
CHECK: dict[str, object] = {**CONF, "prevResult": RESULT}


def test_a_check_knows_what_the_runtime_remembers() -> None:
    request = ask(CHECK, CNI_COMMAND="CHECK")
    assert request.verb is Verb.CHECK
    assert request.previous == Previous(
        (
            Interface("eni0", "0a:58:a9:fe:01:01", "", 9001),
            Interface("eth0", "0a:58:0a:00:01:14", "/run/netns/x", None),
        ),
        (ip_interface("10.0.1.20/32"),),
    )


@pytest.mark.parametrize(
    "result",
    [
        pytest.param({"ips": None, "interfaces": None}, id="null-lists"),
        pytest.param({}, id="nothing-in-it"),
        pytest.param({"IPs": [], "Interfaces": []}, id="keys-in-another-case"),
    ],
)
def test_a_result_that_tells_nothing_is_one_all_the_same(result: object) -> None:
    assert ask({**CONF, "prevResult": result}, CNI_COMMAND="CHECK").previous == Previous()


def collect(**conf: object) -> Collect:
    full = {"cniVersion": "1.1.0", "name": "enid", "type": "enid-cni", **conf}
    request = parse_request({"CNI_COMMAND": "GC"}, json.dumps(full).encode())
    assert isinstance(request, Collect)
    return request


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_a_gc_knows_what_is_still_valid_and_needs_no_sandbox(key: str) -> None:
    listed = [{"containerID": "c1", "ifname": "eth0"}, {"containerID": "c2", "ifName": "net1"}]
    asked = collect(**{key: listed})
    assert asked.conf.name == "enid"
    assert asked.valid == {("c1", "eth0"), ("c2", "net1")}


@pytest.mark.parametrize("listed", [[], None], ids=["empty", "null-as-gos-empty-list"])
def test_a_gc_may_know_nothing(listed: object) -> None:
    assert collect(**{"cni.dev/valid-attachments": listed}).valid == frozenset()


@pytest.mark.parametrize(
    ("conf", "mtu"),
    [
        pytest.param({}, 9001, id="the-configurations"),
        pytest.param({"mtu": None}, None, id="the-enis"),
        pytest.param({"mtu": None, "MTU": 1500}, None, id="the-exact-key-wins"),
        pytest.param({"runtimeConfig": {ANNOTATIONS: {"enid.dev/mtu": "1400"}}}, 1400, id="the-pods"),
        pytest.param({"runtimeconfig": {ANNOTATIONS.upper(): {"enid.dev/mtu": "1400"}}}, 1400, id="in-any-case"),
        pytest.param({"runtimeConfig": {ANNOTATIONS: {"a": "b"}}}, 9001, id="other-annotations"),
        pytest.param({"runtimeConfig": {ANNOTATIONS: None}}, 9001, id="null-annotations"),
        pytest.param({"runtimeConfig": {"dns": None, "portMappings": None}}, 9001, id="others-capabilities"),
        pytest.param({"runtimeConfig": {"ips": None, "mac": "", "ipRanges": []}}, 9001, id="capabilities-that-ask-for-nothing"),
        pytest.param({"runtimeConfig": None}, 9001, id="null"),
        pytest.param({"ipam": {}}, 9001, id="ipam-empty"),
        pytest.param({"ipam": None}, 9001, id="ipam-null"),
        pytest.param({"ipam": {"type": "enid-cni"}}, 9001, id="ipam-ours"),
        pytest.param({"IPAM": {"Type": "enid-cni"}}, 9001, id="ipam-ours-in-any-case"),
    ],
)  # fmt: skip
def test_a_pods_mtu_is_its_annotations_or_the_configurations(
    conf: dict[str, object], mtu: int | None
) -> None:
    assert ask({**CONF, **conf}).conf.mtu == mtu


def test_a_del_succeeds_whatever_became_of_the_configuration() -> None:
    request = ask(
        {**CONF, "mtu": 1, "ipam": {"type": "x"}}, CNI_COMMAND="DEL", CNI_ARGS="K8S_POD_UID=-"
    )
    assert (request.conf.mtu, request.pod.uid) == (None, "")


def test_a_pod_without_cni_args_is_nameless() -> None:
    assert ask(CNI_ARGS=None).pod == Pod("", "", "")


@pytest.mark.parametrize(
    ("conf", "env", "code", "words"),
    [
        pytest.param(b"", {}, Code.DECODE, "is empty", id="stdin-empty"),
        pytest.param(b"{", {}, Code.DECODE, "is not JSON", id="stdin-torn"),
        pytest.param(b"[" * 100_000, {}, Code.DECODE, "is not JSON", id="stdin-nested"),
        pytest.param(b"[]", {}, Code.DECODE, "not a JSON object", id="stdin-a-list"),
        pytest.param({**CONF, "cniVersion": "0.2.0"}, {}, Code.INCOMPATIBLE_VERSION, "0.2.0", id="too-old"),
        pytest.param({**CONF, "cniVersion": "2.0.0"}, {}, Code.INCOMPATIBLE_VERSION, "2.0.0", id="too-new"),
        pytest.param({**CONF, "cniVersion": 1}, {}, Code.INCOMPATIBLE_VERSION, "1", id="version-a-number"),
        pytest.param({**CONF, "name": ""}, {}, Code.INVALID_CONFIG, "not a network's name", id="no-name"),
        pytest.param({**CONF, "name": "a/b"}, {}, Code.INVALID_CONFIG, "not a network's name", id="slash"),
        pytest.param({**CONF, "name": 7}, {}, Code.INVALID_CONFIG, "name 7 is not a network's name", id="name-a-number"),
        pytest.param({**CONF, "name": None}, {}, Code.INVALID_CONFIG, "name None is not a network's name", id="name-null"),
        pytest.param({**CONF, "mtu": "1500"}, {}, Code.INVALID_CONFIG, "mtu '1500' is not within 576 to 9001", id="mtu-a-text"),
        pytest.param({**CONF, "mtu": [1500]}, {}, Code.INVALID_CONFIG, "576 to 9001", id="mtu-a-list"),
        pytest.param({**CONF, "ipam": ["x"]}, {}, Code.INVALID_CONFIG, "ipam of type ['x']", id="ipam-a-list"),
        pytest.param({**CONF, "cniVersion": ["1.0.0"]}, {}, Code.INCOMPATIBLE_VERSION, "['1.0.0'] is not one of", id="version-a-list"),
        pytest.param({**CONF, "cniVersion": "1.0"}, {}, Code.INCOMPATIBLE_VERSION, "'1.0' is not one of", id="version-half"),
        pytest.param({k: v for k, v in CONF.items() if k != "cniVersion"}, {}, Code.INCOMPATIBLE_VERSION, "'0.1.0' is not one of", id="no-version"),
        pytest.param({**CONF, "mtu": 100}, {}, Code.INVALID_CONFIG, "576 to 9001", id="mtu-small"),
        pytest.param({**CONF, "mtu": True}, {}, Code.INVALID_CONFIG, "576 to 9001", id="mtu-a-truth"),
        pytest.param({**CONF, "ipam": {"type": "host-local"}}, {}, Code.INVALID_CONFIG, "host-local", id="ipam"),
        pytest.param({**CONF, "ipam": "host-local"}, {}, Code.INVALID_CONFIG, "'host-local'", id="ipam-a-text"),
        pytest.param({**CONF, "ipam": {"type": ["x"]}}, {}, Code.INVALID_CONFIG, "['x']", id="ipam-type-a-list"),
        pytest.param({**CONF, "name": "x" * 100_000}, {}, Code.INVALID_CONFIG, "xxx", id="name-too-long"),
        pytest.param({**CONF, "prevResult": {}}, {}, Code.INVALID_CONFIG, "first plugin", id="chained-behind"),
        pytest.param({**CONF, "runtimeConfig": []}, {}, Code.INVALID_CONFIG, "runtimeConfig is not a JSON object", id="runtime-config-a-list"),
        pytest.param({**CONF, "runtimeConfig": {ANNOTATIONS: "x"}}, {}, Code.INVALID_CONFIG, "pod-annotations is not a JSON object", id="annotations-a-text"),
        pytest.param({**CONF, "runtimeConfig": {ANNOTATIONS: {"enid.dev/mtu": "big"}}}, {}, Code.INVALID_CONFIG, "enid.dev/mtu='big' is not within 576 to 9001", id="annotation-no-number"),
        pytest.param({**CONF, "runtimeConfig": {ANNOTATIONS: {"enid.dev/mtu": "9002"}}}, {}, Code.INVALID_CONFIG, "enid.dev/mtu='9002'", id="annotation-too-large"),
        pytest.param({**CONF, "runtimeConfig": {ANNOTATIONS: {"enid.dev/mtu": 1400}}}, {}, Code.INVALID_CONFIG, "enid.dev/mtu=1400", id="annotation-not-a-text"),
        pytest.param({**CONF, "runtimeConfig": {"ips": ["10.0.0.9/24"]}}, {}, Code.INVALID_CONFIG, "capability ips cannot be used", id="an-address-of-its-own"),
        pytest.param({**CONF, "runtimeConfig": {"MAC": "0a:00:00:00:00:01"}}, {}, Code.INVALID_CONFIG, "capability mac cannot be used", id="a-mac-of-its-own"),
        pytest.param({**CHECK, "cniVersion": "0.3.1"}, {"CNI_COMMAND": "CHECK"}, Code.INCOMPATIBLE_VERSION, "0.3.1 does not allow CHECK, which came with 0.4.0", id="check-too-early"),
        pytest.param(CONF, {"CNI_COMMAND": "CHECK"}, Code.INVALID_CONFIG, "CHECK needs prevResult", id="check-of-nothing"),
        pytest.param(b"{", {"CNI_COMMAND": "CHECK"}, Code.DECODE, "is not JSON", id="check-torn"),
        pytest.param({**CONF, "prevResult": []}, {"CNI_COMMAND": "CHECK"}, Code.DECODE, "is not a JSON object", id="result-a-list"),
        pytest.param({**CONF, "prevResult": {"ips": "x"}}, {"CNI_COMMAND": "CHECK"}, Code.DECODE, "ips is not a list", id="ips-a-text"),
        pytest.param({**CONF, "prevResult": {"ips": [{"address": "x"}]}}, {"CNI_COMMAND": "CHECK"}, Code.DECODE, "prevResult is not the result of an ADD", id="ip-no-address"),
        pytest.param({**CONF, "prevResult": {"ips": [7]}}, {"CNI_COMMAND": "CHECK"}, Code.DECODE, "7 is not a JSON object", id="ip-a-number"),
        pytest.param({**CONF, "prevResult": {"interfaces": [7]}}, {"CNI_COMMAND": "CHECK"}, Code.DECODE, "7 is not a JSON object", id="interface-a-number"),
        pytest.param({**CONF, "prevResult": {"interfaces": [{"name": 7}]}}, {"CNI_COMMAND": "CHECK"}, Code.DECODE, "name 7 is not a text", id="interface-name-a-number"),
        pytest.param({**CONF, "prevResult": {"interfaces": [{"mtu": "9001"}]}}, {"CNI_COMMAND": "CHECK"}, Code.DECODE, "mtu '9001' is not a number", id="interface-mtu-a-text"),
        pytest.param({**CONF, "cniVersion": "1.0.0"}, {"CNI_COMMAND": "GC"}, Code.INCOMPATIBLE_VERSION, "1.0.0 does not allow GC, which came with 1.1.0", id="gc-too-early"),
        pytest.param({**CONF, "cniVersion": "1.1.0"}, {"CNI_COMMAND": "GC"}, Code.INVALID_CONFIG, "nothing is released", id="gc-without-a-list"),
        pytest.param({**CONF, "cniVersion": "1.1.0", "cni.dev/valid-attachments": "all"}, {"CNI_COMMAND": "GC"}, Code.DECODE, "is not a list", id="gc-no-list"),
        pytest.param({**CONF, "cniVersion": "1.1.0", "cni.dev/valid-attachments": ["c1"]}, {"CNI_COMMAND": "GC"}, Code.DECODE, "'c1' is not a JSON object", id="gc-of-texts"),
        pytest.param(b"{", {"CNI_COMMAND": "GC"}, Code.DECODE, "is not JSON", id="gc-torn"),
        pytest.param(CONF, {"CNI_COMMAND": "FROB"}, Code.INVALID_ENVIRONMENT, "FROB", id="verb"),
        pytest.param(CONF, {"CNI_IFNAME": "a/b"}, Code.INVALID_ENVIRONMENT, "CNI_IFNAME", id="ifname-slash"),
        pytest.param(CONF, {"CNI_IFNAME": "e" * 16}, Code.INVALID_ENVIRONMENT, "CNI_IFNAME", id="ifname-long"),
        pytest.param(CONF, {"CNI_IFNAME": "eth%d"}, Code.INVALID_ENVIRONMENT, "CNI_IFNAME", id="ifname-a-pattern"),
        pytest.param(CONF, {"CNI_ARGS": "K8S_POD_UID=a b"}, Code.INVALID_ENVIRONMENT, "K8S_POD_UID='a b'", id="uid-two-words"),
        pytest.param(CONF, {"CNI_ARGS": "K8S_POD_NAME=\udcff"}, Code.INVALID_ENVIRONMENT, "K8S_POD_NAME", id="pod-name-of-bytes"),
        pytest.param(CONF, {"CNI_CONTAINERID": "../x"}, Code.INVALID_ENVIRONMENT, "CNI_CONTAINERID", id="path-id"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_sentence(
    conf: object, env: dict[str, str], code: Code, words: str
) -> None:
    with pytest.raises(CniError) as refused:
        ask(conf, **env)
    assert refused.value.code is code
    assert words in refused.value.msg
    assert len(refused.value.msg) < 500
    assert refused.value.details


def test_every_missing_variable_is_named_at_once() -> None:
    with pytest.raises(CniError) as refused:
        parse_request({}, json.dumps(CONF).encode())
    assert refused.value.msg == "CNI_COMMAND, CNI_CONTAINERID, CNI_IFNAME, CNI_NETNS missing"


def test_all_complaints_come_together() -> None:
    with pytest.raises(CniError) as refused:
        ask({**CONF, "cniVersion": "9", "mtu": 1}, CNI_IFNAME="")
    assert all(word in refused.value.msg for word in ("CNI_IFNAME", "cniVersion", "mtu"))


@given(st.dictionaries(st.sampled_from(list(ENV)), st.text()), st.binary(max_size=200))
def test_no_input_crashes_it(env: dict[str, str], stdin: bytes) -> None:
    try:
        parse_request(env, stdin)
    except CniError as error:
        json.loads(error_json(error, "1.0.0"))


ATTACHED = Attached(
    host_ifname="eni0123456789a",
    host_mac="0a:58:a9:fe:01:01",
    pod_mac="0a:58:0a:00:01:14",
    ifname="eth0",
    netns_path="/run/netns/x",
    addresses=(ip_interface("10.0.1.20/32"), ip_interface("fd00::20/128")),
    mtu=9001,
)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_result_has_the_shape_of_its_version(version: str) -> None:
    result = json.loads(result_json(version, ATTACHED))
    assert result["cniVersion"] == version
    assert [i["name"] for i in result["interfaces"]] == ["eni0123456789a", "eth0"]
    assert "sandbox" not in result["interfaces"][0]
    assert result["interfaces"][1]["sandbox"] == "/run/netns/x"
    assert [ip["interface"] for ip in result["ips"]] == [1, 1]
    assert result["ips"][0]["gateway"] == "169.254.1.1"
    assert [r["dst"] for r in result["routes"]] == ["0.0.0.0/0", "::/0"]
    assert ("version" in result["ips"][0]) == version.startswith("0.")
    assert ("mtu" in result["interfaces"][1]) == (version == "1.1.0")
