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
    NetConf,
    Pod,
    Request,
    Sandbox,
    Verb,
    error_json,
    parse_request,
    result_json,
)

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
    return parse_request(full, stdin)


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
        pytest.param({**CONF, "mtu": 100}, {}, Code.INVALID_CONFIG, "576 to 9001", id="mtu-small"),
        pytest.param({**CONF, "mtu": True}, {}, Code.INVALID_CONFIG, "576 to 9001", id="mtu-a-truth"),
        pytest.param({**CONF, "ipam": {"type": "host-local"}}, {}, Code.INVALID_CONFIG, "host-local", id="ipam"),
        pytest.param({**CONF, "prevResult": {}}, {}, Code.INVALID_CONFIG, "first plugin", id="chained-behind"),
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
