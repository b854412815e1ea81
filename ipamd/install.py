"""`enid install` and `enid uninstall`: the init container's work, on the host's folders. Shell.

Nothing is decided here: `ipamd.installation` says what is to be done, and this does it, each file
by a draft and a rename in its own folder: containerd hears of a rename there, not of a file that
comes from elsewhere, and a file that is half written makes a node NotReady.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from cni import desired
from cni.dataplane import ENI_GROUP, MAX_NUMBER, NODE_SYSCTLS, PROTOCOL, parse_alias
from cni.desired import DeleteRule, DeleteWay, SetLink
from cni.kernel import NodeError
from cni.mender import KernelMender
from cni.netlink import NodeNetlink
from cni.rtdump import Looks
from ipamd import installation, logs
from ipamd.cluster import ClusterError, Patch, is_configured
from ipamd.installation import (
    BIN_FOLDER,
    BROUGHT,
    CONF_FOLDER,
    CONFLIST,
    DROP_INS,
    Copy,
    Former,
    Found,
    HostFileError,
    InstallError,
    Note,
    Remove,
    Rename,
    Say,
    SetSysctl,
    Step,
    Wish,
    Write,
)
from ipamd.kube_events import MESSAGE_MOST, Report, body, node_subject
from ipamd.kube_objects import NO_CONDITION, node_path, resource
from ipamd.start import Paths, StartError, lock

if TYPE_CHECKING:
    from ipamd.kube import Api

log = logging.getLogger(__name__)

NOTE = "before-enid.json"
"""Where it is written what sysctls were before, beside the journal."""

VERSION_SECONDS = 5
"""A plugin says which versions it speaks within milliseconds."""

API_SECONDS = 30.0
"""On a new node kube-proxy starts beside us, and without it there is no way to the API server."""

BETWEEN_SECONDS = 2.0

ENIS = range(ENI_GROUP + 1, ENI_GROUP + MAX_NUMBER + 1)
"""Link groups that say which ENI a link is."""

EXIT_REFUSED = 78
"""As the daemon's: somebody must change something before a restart can help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where things are: the image's files, the host's, and our own."""

    shipped: Path
    host: Path
    paths: Paths

    def on_host(self, path: str) -> Path:
        """Return where a file of the host is seen."""
        return self.host / path


# Looking -------------------------------------------------------------------------------
def look(places: Places, wish: Wish, cluster: Cluster | None, pods: int = 0) -> Found:
    """Return what there is on the node, which has wires of so many *pods*."""
    conf = places.on_host(CONF_FOLDER)
    ours = _text(conf / CONFLIST)
    there = {to: _is_same(places.shipped / f, places.on_host(to)) for f, to in _targets(places)}
    return Found(
        names=_names(conf),
        conflist=ours,
        runtime=""
        if wish.version or cluster is None
        else cluster.runtime(API_SECONDS if ours is None else 0),
        speaks=dict(_speaking(places, wish.chained)),
        plugins=_names(places.on_host(BIN_FOLDER)),
        folders=frozenset(h for h, _ in DROP_INS.values() if places.on_host(h).is_dir()),
        same=frozenset(to for to, same in there.items() if same),
        other=frozenset(to for to, same in there.items() if same is False),
        sysctls={n: text for n in NODE_SYSCTLS if (text := _text(_sysctl(n))) is not None},
        former=former(places),
        pods=pods,
    )


def _targets(places: Places) -> Iterable[tuple[str, str]]:
    """Yield the image's files that a node may have, and where."""
    for name in _names(places.shipped / BROUGHT):
        yield f"{BROUGHT}/{name}", f"{BIN_FOLDER}/{name}"
    for file, (_, to) in DROP_INS.items():
        yield file, to


def _names(folder: Path) -> frozenset[str]:
    return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()


def _text(path: Path) -> str | None:
    try:
        return (
            path.read_text().removesuffix("\n")
            if path.is_relative_to("/proc")
            else path.read_text()
        )
    except (OSError, UnicodeDecodeError):
        return None


def _sysctl(name: str) -> Path:
    return Path("/proc/sys", *name.split("."))


def _is_same(ours: Path, theirs: Path) -> bool | None:
    """Return whether two files have one content; None if there is no second."""
    try:
        return theirs.read_bytes() == ours.read_bytes()
    except FileNotFoundError:
        return None


def former(places: Places) -> Former:
    """Return what was written down when enid came. Raises HostFileError if it cannot be read."""
    path = places.paths.state / NOTE
    try:
        noted = json.loads(path.read_text())
        return Former(dict(noted["sysctls"]), tuple(noted["plugins"]))
    except FileNotFoundError:
        return Former()
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise HostFileError(
            f"{path} cannot be read ({error}): repair the disk, or remove it"
        ) from error


