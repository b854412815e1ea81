"""The CNI specification's words: what is asked, what is answered, in every version. Pure.

Parsed at the border with every complaint at once, trusted afterwards. An answer's shape is
decided by the *configuration's* cniVersion, never by ours. Long, because it is one contract:
whoever compares it with the specification finds all of it here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Any

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""What we speak; containerd before 2.0 takes results up to 1.0.0 only."""

FALLBACK_VERSION = "1.0.0"
"""What an error is told in when the configuration cannot be read."""

GATEWAYS = {4: "169.254.1.1", 6: "fe80::1"}
"""A pod's gateway: link-local, the same everywhere, and on no interface."""


MTU_ANNOTATION = "enid.dev/mtu"
"""A pod's annotation: the MTU of its interface."""

ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
"""The capability by which a runtime hands a pod's annotations to a plugin (containerd, CRI-O)."""

VALID_ATTACHMENTS = ("cni.dev/valid-attachments", "cni.dev/attachments")
"""What a runtime still knows, of a GC: 1.1.0's key, and the one that libcni writes beside it."""


class Verb(StrEnum):
    """What the daemon is asked; VERSION and STATUS are the plugin's own."""

    ADD = "ADD"
    DEL = "DEL"
    CHECK = "CHECK"
    GC = "GC"


SINCE: Mapping[Verb, str] = {Verb.CHECK: "0.4.0", Verb.GC: "1.1.0"}
"""The version of the specification that brought a verb."""


class Code(IntEnum):
    """The specification's error codes that we use; from 100 on they are a plugin's own."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO = 5
    DECODE = 6
    INVALID_CONFIG = 7
    TRY_AGAIN_LATER = 11
    PLUGIN_NOT_AVAILABLE = 50
    NOT_AS_WIRED = 100


class CniError(Exception):
    """A refusal: *msg* says what and which object, *details* the next step."""

    def __init__(self, code: Code, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code, self.msg, self.details = code, msg, details


@dataclass(frozen=True, slots=True, order=True)
class Sandbox:
    """The identity of an attachment."""

    network: str
    container_id: str
    ifname: str


@dataclass(frozen=True, slots=True)
class Pod:
    """Whose it is, as CNI_ARGS tells; any of it may be empty."""

    namespace: str = ""
    name: str = ""
    uid: str = ""


@dataclass(frozen=True, slots=True)
class NetConf:
    """Our part of the network configuration; *mtu* is the pod's, None means the ENI's."""

    cni_version: str
    name: str
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface as a result tells of it; *mtu* None before 1.1.0."""

    name: str
    mac: str
    sandbox: str
    mtu: int | None


