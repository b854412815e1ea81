"""What libcni's cache tells of the sandboxes that a runtime keeps."""

from __future__ import annotations

import base64
import json
from ipaddress import ip_address
from typing import Any

import pytest

from cni.spec import Sandbox
from ipamd.sandboxes import KnownSandbox, read_cached


def coded(config: object) -> str:
    return base64.b64encode(json.dumps(config).encode()).decode()


def kept(**changes: Any) -> str:
    usual = {
        "kind": "cniCacheV1",
        "containerId": "c" * 64,
        "config": coded({"name": "enid", "plugins": [{"type": "enid-cni"}, {"type": "portmap"}]}),
        "ifName": "eth0",
        "networkName": "enid",
        "cniArgs": [["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "web"]],
        "result": {"ips": [{"address": "10.0.0.5/32"}, {"address": "2001:db8::5/128"}]},
    }
    return json.dumps(usual | changes)


def test_a_file_tells_who_has_which_addresses() -> None:
    addresses = (ip_address("10.0.0.5"), ip_address("2001:db8::5"))
    sandbox = Sandbox("enid", "c" * 64, "eth0")
    assert read_cached(kept()) == KnownSandbox(sandbox, addresses, "default/web")


def test_a_single_plugins_configuration_is_read_too() -> None:
    assert read_cached(kept(config=coded({"type": "enid-cni"}))) is not None


def test_without_arguments_a_sandbox_has_its_id_for_a_name() -> None:
    found = read_cached(kept(cniArgs=None, result=None))
    assert found is not None
    assert (found.who, found.addresses) == ("c" * 12, ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        kept(config="%"),
        kept(config=coded([])),
        kept(result={"ips": [{"address": "x"}]}),
        kept(config=coded({"type": "bridge"})),
        json.dumps({"kind": "cniCacheV1"}),
    ],
    ids=["empty", "list", "null", "config", "configs", "address", "others", "bare"],
)
def test_what_is_not_ours_or_torn_is_nothing(text: str) -> None:
    assert read_cached(text) is None
