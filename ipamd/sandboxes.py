"""The sandboxes that a runtime keeps of our network, from libcni's cache of results. Pure.

libcni writes one file per attachment, /var/lib/cni/results/NETWORK-CONTAINERID-IFNAME, behind
each ADD that succeeded, and removes it behind the DEL: it is what the runtime believes to run.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any

from cni.dataplane import Address
from cni.spec import Sandbox

OUR_TYPE = "enid-cni"


@dataclass(frozen=True, slots=True)
class KnownSandbox:
    """One sandbox of our network. *who* is the pod, as an operator calls it."""

    sandbox: Sandbox
    addresses: tuple[Address, ...]
    who: str


def read_cached(text: str) -> KnownSandbox | None:
    """Return the sandbox that a file tells of; None if it is not ours, or not to be read."""
    try:
        return _read(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _read(kept: dict[str, Any]) -> KnownSandbox | None:
    if OUR_TYPE not in _types(json.loads(base64.b64decode(kept["config"]))):
        return None
    sandbox = Sandbox(kept["networkName"], kept["containerId"], kept["ifName"])
    told = dict(kept.get("cniArgs") or ())
    namespace, name = told.get("K8S_POD_NAMESPACE", ""), told.get("K8S_POD_NAME", "")
    return KnownSandbox(
        sandbox=sandbox,
        addresses=tuple(_addresses(kept.get("result") or {})),
        who=f"{namespace}/{name}" if name else sandbox.container_id[:12],
    )


def _types(config: dict[str, Any]) -> list[str]:
    """Return the types of the plugins of a list, or of a plugin's own configuration."""
    plugins = config.get("plugins") or [config]
    return [str(plugin.get("type")) for plugin in plugins]


def _addresses(result: dict[str, Any]) -> Iterator[Address]:
    for ip in result.get("ips") or ():
        yield ip_interface(ip["address"]).ip
