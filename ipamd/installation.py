"""What `enid install` puts on a node, and what `enid uninstall` takes away. Pure.

The runtime reads the first conflist by name and runs what it names, so the order is everything:
the plugin before the conflist that names it, ours before the peer's is set aside, and back the same
way. Whatever is there already is left as it is, so that the second time changes nothing.

    for step in install(found, wish):
        ...                                     # performed, in this order (ipamd/install.py)

The rule to keep: our conflist is never gone while enid is installed. Without one a node is
NotReady, and not even pods that are there can be taken down.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

CONFLIST = "05-enid.conflist"
"""Sorts before the peer's: runtimes take the first by name."""

PLUGIN = "enid-cni"

PEERS = ("10-aws.conflist",)
"""Conflists of who gave pods their addresses before us: set aside, and put back in the end."""

ASIDE = ".enid-aside"
"""What is set aside ends so, which no runtime reads."""

READ = (".conf", ".conflist", ".json")
"""What a runtime reads in its folder."""

BROUGHT = "plugins"
"""Folder of the image with others' plugins, for nodes that have none."""

ALWAYS = ("loopback",)
"""Of those: containerd runs it for each pod, whatever the conflist says."""

CONF_FOLDER, BIN_FOLDER = "etc/cni/net.d", "opt/cni/bin"

DROP_INS: Mapping[str, tuple[str, str]] = {
    "networkd/10-enid.conf": ("etc/systemd", "etc/systemd/networkd.conf.d/10-enid.conf"),
    "networkd/05-enid-pods.network": (
        "etc/systemd/network",
        "etc/systemd/network/05-enid-pods.network",
    ),
    "networkd/06-enid-enis.network": (
        "etc/systemd/network",
        "etc/systemd/network/06-enid-enis.network",
    ),
    "NetworkManager/10-enid.conf": (
        "etc/NetworkManager",
        "etc/NetworkManager/conf.d/10-enid.conf",
    ),
}
"""What keeps network daemons off our links and rules: ours, the folder that says that there is such
a daemon, and where it goes."""

EVERYWHERE, NEWEST = "1.0.0", "1.1.0"
"""The CNI versions that a conflist of ours may have: containerd before 2.0 takes no result of
1.1.0, and asks STATUS of none that is older."""

CONTAINERD = 2
"""The first containerd, by its major number, that takes the newest."""