@dataclass(frozen=True, slots=True)
class Previous:
    """What a runtime remembers of an ADD: the result of all plugins of its list."""

    interfaces: tuple[Interface, ...] = ()
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One verb for one attachment; *previous* is there for a CHECK."""

    verb: Verb
    sandbox: Sandbox
    netns_path: str
    pod: Pod
    conf: NetConf
    previous: Previous | None = None


@dataclass(frozen=True, slots=True)
class Collect:
    """A GC: all attachments of a network but *valid*, by container id and ifname, may go."""

    conf: NetConf
    valid: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Attached:
    """What an ADD has made."""

    host_ifname: str
    host_mac: str
    pod_mac: str
    ifname: str
    netns_path: str
    addresses: tuple[IPv4Interface | IPv6Interface, ...]
    mtu: int


# All of these become words of the link's alias, which holds 255 bytes, or of a file's name.
_CONTAINER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}")
_IFNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,14}")  # IFNAMSIZ less its NUL
_NETWORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
_POD_WORD = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_.\-]{0,252})?")
_MIN_MTU, _MAX_MTU = 576, 9001  # RFC 791's smallest datagram; an ENI's largest packet
_MTU_RANGE = f"within {_MIN_MTU} to {_MAX_MTU}"
_NUMBER = re.compile(r"[0-9]{1,5}")
_NOT_OURS = ("ips", "ipRanges", "mac")  # capabilities that choose what EC2 chooses


@dataclass(slots=True)
class _Complaints:
    """What is wrong, by code; the first code is told, every text is."""

    code: Code | None = None
    texts: list[str] = field(default_factory=list)

    def add(self, code: Code, text: str) -> None:
        self.code = self.code or code
        self.texts.append(text)

    def settle(self) -> None:
        if self.code is not None:
            raise CniError(self.code, "; ".join(self.texts), "correct the runtime's call")


def parse_request(env: Mapping[str, str], stdin: bytes) -> Request | Collect:
    """Return what the runtime asks. Raises CniError with every complaint at once."""
    complaints = _Complaints()
    verb = _verb(env, complaints)
    _require(env, verb, complaints)
    raw = _object(stdin, complaints)
    conf = _conf(raw, verb, complaints)
    pod = _pod(env.get("CNI_ARGS", ""), verb, complaints)
    previous = _previous(raw, complaints) if verb is Verb.CHECK else None
    valid = _valid(raw, complaints) if verb is Verb.GC else frozenset[tuple[str, str]]()
    complaints.settle()
    assert verb is not None  # noqa: S101 - settled
    assert conf is not None  # noqa: S101 - settled
    if verb is Verb.GC:
        return Collect(conf, valid)
    return Request(
        verb=verb,
        sandbox=Sandbox(conf.name, env["CNI_CONTAINERID"], env["CNI_IFNAME"]),
        netns_path=env.get("CNI_NETNS", ""),
        pod=pod,
        conf=conf,
        previous=previous,
    )


# Environment ---------------------------------------------------------------------------
def _verb(env: Mapping[str, str], complaints: _Complaints) -> Verb | None:
    text = env.get("CNI_COMMAND", "")
    if text in Verb.__members__:
        return Verb(text)
    if text:
        complaints.add(Code.INVALID_ENVIRONMENT, f"CNI_COMMAND={text!r:.80} is not known here")
    return None


def _require(env: Mapping[str, str], verb: Verb | None, complaints: _Complaints) -> None:
    if verb is Verb.GC:  # it is about a network, not about a sandbox
        return
    names = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME"]
    if verb is not Verb.DEL:
        names.append("CNI_NETNS")
    missing = [name for name in names if not env.get(name)]
    if missing:
        complaints.add(Code.INVALID_ENVIRONMENT, f"{', '.join(missing)} missing")
    container_id, ifname = env.get("CNI_CONTAINERID"), env.get("CNI_IFNAME")
    if container_id and not _CONTAINER_ID.fullmatch(container_id):
        complaints.add(Code.INVALID_ENVIRONMENT, "CNI_CONTAINERID is not a container id")
    if ifname and not _IFNAME.fullmatch(ifname):
        complaints.add(Code.INVALID_ENVIRONMENT, "CNI_IFNAME is not an interface name")


def _pod(arguments: str, verb: Verb | None, complaints: _Complaints) -> Pod:
    """Return the pod in CNI_ARGS, whose order changes from call to call."""
    pairs = dict(pair.split("=", 1) for pair in arguments.split(";") if "=" in pair)
    words = []
    for name in ("K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID"):
        word = pairs.get(name, "")
        if not _POD_WORD.fullmatch(word):
            if verb is not Verb.DEL:
                complaints.add(
                    Code.INVALID_ENVIRONMENT, f"{name}={word!r:.80} in CNI_ARGS is no name"
                )
            word = ""
        words.append(word)
    return Pod(*words)


# Configuration -------------------------------------------------------------------------
def _object(stdin: bytes, complaints: _Complaints) -> Mapping[str, Any] | None:
    try:
        raw = json.loads(stdin)
    except (ValueError, RecursionError) as error:
        what = f"is not JSON: {error}" if stdin.strip() else "is empty"
        complaints.add(Code.DECODE, f"the network configuration on stdin {what}")
        return None
    if not isinstance(raw, dict):
        complaints.add(Code.DECODE, "the network configuration on stdin is not a JSON object")
        return None
    return raw


def _get(raw: Mapping[str, Any], name: str) -> Any:
    """Return the value of *name*, None if there is none, as Go reads JSON.

    The exact name wins, else any that differs in case only: containerd writes keys within a
    capability as its Go fields are called.
    """
    if name in raw:
        return raw[name]
    return next((value for key, value in raw.items() if key.lower() == name.lower()), None)


def _conf(
    raw: Mapping[str, Any] | None, verb: Verb | None, complaints: _Complaints
) -> NetConf | None:
    if raw is None:
        return None
    version, name, mtu = _get(raw, "cniVersion"), _get(raw, "name"), None
    version = "0.1.0" if version is None else version
    if version not in VERSIONS:
        spoken = ", ".join(VERSIONS)
        complaints.add(
            Code.INCOMPATIBLE_VERSION, f"cniVersion {version!r:.80} is not one of {spoken}"
        )
    elif verb is not None and version < (first := SINCE.get(verb, version)):
        words = f"cniVersion {version} does not allow {verb}, which came with {first}"
        complaints.add(Code.INCOMPATIBLE_VERSION, words)
    if not isinstance(name, str) or not _NETWORK.fullmatch(name):
        complaints.add(Code.INVALID_CONFIG, f"name {name!r:.80} is not a network's name")
    # A DEL gets the file as it is now, and must succeed whatever became of it.
    if verb not in {Verb.DEL, Verb.GC}:
        _refuse_strangers(raw, verb, complaints)
        mtu = _mtu(raw, complaints)
    return None if complaints.texts else NetConf(version, str(name), mtu)


def _mtu(raw: Mapping[str, Any], complaints: _Complaints) -> int | None:
    """Return the pod's MTU: its annotation's, else the configuration's."""
    configured = _get(raw, "mtu")
    if configured is not None and not _is_mtu(configured):
        complaints.add(Code.INVALID_CONFIG, f"mtu {configured!r:.80} is not {_MTU_RANGE}")
        return None
    annotated = _annotations(raw, complaints).get(MTU_ANNOTATION)
    if annotated is None:
        return None if configured is None else int(configured)
    if isinstance(annotated, str) and _NUMBER.fullmatch(annotated) and _is_mtu(int(annotated)):
        return int(annotated)
    words = f"the pod's annotation {MTU_ANNOTATION}={annotated!r:.80} is not {_MTU_RANGE}"
    complaints.add(Code.INVALID_CONFIG, words)
    return None


