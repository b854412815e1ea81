"""A runtime's stand-in on one node: execs the plugin as libcni does. Shell.

What a container runtime does around a sandbox and nothing else: it reads the first conflist
in lexical order, hands the plugin CNI_* variables in a clean environment and its own object
of the conflist on stdin, and keeps each result in /var/lib/cni/results for the DEL.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

from vpclab.node import Node, PodNetns

CONF_DIR, BIN_DIR, CACHE_DIR = "/etc/cni/net.d", "/opt/cni/bin", "/var/lib/cni/results"
IFNAME = "eth0"
PLUGIN_VARIABLE = "ENID_PLUGIN"
"""Names a plugin file, of `make plugin`, which all nodes of the lab then have."""

CONFLIST = Path(__file__).parents[1] / "config" / "05-enid.conflist"
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of the plugin: a service manager's, which is what containerd passes on."""

ANSWER_SECONDS = 240.0
"""How long kubelet lets a sandbox take (cri-client: twice its runtimeRequestTimeout)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one exec of the plugin gave: *result* is None for a failure and for a DEL."""

    code: int
    result: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    stderr: str
    milliseconds: float

    @property
    def ok(self) -> bool:
        """Whether the verb was done."""
        return self.code == 0

    @property
    def address(self) -> IPv4Address:
        """The pod's address. Raises PluginError if there is none."""
        if self.result is None:
            raise PluginError(self.complaint)
        return IPv4Interface(self.result["ips"][0]["address"]).ip

    @property
    def complaint(self) -> str:
        """What went wrong, in the plugin's own words."""
        error = self.error or {}
        words = "; ".join(str(error[key]) for key in ("msg", "details") if error.get(key))
        return words or self.stderr.strip() or f"the plugin exited with {self.code}"


class PluginError(Exception):
    """The plugin failed; its own words are in the text."""


@dataclass(frozen=True, slots=True)
class PodName:
    """What Kubernetes calls a pod; None are no annotations, as containerd tells it."""

    namespace: str
    name: str
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    annotations: Mapping[str, str] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One sandbox: its id, its pod and its network namespace as the node sees it."""

    container_id: str
    pod: PodName
    netns: str

    @staticmethod
    def of(netns: PodNetns, namespace: str, name: str) -> Sandbox:
        """Return a new sandbox of a pod."""
        return Sandbox(secrets.token_hex(32), PodName(namespace, name), netns.path)

    @property
    def arguments(self) -> tuple[tuple[str, str], ...]:
        """What CNI_ARGS says; containerd's order is random, so ours is free."""
        return (
            ("K8S_POD_NAMESPACE", self.pod.namespace),
            ("K8S_POD_NAME", self.pod.name),
            ("K8S_POD_INFRA_CONTAINER_ID", self.container_id),
            ("K8S_POD_UID", self.pod.uid),
            ("IgnoreUnknown", "1"),
        )


CAPABILITIES: Mapping[str, Callable[[Sandbox], object]] = {
    "io.kubernetes.cri.pod-annotations": lambda sandbox: sandbox.pod.annotations
}
"""What we tell a plugin whose capabilities ask for it, of what containerd tells."""


def _is_on(plugin: Mapping[str, Any], name: str) -> bool:
    return bool(plugin.get("capabilities", {}).get(name))


class Exec:
    """One exec of the plugin that may still run."""

    def __init__(self, process: subprocess.Popen[str], stdin: str) -> None:
        self._process, self._since = process, time.perf_counter()
        assert process.stdin is not None  # noqa: S101 - a pipe
        with contextlib.suppress(BrokenPipeError):  # it refused before it had read
            process.stdin.write(stdin)
            process.stdin.close()
        process.stdin = None

    @property
    def is_waiting(self) -> bool:
        """Whether there is no answer yet."""
        return self._process.poll() is None

    def wait(self, timeout: float = ANSWER_SECONDS) -> Answer:
        """Return the answer; after *timeout* seconds kill the plugin, as a runtime does."""
        try:
            stdout, stderr = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            stdout, stderr = self._process.communicate()
            stderr += f"no answer within {timeout:g} s"
        milliseconds = (time.perf_counter() - self._since) * 1e3
        code = self._process.returncode
        try:
            said = json.loads(stdout) if stdout.strip() else None
        except ValueError:
            said, stderr = None, f"{stderr}stdout is not JSON: {stdout[:200]!r}"
        done = code == 0
        return Answer(code, said if done else None, None if done else said, stderr, milliseconds)


def plugin_file() -> bytes:
    """Return the plugin as a node execs it: the file that ENID_PLUGIN names, else its source.

    The source stands behind the interpreter's name: it needs no package beside it.
    """
    if chosen := os.environ.get(PLUGIN_VARIABLE):
        return Path(chosen).read_bytes()
    spec = find_spec("cni.plugin")
    assert spec is not None  # noqa: S101 - our own package
    assert spec.origin is not None  # noqa: S101 - it is a file
    return f"#!{sys.executable} -IS\n".encode() + Path(spec.origin).read_bytes()