CHAINED: Mapping[str, Mapping[str, Any]] = {
    "portmap": {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
    "bandwidth": {"type": "bandwidth", "capabilities": {"bandwidth": True}},
}
"""Plugins that may follow ours by their name alone, as the peer's conflist has them."""


class InstallError(Exception):
    """The node is not as it should be, and somebody must act: the text says on what."""

    id: ClassVar[str] = "INSTALL"


class HostFileError(InstallError):
    """A file of the host cannot be read or written: mend what the text says of it."""

    id = "HOST-FILE"


class PodsLeftError(InstallError):
    """Pods of the node have enid's addresses still: drain it first, or say --force."""

    id = "PODS-LEFT"


class ChainError(InstallError):
    """What is to follow the plugin is neither a known name nor a plugin's object: correct it."""

    id = "CHAIN"


# What there is, and what is wanted ------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Former:
    """What we changed of a node, as it was written down then."""

    sysctls: Mapping[str, str] = field(default_factory=dict)
    """What they were before we came."""
    plugins: tuple[str, ...] = ()
    """Others', which the node did not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A node, as it is before anything is done."""

    names: frozenset[str] = frozenset()
    """Files in the runtime's folder."""
    conflist: str | None = None
    """Ours, as it is."""
    runtime: str = ""
    """`containerd://2.1.4`, as a Node's status has it; empty: nobody could say."""
    speaks: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The CNI versions of each plugin that may follow ours and is there, by its type."""
    folders: frozenset[str] = frozenset()
    """Folders of `DROP_INS` that are there."""
    same: frozenset[str] = frozenset()
    """Drop-ins, and others' plugins, that are there just as we have them."""
    other: frozenset[str] = frozenset()
    """Drop-ins that are there and somebody has changed."""
    plugins: frozenset[str] = frozenset()
    """Files in the folder of plugins."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    former: Former = field(default_factory=Former)
    pods: int = 0
    """Wires of pods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants of an installation."""

    shipped: Mapping[str, Any]
    """The conflist as it comes with the image."""
    sysctls: Mapping[str, str]
    version: str = ""
    """A CNI version; empty: as the runtime takes it."""
    chained: tuple[Mapping[str, Any], ...] = ()
    drop_ins: bool = True
    brought: frozenset[str] = frozenset()
    """Others' plugins that the image has."""


# Steps ---------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Note:
    """Write down what is changed, before it is."""

    former: Former


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """Set a sysctl of the node."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Copy:
    """Put a file of the image's there, by a rename within its folder.

    A node whose /etc is read-only does *without* it, if it may.
    """

    file: str
    to: str
    without: bool = False


@dataclass(frozen=True, slots=True)
class Write:
    """Write a text there, by a rename within its folder."""

    to: str
    text: str


@dataclass(frozen=True, slots=True)
class Rename:
    """Give a file another name in its folder, in the place of what has it."""

    path: str
    name: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove a file, if it is there."""

    path: str


@dataclass(frozen=True, slots=True)
class Say:
    """Tell an operator, who must act; *reason* is the Event's, by which the Node shows it."""

    event: str
    reason: str
    fields: Mapping[str, str]

    @property
    def about(self) -> str:
        """What it is about."""
        return next(value for name, value in self.fields.items() if name != "reason")


Step = Note | SetSysctl | Copy | Write | Rename | Remove | Say


# Decisions -----------------------------------------------------------------------------
def read_chained(words: Iterable[str]) -> tuple[Mapping[str, Any], ...]:
    """Return the plugins that are to follow ours: each word is a known name or a JSON object.

    Raises ChainError.
    """
    return tuple(map(_read_one, words))


def _read_one(word: str) -> Mapping[str, Any]:
    if word in CHAINED:
        return CHAINED[word]
    try:
        plugin = json.loads(word)
    except ValueError:
        plugin = None
    if not (isinstance(plugin, dict) and isinstance(plugin.get("type"), str) and plugin["type"]):
        known = " or ".join(CHAINED)
        raise ChainError(
            f"{word!r} cannot follow {PLUGIN}: say {known}, or a JSON object that has a type"
        )
    return plugin


def cni_version(found: Found, wish: Wish) -> str:
    """Return the version for the conflist: what runtime and every plugin in it take."""
    if wish.version:
        return wish.version
    if any(
        NEWEST not in found.speaks.get(plugin["type"], frozenset())
        for plugin in _chain(found, wish)
    ):
        return EVERYWHERE
    if not found.runtime:
        former = _version_of(found.conflist)
        return former if former in {EVERYWHERE, NEWEST} else EVERYWHERE
    major = re.match(r"containerd://v?(\d+)\.", found.runtime)
    return NEWEST if major and int(major[1]) >= CONTAINERD else EVERYWHERE


def _version_of(conflist: str | None) -> str:
    try:
        said = json.loads(conflist or "{}")
    except ValueError:
        return ""
    return str(said.get("cniVersion", "")) if isinstance(said, dict) else ""


def _chain(found: Found, wish: Wish) -> tuple[Mapping[str, Any], ...]:
    """Return of the plugins that are to follow those that are there: the others fail every pod."""
    return tuple(plugin for plugin in wish.chained if plugin["type"] in found.speaks)


def conflist(found: Found, wish: Wish) -> str:
    """Return the text of the conflist for this node."""
    shipped = wish.shipped
    said = {
        **shipped,
        "cniVersion": cni_version(found, wish),
        "plugins": [*shipped["plugins"], *_chain(found, wish)],
    }
    return json.dumps(said, indent=2) + "\n"


def install(found: Found, wish: Wish) -> Iterator[Step]:
    """Yield the steps to a node that has enid."""
    yield from _set_sysctls(found, wish)
    yield from _put_files(found, wish)
    text = conflist(found, wish)
    if found.conflist != text:
        yield Write(f"{CONF_FOLDER}/{CONFLIST}", text)
    for name in PEERS:
        if name in found.names:
            yield Rename(f"{CONF_FOLDER}/{name}", name + ASIDE)
    yield from _complaints(found, wish)


def _set_sysctls(found: Found, wish: Wish) -> Iterator[Step]:
    wrong = {n: v for n, v in wish.sysctls.items() if found.sysctls.get(n) != v}
    noted = _noted(found, wrong, _bringing(found, wish))
    if noted != found.former:
        yield Note(noted)
    for name, value in wrong.items():
        yield SetSysctl(name, value)


def _put_files(found: Found, wish: Wish) -> Iterator[Step]:
    for name in _bringing(found, wish):
        yield Copy(f"{BROUGHT}/{name}", f"{BIN_FOLDER}/{name}")
    yield Copy(PLUGIN, f"{BIN_FOLDER}/{PLUGIN}")
    for file, (home, to) in DROP_INS.items():
        if wish.drop_ins and home in found.folders and to not in found.same:
            yield Copy(file, to, without=True)


def _bringing(found: Found, wish: Wish) -> list[str]:
    """Return others' plugins that the node needs and has not, or has of us: those are renewed."""
    needed = [*ALWAYS, *(plugin["type"] for plugin in wish.chained)]
    theirs = found.plugins - set(found.former.plugins)
    return [name for name in needed if name in wish.brought and name not in theirs]


def _noted(found: Found, wrong: Iterable[str], lacking: Iterable[str]) -> Former:
    """Return what is to be known later; what was noted once stays as it was then."""
    were = {name: found.sysctls[name] for name in wrong if name in found.sysctls}
    return Former(
        {**were, **found.former.sysctls},
        tuple(dict.fromkeys((*found.former.plugins, *lacking))),
    )


def _complaints(found: Found, wish: Wish) -> Iterator[Step]:
    for name in before_ours(found.names):
        yield Say(
            "another CNI's conflist comes first",
            "ConflistNotFirst",
            {
                "file": f"/{CONF_FOLDER}/{name}",
                "reason": f"runtimes take the first by name, so {CONFLIST} is not read and pods get"
                " no address of the VPC: remove that file, or give it a later name",
            },
        )
    for plugin in wish.chained:
        if plugin["type"] not in found.speaks:
            yield Say(
                "a plugin is left out of the conflist",
                "PluginMissing",
                {
                    "plugin": str(plugin["type"]),
                    "reason": f"it is not in /{BIN_FOLDER}, and with it every pod would fail:"
                    " put it there and restart enid's pod on this node",
                },
            )


def before_ours(names: Iterable[str]) -> list[str]:
    """Return the files of *names* that a runtime reads before ours; the peer's are set aside."""
    others = (name for name in names if name.endswith(READ) and name not in PEERS)
    return sorted(name for name in others if name < CONFLIST)


def uninstall(found: Found, *, force: bool = False) -> Iterator[Step]:
    """Yield the steps to a node without enid, but for the kernel. Raises PodsLeftError."""
    if found.pods and not force:
        raise PodsLeftError(
            f"{found.pods} pods of this node have addresses of enid's: drain it first (a pod keeps"
            " its address, but nobody would take its link down), or say --force"
        )
    yield from _give_back(found)
    yield Remove(f"{CONF_FOLDER}/{CONFLIST}")
    yield Remove(f"{BIN_FOLDER}/{PLUGIN}")
    plugins = (f"{BIN_FOLDER}/{name}" for name in found.former.plugins)
    for to in (*plugins, *(to for _, to in DROP_INS.values())):
        if to in found.same:
            yield Remove(to)
        elif to in found.other:
            told = {"file": f"/{to}", "reason": "somebody has changed it"}
            yield Say("a file stays", "FileStays", told)
    for name, value in found.former.sysctls.items():
        yield SetSysctl(name, value)


def _give_back(found: Found) -> Iterator[Step]:
    for name in PEERS:
        if name + ASIDE in found.names:
            aside = f"{CONF_FOLDER}/{name}{ASIDE}"
            yield Remove(aside) if name in found.names else Rename(aside, name)