def _is_mtu(value: object) -> bool:
    return type(value) is int and _MIN_MTU <= value <= _MAX_MTU  # a bool is an int, but no size


def _annotations(raw: Mapping[str, Any], complaints: _Complaints) -> Mapping[str, Any]:
    """Return the pod's annotations as the runtime hands them over; null is none."""
    found = _get(_runtime_config(raw, complaints), ANNOTATIONS)
    if found is None or isinstance(found, dict):
        return found or {}
    complaints.add(Code.INVALID_CONFIG, f"runtimeConfig's {ANNOTATIONS} is not a JSON object")
    return {}


def _runtime_config(raw: Mapping[str, Any], complaints: _Complaints) -> Mapping[str, Any]:
    found = _get(raw, "runtimeConfig")
    if found is None or isinstance(found, dict):
        return found or {}
    complaints.add(Code.INVALID_CONFIG, "runtimeConfig is not a JSON object")
    return {}


def _refuse_strangers(raw: Mapping[str, Any], verb: Verb | None, complaints: _Complaints) -> None:
    """Refuse what asks for another's work: it cannot be ignored (docs/adr/0012)."""
    ipam = _get(raw, "ipam")
    kind = _get(ipam, "type") if isinstance(ipam, dict) else ipam
    if kind not in (None, "", "enid-cni"):
        complaints.add(
            Code.INVALID_CONFIG,
            f"ipam of type {kind!r:.80} cannot be used:"
            " addresses are the VPC's, remove the section",
        )
    runtime = _get(raw, "runtimeConfig")
    for name in _NOT_OURS:
        if isinstance(runtime, dict) and _get(runtime, name):
            words = f"capability {name} cannot be used: addresses are the VPC's, and so are MACs"
            complaints.add(Code.INVALID_CONFIG, words)
    if verb is Verb.ADD and _get(raw, "prevResult") is not None:
        complaints.add(
            Code.INVALID_CONFIG,
            "enid-cni makes the pod's interface, so it must be the first plugin of its list",
        )


