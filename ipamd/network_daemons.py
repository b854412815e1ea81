"""What systemd-networkd and NetworkManager are told to do with our rules and links. Pure.

networkd removes, when it starts or reloads, routes and rules that are not in its files, unless
`ManageForeignRoutes=` and `ManageForeignRoutingPolicyRules=` say no; that is a setting of the
daemon, not of a link. NetworkManager takes up links that nobody keeps it from.
"""

from __future__ import annotations

import configparser
import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping

NETWORKD_WISHES = ("ManageForeignRoutes", "ManageForeignRoutingPolicyRules")
NETWORKD_FILE = "config/networkd/10-enid.conf"
NETWORKMANAGER_FILE = "config/NetworkManager/10-enid.conf"

NO = {"no", "false", "0", "off", "n", "f"}


def networkd_complaints(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield a sentence and its cure for each of *texts*' wishes that would cost us rules.

    *texts* are networkd.conf and its drop-ins, in the order in which networkd reads them.
    """
    values: dict[str, str] = {}
    for text in texts:
        values |= _section(text, "Network")
    for wish in NETWORKD_WISHES:
        if values.get(wish.lower(), "yes").lower() not in NO:
            sentence = (
                f"systemd-networkd runs without {wish}=no: it removes what is ours when it reloads"
            )
            yield sentence, f"copy {NETWORKD_FILE} to /etc/systemd/networkd.conf.d and restart it"


def networkmanager_complaints(
    texts: Iterable[str], ifnames: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """Yield a sentence and its cure if *texts* let NetworkManager have one of *ifnames*.

    *texts* are NetworkManager.conf and its drop-ins, in the order in which it reads them.
    """
    kept: list[str] = []
    for text in texts:
        value = _section(text, "keyfile").get("unmanaged-devices", "")
        added = _specs(value.removeprefix("+="))
        kept = added or kept
        kept += _unmanaged_sections(text)
    free = sorted(name for name in ifnames if not any(_matches(spec, name) for spec in kept))
    if free:
        sentence = f"NetworkManager may manage {', '.join(free[:3])}{' ...' if free[3:] else ''}"
        cure = f"copy {NETWORKMANAGER_FILE} to /etc/NetworkManager/conf.d and reload it"
        yield sentence, cure


def _parse(text: str) -> Mapping[str, Mapping[str, str]]:
    parser = configparser.ConfigParser(
        strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#", ";")
    )
    try:
        parser.read_string(text)
    except configparser.Error:
        return {}  # networkd and NetworkManager do not start with it, either
    return {name: dict(parser[name]) for name in parser.sections()}


def _section(text: str, name: str) -> Mapping[str, str]:
    return _parse(text).get(name, {})


def _unmanaged_sections(text: str) -> list[str]:
    """Return what `[device-…]` sections of a file keep from NetworkManager."""
    found: list[str] = []
    for name, values in _parse(text).items():
        if name.startswith("device") and values.get("managed", "1") in {"0", "false", "no"}:
            found += _specs(values.get("match-device", "*"))
    return found


def _specs(text: str) -> list[str]:
    """Return what a list of NetworkManager's names: its separators are both."""
    return [spec.strip() for spec in re.split("[;,]", text) if spec.strip()]


def _matches(spec: str, ifname: str) -> bool:
    pattern = spec.removeprefix("interface-name:").removeprefix("=")
    return spec == "*" or (spec.startswith("interface-name:") and fnmatch.fnmatch(ifname, pattern))