class Runtime:
    """What a kubelet's runtime is to the plugin, on one node."""

    def __init__(self, node: Node) -> None:
        self.node = node

    # Install ---------------------------------------------------------------------------
    def install(self, conflist: Path = CONFLIST, plugin: Path | None = None) -> None:
        """Put plugin and conflist into the node, as the init container does: draft, rename.

        *plugin* is a file that a node can exec, as `make plugin` builds one.
        """
        self._put(BIN_DIR, "enid-cni", plugin.read_bytes() if plugin else plugin_file(), 0o755)
        self._put(CONF_DIR, conflist.name, conflist.read_bytes(), 0o644)

    def _put(self, folder: str, name: str, content: bytes, mode: int) -> None:
        """Write a file whole: containerd's watcher sees renames within the folder only."""
        draft = self.node.path(folder) / f".{name}.tmp"
        draft.write_bytes(content)
        draft.chmod(mode)
        draft.rename(draft.with_name(name))

    # Verbs -----------------------------------------------------------------------------
    def add(self, sandbox: Sandbox, timeout: float = ANSWER_SECONDS) -> Answer:
        """ADD, and keep the result."""
        return self.finish_add(sandbox, self.start_add(sandbox), timeout)

    def start_add(self, sandbox: Sandbox) -> Exec:
        """Start an ADD that may have to wait; `finish_add` takes its answer."""
        return self._exec("ADD", sandbox, sandbox.netns, None)

    def finish_add(self, sandbox: Sandbox, exec_: Exec, timeout: float = ANSWER_SECONDS) -> Answer:
        """Return the answer of an ADD that was started, and keep the result."""
        answer = exec_.wait(timeout)
        if answer.result is not None:
            self._cache(sandbox).parent.mkdir(parents=True, exist_ok=True)
            self._cache(sandbox).write_text(json.dumps(self._cached(sandbox, answer.result)))
        return answer

    def delete(
        self, sandbox: Sandbox, *, with_netns: bool = True, timeout: float = ANSWER_SECONDS
    ) -> Answer:
        """DEL with the result of the ADD, which is forgotten when the DEL is done."""
        cache = self._cache(sandbox)
        former = json.loads(cache.read_text())["result"] if cache.exists() else None
        netns = sandbox.netns if with_netns else ""
        answer = self._exec("DEL", sandbox, netns, former).wait(timeout)
        if answer.ok:
            cache.unlink(missing_ok=True)
        return answer

    def conflist(self) -> dict[str, Any]:
        """Return the node's network: the first conflist in lexical order."""
        folder = self.node.path(CONF_DIR)
        first = min(p for p in folder.iterdir() if p.suffix == ".conflist")
        found: dict[str, Any] = json.loads(first.read_text())
        return found

    def _exec(
        self, verb: str, sandbox: Sandbox, netns: str, former: Mapping[str, Any] | None
    ) -> Exec:
        network = self.conflist()
        plugin = network["plugins"][0]
        stdin = {**plugin, "name": network["name"], "cniVersion": network["cniVersion"]}
        if told := {name: of(sandbox) for name, of in CAPABILITIES.items() if _is_on(plugin, name)}:
            stdin["runtimeConfig"] = told
        if former is not None:
            stdin["prevResult"] = former
        environment = {
            "PATH": SEARCH,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": sandbox.container_id,
            "CNI_NETNS": netns,
            "CNI_IFNAME": IFNAME,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in sandbox.arguments),
            "CNI_PATH": BIN_DIR,
        }
        # `env -i`: a runtime passes its own environment on, and a node's is not ours.
        argv = ["env", "-i", *(f"{key}={value}" for key, value in environment.items())]
        process = self.node.popen(
            [*argv, f"{BIN_DIR}/{plugin['type']}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        return Exec(process, json.dumps(stdin))

    def _cache(self, sandbox: Sandbox) -> Path:
        name = f"{self.conflist()['name']}-{sandbox.container_id}-{IFNAME}"
        return self.node.path(CACHE_DIR) / name

    def _cached(self, sandbox: Sandbox, result: Mapping[str, Any]) -> dict[str, Any]:
        """Return what libcni keeps of an attachment."""
        network = self.conflist()
        return {
            "kind": "cniCacheV1",
            "containerId": sandbox.container_id,
            "config": base64.b64encode(json.dumps(network).encode()).decode(),
            "ifName": IFNAME,
            "networkName": network["name"],
            "cniArgs": [list(pair) for pair in sandbox.arguments],
            "result": result,
        }