# What a runtime remembers --------------------------------------------------------------
def _previous(raw: Mapping[str, Any] | None, complaints: _Complaints) -> Previous | None:
    """Return the prevResult of a CHECK, in any version's shape."""
    if raw is None:
        return None
    found = _get(raw, "prevResult")
    if found is None:
        complaints.add(Code.INVALID_CONFIG, "CHECK needs prevResult, and there is none")
        return None
    try:
        return Previous(
            tuple(_interface(each) for each in _list(found, "interfaces")),
            tuple(ip_interface(_text(each, "address")) for each in _list(found, "ips")),
        )
    except (TypeError, ValueError) as error:
        complaints.add(Code.DECODE, f"prevResult is not the result of an ADD: {error}")
        return None


def _interface(raw: object) -> Interface:
    mtu = _get(raw, "mtu") if isinstance(raw, dict) else None
    if mtu is not None and type(mtu) is not int:
        raise TypeError(f"mtu {mtu!r:.80} is not a number")
    name, mac, sandbox = (_text(raw, key) for key in ("name", "mac", "sandbox"))
    return Interface(name, mac.lower(), sandbox, mtu or None)


def _valid(raw: Mapping[str, Any] | None, complaints: _Complaints) -> frozenset[tuple[str, str]]:
    """Return what is still valid, of a GC. A list that is null is Go's empty one."""
    if raw is None:
        return frozenset()
    key = next((key for key in VALID_ATTACHMENTS if key in raw), None)
    if key is None:
        words = f"GC needs {VALID_ATTACHMENTS[0]}, and there is none: nothing is released"
        complaints.add(Code.INVALID_CONFIG, words)
        return frozenset()
    try:
        listed = _list(raw, key)
        pairs = [(_text(each, "containerID"), _text(each, "ifname")) for each in listed]
    except TypeError as error:
        complaints.add(Code.DECODE, f"{key} is not a list of attachments: {error}")
        return frozenset()
    return frozenset(pairs)


def _list(raw: object, name: str) -> list[object]:
    if not isinstance(raw, dict):
        raise TypeError(f"{raw!r:.80} is not a JSON object")
    found = _get(raw, name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise TypeError(f"{name} is not a list")
    return found


def _text(raw: object, name: str) -> str:
    """Return a word of an object; "" if there is none."""
    if not isinstance(raw, dict):
        raise TypeError(f"{raw!r:.80} is not a JSON object")
    found = _get(raw, name)
    if not isinstance(found, str | None):
        raise TypeError(f"{name} {found!r:.80} is not a text")
    return found or ""


# Answers -------------------------------------------------------------------------------
def error_json(error: CniError, cni_version: str) -> bytes:
    """Return *error* as the specification wants it on stdout."""
    answer = {
        "cniVersion": cni_version,
        "code": int(error.code),
        "msg": error.msg,
        "details": error.details,
    }
    return json.dumps(answer).encode()


def result_json(cni_version: str, attached: Attached) -> bytes:
    """Return the result of an ADD in the shape of *cni_version*.

    The host's interface comes first and the pod's second; every address points at the
    second: a wrong index panics containerd.
    """
    one_one = cni_version == "1.1.0"
    host = {"name": attached.host_ifname, "mac": attached.host_mac}
    pod = {"name": attached.ifname, "mac": attached.pod_mac, "sandbox": attached.netns_path}
    mtu = {"mtu": attached.mtu} if one_one else {}
    ips = []
    routes = []
    for address in attached.addresses:
        gateway = GATEWAYS[address.version]
        version = {"version": str(address.version)} if cni_version < "1.0.0" else {}
        ips.append({**version, "address": str(address), "gateway": gateway, "interface": 1})
        destination = "0.0.0.0/0" if address.version == 4 else "::/0"  # noqa: PLR2004 - the family
        routes.append({"dst": destination, "gw": gateway})
    answer = {
        "cniVersion": cni_version,
        "interfaces": [{**host, **mtu}, {**pod, **mtu}],
        "ips": ips,
        "routes": routes,
        "dns": {},
    }
    return json.dumps(answer).encode()
