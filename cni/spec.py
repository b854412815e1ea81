"""The CNI specification's words: what is asked, what is answered, in every version. Pure.

Parsed at the border with every complaint at once, trusted afterwards. An answer's shape is
decided by the *configuration's* cniVersion, never by ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from ipaddress import IPv4Interface, IPv6Interface

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""What we speak; containerd before 2.0 takes results up to 1.0.0 only."""

FALLBACK_VERSION = "1.0.0"
"""What an error is told in when the configuration cannot be read."""

GATEWAYS = {4: "169.254.1.1", 6: "fe80::1"}
"""A pod's gateway: link-local, the same everywhere, and on no interface."""


class Verb(StrEnum):
    """What the daemon is asked; VERSION is the plugin's own."""

    ADD = "ADD"
    DEL = "DEL"


class Code(IntEnum):
    """The specification's error codes that we use."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO = 5
    DECODE = 6
    INVALID_CONFIG = 7
    TRY_AGAIN_LATER = 11


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
    """Our part of the network configuration; *mtu* None means the ENI's."""

    cni_version: str
    name: str
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One verb for one attachment."""

    verb: Verb
    sandbox: Sandbox
    netns_path: str
    pod: Pod
    conf: NetConf


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


def parse_request(env: Mapping[str, str], stdin: bytes) -> Request:
    """Return what the runtime asks. Raises CniError with every complaint at once."""
    complaints = _Complaints()
    verb = _verb(env, complaints)
    _require(env, verb, complaints)
    conf = _conf(stdin, verb, complaints)
    pod = _pod(env.get("CNI_ARGS", ""), verb, complaints)
    complaints.settle()
    assert verb is not None  # noqa: S101 - settled
    assert conf is not None  # noqa: S101 - settled
    return Request(
        verb=verb,
        sandbox=Sandbox(conf.name, env["CNI_CONTAINERID"], env["CNI_IFNAME"]),
        netns_path=env.get("CNI_NETNS", ""),
        pod=pod,
        conf=conf,
    )


def _verb(env: Mapping[str, str], complaints: _Complaints) -> Verb | None:
    text = env.get("CNI_COMMAND", "")
    if text in Verb.__members__:
        return Verb(text)
    if text:
        complaints.add(Code.INVALID_ENVIRONMENT, f"CNI_COMMAND={text} is not known here")
    return None


def _require(env: Mapping[str, str], verb: Verb | None, complaints: _Complaints) -> None:
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


def _conf(stdin: bytes, verb: Verb | None, complaints: _Complaints) -> NetConf | None:
    try:
        raw = json.loads(stdin)
    except (ValueError, RecursionError) as error:
        what = f"is not JSON: {error}" if stdin.strip() else "is empty"
        complaints.add(Code.DECODE, f"the network configuration on stdin {what}")
        return None
    if not isinstance(raw, dict):
        complaints.add(Code.DECODE, "the network configuration on stdin is not a JSON object")
        return None
    version, name, mtu = raw.get("cniVersion", "0.1.0"), raw.get("name"), raw.get("mtu")
    if version not in VERSIONS:
        spoken = ", ".join(VERSIONS)
        complaints.add(Code.INCOMPATIBLE_VERSION, f"cniVersion {version!r} is not one of {spoken}")
    if not isinstance(name, str) or not _NETWORK.fullmatch(name):
        complaints.add(Code.INVALID_CONFIG, f"name {name!r} is not a network's name")
    if verb is Verb.DEL:  # it gets the file as it is now, and must succeed whatever became of it
        mtu = None
    else:
        _refuse_strangers(raw, complaints)
        if mtu is not None and not _is_mtu(mtu):
            wanted = f"within {_MIN_MTU} to {_MAX_MTU}"
            complaints.add(Code.INVALID_CONFIG, f"mtu {mtu!r} is not {wanted}")
    return None if complaints.texts else NetConf(version, str(name), mtu)


def _is_mtu(value: object) -> bool:
    return type(value) is int and _MIN_MTU <= value <= _MAX_MTU  # a bool is an int, but no size


def _refuse_strangers(raw: Mapping[str, object], complaints: _Complaints) -> None:
    ipam = raw.get("ipam")
    kind = ipam.get("type") if isinstance(ipam, dict) else None
    if kind not in {None, "", "enid-cni"}:
        complaints.add(
            Code.INVALID_CONFIG,
            f"ipam of type {kind!r} cannot be used: addresses are the VPC's, remove the section",
        )
    if raw.get("prevResult") is not None:
        complaints.add(
            Code.INVALID_CONFIG,
            "enid-cni makes the pod's interface, so it must be the first plugin of its list",
        )


def _pod(arguments: str, verb: Verb | None, complaints: _Complaints) -> Pod:
    """Return the pod in CNI_ARGS, whose order changes from call to call."""
    pairs = dict(pair.split("=", 1) for pair in arguments.split(";") if "=" in pair)
    words = []
    for name in ("K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID"):
        word = pairs.get(name, "")
        if not _POD_WORD.fullmatch(word):
            if verb is not Verb.DEL:
                complaints.add(Code.INVALID_ENVIRONMENT, f"{name}={word!r} in CNI_ARGS is no name")
            word = ""
        words.append(word)
    return Pod(*words)


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