def _speaking(
    places: Places, chained: Iterable[Mapping[str, Any]]
) -> Iterable[tuple[str, frozenset[str]]]:
    """Yield each plugin that is there, or may be put there, and the versions that it speaks."""
    for plugin in chained:
        name = str(plugin["type"])
        for folder in (places.on_host(BIN_FOLDER), places.shipped / BROUGHT):
            if (folder / name).is_file():
                yield name, _versions(folder / name)
                break


def _versions(plugin: Path) -> frozenset[str]:
    try:
        done = subprocess.run(
            [plugin],
            env={"CNI_COMMAND": "VERSION"},
            input=b'{"cniVersion":"1.0.0"}',
            capture_output=True,
            timeout=VERSION_SECONDS,
            check=True,
        )
        return frozenset(json.loads(done.stdout)["supportedVersions"])
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError) as error:
        log.warning(
            "plugin does not say its versions", extra={"plugin": plugin.name, "reason": str(error)}
        )
        return frozenset()


# The API server --------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Cluster:
    """The way to the API server, and this node's name there."""

    api: Api
    node: str

    def runtime(self, within_seconds: float) -> str:
        """Return what this Node's status says of its runtime; empty if nobody says it in time."""
        until = time.monotonic() + within_seconds
        while True:
            try:
                listed = self.api.get(
                    "/api/v1/nodes", {"fieldSelector": f"metadata.name={self.node}"}
                )
                return str(listed["items"][0]["status"]["nodeInfo"]["containerRuntimeVersion"])
            except (ClusterError, LookupError, TypeError) as error:
                if time.monotonic() >= until:
                    log.warning("the runtime's version is not known", extra={"reason": str(error)})
                    return ""
                time.sleep(BETWEEN_SECONDS)

    def tell(self, complaint: Say) -> None:
        """Post an Event on this Node; it is lost where the API server does not take it."""
        now = time.time()
        subject = node_subject(self.node)
        message = f"{complaint.fields['reason']} ({complaint.about})"
        report = Report(subject, complaint.reason, message[:MESSAGE_MOST], 1, now, now)
        path = f"/api/v1/namespaces/{subject.events_in}/events"
        try:
            self.api.create(path, body(report, self.node))
        except ClusterError as error:
            log.warning("event not posted", extra={"id": error.id, "reason": str(error)})

    def forget(self) -> None:
        """Take what the daemon says of this Node off its status; its record is the CRD's to go."""
        status = {"status": {"conditions": [NO_CONDITION], **resource(None)}}
        try:
            self.api.patch(f"{node_path(self.node)}/status", status, Patch.STRATEGIC)
        except ClusterError as error:
            log.warning("status of the node left", extra={"id": error.id, "reason": str(error)})


def cluster_of(environ: Mapping[str, str]) -> Cluster | None:
    """Return the way to the API server; None where no cluster is configured."""
    node = environ.get("MY_NODE_NAME", "")
    if not (node and is_configured(environ)):
        return None
    from ipamd.kube import Access, Api  # noqa: PLC0415 - plain mode does without its library

    return Cluster(Api(Access(environ=environ)), node)


# Doing ---------------------------------------------------------------------------------
def perform(steps: Iterable[Step], places: Places) -> None:
    """Do *steps*, in their order. Raises HostFileError."""
    for step in steps:
        try:
            _do(step, places)
        except OSError as error:
            if not (isinstance(step, Copy) and step.without):
                raise HostFileError(f"{_named(step)}: {error}") from error
            log.warning("done without", extra={"file": _named(step), "reason": str(error)})


def _named(step: Step) -> str:
    """Return what *step* is about."""
    match step:
        case Copy(to=to) | Write(to=to):
            return f"/{to}"
        case Rename(path, _) | Remove(path):
            return f"/{path}"
        case SetSysctl(name, _):
            return name
        case _:
            return NOTE


def _do(step: Step, places: Places) -> None:
    match step:
        case Note(noted):
            places.paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            _put(places.paths.state / NOTE, json.dumps(asdict(noted)).encode())
        case SetSysctl(name, value):
            _sysctl(name).write_text(value)
            log.info("sysctl set", extra={"sysctl": name, "value": value})
        case Say(event, _, fields):
            log.warning(event, extra=dict(fields))
        case Copy() | Write() | Rename() | Remove():
            _change_file(step, places)
        case _:  # pragma: no cover - a new step must be placed above
            assert_never(step)


def _change_file(step: Copy | Write | Rename | Remove, places: Places) -> None:
    match step:
        case Copy(file=file, to=to):
            ours, target = places.shipped / file, places.on_host(to)
            if _is_same(ours, target):
                return
            target.parent.mkdir(parents=True, exist_ok=True)
            _put(target, ours.read_bytes(), ours.stat().st_mode & 0o777)
        case Write(to, text):
            places.on_host(to).parent.mkdir(parents=True, exist_ok=True)
            _put(places.on_host(to), text.encode())
        case Rename(path, name):
            places.on_host(path).replace(places.on_host(path).with_name(name))
        case Remove(path):
            places.on_host(path).unlink(missing_ok=True)
    log.info(DONE[type(step)], extra={"file": _named(step)})


DONE = {Copy: "file put", Write: "file put", Rename: "file set aside", Remove: "file removed"}


def _put(target: Path, content: bytes, mode: int = 0o644) -> None:
    """Write *target* whole or not at all; it is on disk before it has its name."""
    draft = target.with_name(f".{target.name}.draft")  # no runtime reads such an ending
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    draft.replace(target)


# The kernel ----------------------------------------------------------------------------
def pods_left() -> int:
    """Return how many wires of pods there are. Raises NodeError."""
    try:
        with contextlib.closing(Looks()) as looks:
            return sum(parse_alias(link.alias) is not None for link in looks.links())
    except OSError as error:
        raise NodeError(f"links cannot be listed: {error}") from error


def forget_kernel() -> None:
    """Take out everything of ours in the node's network: routes, rules, tables, groups.

    ENIs stay, with their addresses: they are EC2's, and whoever comes next finds them.
    """
    with contextlib.closing(KernelMender()) as mender, contextlib.closing(NodeNetlink()) as net:
        found = mender.look(())
        steps: list[desired.Step] = []
        steps += [DeleteRule(rule.rule) for rule in found.rules if rule.protocol == PROTOCOL]
        steps += [DeleteWay(way) for way in found.ways if way.protocol == PROTOCOL]
        steps += [SetLink(link.index, group=0) for link in found.links if link.group in ENIS]
        for said in filter(None, mender.mend(steps)):
            log.warning("kernel state left", extra={"reason": said})
        net.remove_nft()


# The commands --------------------------------------------------------------------------
def install(places: Places, wish: Wish, cluster: Cluster | None) -> None:
    """Install, and tell the cluster of what is wrong with the node. Raises InstallError."""
    found = look(places, wish, cluster)
    steps = list(installation.install(found, wish))
    perform(steps, places)
    if cluster is not None:
        for complaint in (step for step in steps if isinstance(step, Say)):
            cluster.tell(complaint)
    version = installation.cni_version(found, wish)
    log.info("installed", extra={"cni_version": version, "runtime": found.runtime or "unknown"})


def uninstall(places: Places, cluster: Cluster | None, *, force: bool) -> None:
    """Uninstall, while no daemon runs. Raises InstallError, NodeError and StartError."""
    held = lock(places.paths) if places.paths.run.is_dir() else None
    try:
        nothing = Wish(shipped={}, sysctls={}, version="none")
        found = look(places, nothing, None, pods_left())
        perform(list(installation.uninstall(found, force=force)), places)
        forget_kernel()
    finally:
        if held is not None:
            os.close(held)
    for folder in (places.paths.run, places.paths.state):
        _empty(folder)
    if cluster is not None:
        cluster.forget()
    log.info("uninstalled")


def _empty(folder: Path) -> None:
    """Remove what is in *folder*; itself, too, where it is not mounted."""
    for path in folder.iterdir() if folder.is_dir() else ():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _shipped(places: Places) -> Mapping[str, Any]:
    said: Mapping[str, Any] = json.loads((places.shipped / CONFLIST).read_text())
    return said


def main(arguments: argparse.Namespace) -> int:
    """Do what the command line says; return the exit status."""
    logs.set_up()
    places = Places(
        shipped=Path(arguments.shipped),
        host=Path(arguments.host),
        paths=Paths(Path(arguments.run_folder), Path(arguments.state_folder)),
    )
    cluster = cluster_of(os.environ)
    try:
        if arguments.command == "install":
            wish = Wish(
                shipped=_shipped(places),
                sysctls=NODE_SYSCTLS,
                version=arguments.cni_version.removeprefix("auto"),
                chained=installation.read_chained(arguments.chain),
                drop_ins=not arguments.no_drop_ins,
                brought=_names(places.shipped / BROUGHT),
            )
            install(places, wish, cluster)
        else:
            uninstall(places, cluster, force=arguments.force)
    except (InstallError, NodeError, StartError, OSError) as error:
        known = getattr(error, "id", HostFileError.id)
        event = "cannot install" if arguments.command == "install" else "cannot uninstall"
        log.critical(event, extra={"id": known, "reason": str(error)})
        return EXIT_REFUSED
    return 0
