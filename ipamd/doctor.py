"""`enid doctor`: ask the four witnesses, twice, show what differs, mend what is safe. Shell.

It runs as root in the node's network namespace and needs no daemon. What differs at two looks,
some seconds apart, differs; what only the first one saw was on its way, or ipamd has mended it.
`ipamd.diagnosis` decides what differs. While a daemon runs, the daemon mends; only without one,
and with the node's lock held, this does.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict

from cni.dataplane import NODE_SYSCTLS, eni_table, host_ifname, parse_alias
from cni.desired import Found, Repair, WriteTable
from cni.kernel import NodeError
from cni.mender import KernelMender
from cni.netlink import NodeNetlink
from cni.rtdump import Looks
from cni.spec import Sandbox
from eni.ec2 import Ec2
from eni.errors import EniError
from eni.imds import Imds
from eni.model import Eni, Identity
from ipamd.cli import DaemonAwayError, ask, ask_status
from ipamd.diagnosis import (
    STAYED,
    Finding,
    Host,
    Journalled,
    Sysctl,
    Witnesses,
    active,
    diagnose,
)
from ipamd.journal import Journal, JournalError
from ipamd.leases import Leases, LeasesError
from ipamd.network_daemons import networkd_complaints, networkmanager_complaints
from ipamd.sandboxes import KnownSandbox, read_cached
from ipamd.start import DaemonRunningError, Paths, lock
from ipamd.surroundings import read_notes
from ipamd.wired import TABLES, WIRED, Wired, read_tables, read_wired

LATELY_SECONDS = 3600.0
"""How far back what ipamd has mended is shown."""

HISTORY = 500
"""Events that are read for it."""

AGREE, DIFFER, UNHEARD = 0, 1, 3
"""Exit status: all witnesses agree; something differs; those that were heard agree, and one was
not heard. 2 is argparse's: not understood."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the witnesses are. *root* is where the host's files are seen."""

    paths: Paths
    socket: str
    results: Path = Path("/var/lib/cni/results")
    root: Path = Path("/")
    asks_ec2: bool = True


@dataclass(slots=True)
class Heard:
    """What the witnesses said, and why those who said nothing did not."""

    witnesses: Witnesses = field(default_factory=Witnesses)
    silent: dict[str, str] = field(default_factory=dict)
    """By witness, a sentence."""
    lately: tuple[str, ...] = ()
    """What ipamd has mended of late."""
    troubles: tuple[str, ...] = ()
    """What ipamd says is not right yet."""

    @property
    def is_served(self) -> bool:
        """Whether a daemon answers."""
        return "ipamd" not in self.silent


class FindingReport(TypedDict):
    """One difference in `enid doctor -o json`."""

    between: str
    sentence: str
    cure: str
    fixable: bool
    fixed: bool


class Report(TypedDict):
    """What `enid doctor -o json` prints; *heard* counts what each witness told of."""

    agree: bool
    status: int
    daemon: bool
    troubles: list[str]
    heard: dict[str, int]
    silent: dict[str, str]
    findings: list[FindingReport]
    passed: list[str]
    lately: list[str]


# Asking --------------------------------------------------------------------------------
def hear(places: Places) -> Heard:
    """Ask every witness, and note why one could not be heard."""
    heard = Heard()
    try:
        heard.troubles = tuple(ask_status(places.socket)["troubles"])
    except DaemonAwayError:
        heard.silent["ipamd"] = f"does not answer on {places.socket}: start it"
    journal = _read_journal(places, heard)
    pods = _read_sandboxes(places, heard)
    names = _names(journal, pods)
    kernel, host = _look(places, journal, heard)
    ec2 = _ask_ec2(places, heard) if places.asks_ec2 else None
    if not places.asks_ec2:
        heard.silent["EC2"] = "was not asked, as told"
    heard.witnesses = Witnesses(
        pods=pods, journal=journal, kernel=kernel, ec2=ec2, host=host, names=names
    )
    return heard


def _read_journal(places: Places, heard: Heard) -> Journalled | None:
    with contextlib.ExitStack() as files:
        try:
            journal = Journal(places.paths.state / "journal.db", read_only=True)
            files.callback(journal.close)
            leases = Leases(places.paths.run / "leases.db", read_only=True)
            files.callback(leases.close)
            around = read_notes(journal)
            said = Journalled(
                leases=leases.rows(),
                intents=journal.intents(),
                blocks={block: (eni_id, held) for block, eni_id, held in journal.blocks()},
                wired=read_wired(journal.fact(WIRED)),
                tables=read_tables(journal.fact(TABLES)),
                primary=around.identity.primary if around else None,
            )
            heard.lately = tuple(_lately(journal))
        except (JournalError, LeasesError) as error:
            heard.silent["journal"] = str(error)
            return None
    if said.wired is None:
        heard.silent["journal"] = (
            f"no daemon has noted in {places.paths.state} how it wires: start one once"
        )
        return None
    return said


def _lately(journal: Journal) -> Iterator[str]:
    now = time.time()
    for event in journal.history(HISTORY):
        if event.event == "mended" and now - event.at < LATELY_SECONDS:
            by = f" (by {event.detail['by']})" if event.detail.get("by") else ""
            yield f"{now - event.at:.0f} s ago: {event.detail['what']}{by}"


def _read_sandboxes(places: Places, heard: Heard) -> tuple[KnownSandbox, ...] | None:
    if not places.results.is_dir():
        heard.silent["pods"] = (
            f"{places.results} is not there: libcni keeps there what runs (--results)"
        )
        return None
    found = []
    for path in sorted(places.results.iterdir()):
        with contextlib.suppress(OSError):  # its DEL may be under way
            sandbox = read_cached(path.read_text(errors="replace"))
            if sandbox is not None:
                found.append(sandbox)
    return tuple(found)


def _names(journal: Journalled | None, pods: Iterable[KnownSandbox] | None) -> dict[Sandbox, str]:
    """Return the names that host veths would have which are made now."""
    prefix = (journal.wired if journal and journal.wired else Wired()).prefix
    rows = journal.leases if journal else ()
    sandboxes = {*(row.sandbox for row in rows), *(pod.sandbox for pod in pods or ())}
    return {sandbox: host_ifname(sandbox, prefix) for sandbox in sandboxes}


def _look(places: Places, journal: Journalled | None, heard: Heard) -> tuple[Found | None, Host]:
    enis = active(journal) if journal else ()
    tables = sorted({eni_table(eni.number) for _, eni in enis if not eni.is_primary})
    try:
        with contextlib.closing(Looks()) as looks:
            found = looks.look(tables)
            host = Host(
                sysctls=_sysctls(),
                may_set_sysctls=not os.statvfs("/proc/sys").f_flag & os.ST_RDONLY,
                dropping=looks.dropping_chains(),
                rules=found.marked,
                complaints=tuple(_daemons(places.root, found)),
            )
    except OSError as error:
        heard.silent["kernel"] = f"{error}; are you root?"
        return None, Host()
    return found, host


def _sysctls() -> dict[str, str]:
    values = {}
    for name in NODE_SYSCTLS:
        with contextlib.suppress(OSError):
            values[name] = _sysctl(name).read_text().strip()
    return values


def _sysctl(name: str) -> Path:
    return Path("/proc/sys", *name.split("."))


def _daemons(root: Path, found: Found) -> Iterator[tuple[str, str]]:
    """Yield what running network daemons are told that would cost us rules or links."""
    if (root / "run/systemd/netif/state").exists():
        yield from networkd_complaints(_texts(root, "systemd", "networkd.conf"))
    if (root / "run/NetworkManager").is_dir():
        ours = [link.name for link in found.links if parse_alias(link.alias)]
        texts = _texts(root, "NetworkManager", "NetworkManager.conf", "conf.d")
        yield from networkmanager_complaints(texts, ours)


def _texts(root: Path, folder: str, name: str, drop_ins: str = "") -> Iterator[str]:
    """Yield a daemon's configuration: the file, then its drop-ins by name, whoever has them."""
    homes = [root / home / folder for home in ("usr/lib", "run", "etc")]
    with contextlib.suppress(OSError):
        yield (homes[-1] / name).read_text()
    extra = {
        path.name: path
        for home in homes
        for path in sorted((home / (drop_ins or f"{name}.d")).glob("*.conf"))
    }
    for key in sorted(extra):
        with contextlib.suppress(OSError):
            yield extra[key].read_text()


def _ask_ec2(places: Places, heard: Heard) -> tuple[Eni, ...] | None:
    try:
        who, endpoint = _who(places)
        ec2 = Ec2(region=who.region, endpoint_url=endpoint or None, total_attempts=2)
        return ec2.attached(who.instance_id)
    except (EniError, JournalError) as error:
        heard.silent["EC2"] = str(error)
        return None


def _who(places: Places) -> tuple[Identity, str]:
    """Return who this instance is, as noted or from IMDS, and where its EC2 is."""
    try:
        with contextlib.closing(
            Journal(places.paths.state / "journal.db", read_only=True)
        ) as journal:
            around, wired = read_notes(journal), read_wired(journal.fact(WIRED))
    except JournalError:
        around = wired = None
    endpoint = os.environ.get("AWS_EC2_ENDPOINT", wired.ec2_endpoint if wired else "")
    return (around.identity if around else Imds().identity()), endpoint


# Twice ---------------------------------------------------------------------------------
def examine(places: Places, wait_seconds: float) -> tuple[Heard, list[Finding], list[Finding]]:
    """Return what was heard last, what differs at both looks, and what only at the first.

    The daemon mends within a second and an ADD takes less: what lasts from one to the other is.
    """
    heard = hear(places)
    first = list(diagnose(heard.witnesses))
    if not first:
        return heard, [], []
    time.sleep(wait_seconds)
    heard = hear(places)
    second = {(f.between, f.what): f for f in diagnose(heard.witnesses)}
    stays = [second[f.between, f.what] for f in first if (f.between, f.what) in second]
    return heard, stays, [f for f in first if (f.between, f.what) not in second]


# Mending -------------------------------------------------------------------------------
def mend(places: Places, heard: Heard, findings: Sequence[Finding]) -> list[str]:
    """Do what is safe about *findings*; return what the kernel refused, in its words."""
    said = []
    for finding in findings:
        if isinstance(finding.fix, Sysctl):
            try:
                _sysctl(finding.fix.name).write_text(finding.fix.value)
            except OSError as error:
                said.append(f"{finding.fix.name}: {error}")
    repairs = [finding.fix for finding in findings if isinstance(finding.fix, Repair)]
    if repairs and heard.is_served:
        ask(places.socket, "MEND")
    elif repairs:
        said += _mend_alone(places, repairs)
    return said


def _mend_alone(places: Places, repairs: Sequence[Repair]) -> list[str]:
    """Take the steps here, while no daemon runs and none may start."""
    try:
        held = lock(places.paths, wait_seconds=0)
    except DaemonRunningError as error:
        return [f"nothing was mended: {error}"]
    except OSError as error:
        return [f"nothing was mended: {error}"]
    try:
        with contextlib.closing(KernelMender()) as mender, contextlib.closing(NodeNetlink()) as net:
            said = [_take(mender, net, repair) for repair in repairs]
    finally:
        os.close(held)
    return [word for word in said if word]


def _take(mender: KernelMender, net: NodeNetlink, repair: Repair) -> str:
    if isinstance(repair.step, WriteTable):
        try:
            net.write_nft(repair.step.text, anew=repair.step.anew)
        except NodeError as error:
            return str(error)
        return ""
    (said,) = mender.mend([repair.step])
    return f"{repair.what}: {said}" if said else ""


# The command ---------------------------------------------------------------------------
def run(places: Places, *, fix: bool, wait_seconds: float) -> tuple[Report, list[str]]:
    """Return the report, and what could not be mended."""
    heard, findings, passed = examine(places, wait_seconds)
    refused: list[str] = []
    fixed: set[tuple[str, str]] = set()
    if fix and any(finding.fix for finding in findings):
        refused = mend(places, heard, findings)
        heard, left, _ = examine(places, wait_seconds)
        remaining = {(f.between, f.what) for f in left}
        fixed = {(f.between, f.what) for f in findings} - remaining
        findings += [f for f in left if f.what not in {known.what for known in findings}]
        findings = [_stayed(f) if (f.between, f.what) in remaining else f for f in findings]
    return report(heard, findings, passed, fixed), refused


def _stayed(finding: Finding) -> Finding:
    """Return what is there still behind `--fix`, which is not to be advised once more."""
    return replace(finding, fix=None, cure=STAYED) if finding.fix else finding


def report(
    heard: Heard,
    findings: Sequence[Finding],
    passed: Sequence[Finding],
    fixed: set[tuple[str, str]],
) -> Report:
    """Return what is shown."""
    differs = any((f.between, f.what) not in fixed for f in findings)
    status = DIFFER if differs else UNHEARD if heard.silent else AGREE
    seen = heard.witnesses
    counts = {
        "pods": None if seen.pods is None else len(seen.pods),
        "journal": None if seen.journal is None else len(seen.journal.leases),
        "kernel": None if seen.kernel is None else _veths(seen.kernel),
        "EC2": None if seen.ec2 is None else len(seen.ec2),
    }
    return Report(
        agree=not differs,
        status=status,
        daemon=heard.is_served,
        troubles=list(heard.troubles),
        heard={name: count for name, count in counts.items() if count is not None},
        silent=heard.silent,
        findings=[
            FindingReport(
                between=f.between,
                sentence=f.sentence,
                cure=f.cure,
                fixable=f.fix is not None,
                fixed=(f.between, f.what) in fixed,
            )
            for f in findings
        ],
        passed=[f.sentence for f in passed],
        lately=list(heard.lately),
    )


def _veths(found: Found) -> int:
    return sum(parse_alias(link.alias) is not None for link in found.links)


WORDS = {"pods": "sandboxes", "journal": "leases", "kernel": "veths", "EC2": "ENIs"}
"""What each witness' number counts."""


def lines(said: Report, refused: Sequence[str]) -> Iterator[str]:
    """Yield the report as a person reads it."""
    counts = [f"{name}: {number} {WORDS[name]}" for name, number in said["heard"].items()]
    yield "   ".join([*counts, *(["ipamd answers"] if said["daemon"] else [])])
    for name, why in said["silent"].items():
        yield f"not heard: {name}: {why}"
    for finding in said["findings"]:
        yield ""
        yield f"{finding['between']}: {finding['sentence']}"
        yield f"  {'mended' if finding['fixed'] else finding['cure']}"
    if said["passed"]:
        yield ""
        yield "was so at the first look, and is not any more:"
        yield from (f"  {sentence}" for sentence in said["passed"])
    if said["lately"]:
        yield ""
        yield "mended by ipamd in the last hour:"
        yield from (f"  {sentence}" for sentence in said["lately"][:SHOWN])
        if said["lately"][SHOWN:]:
            yield f"  and {len(said['lately']) - SHOWN} more"
    yield from (f"ipamd says: {trouble}" for trouble in said["troubles"])
    yield from (f"not mended: {word}" for word in refused)
    yield ""
    yield _verdict(said)


SHOWN = 10


def _verdict(said: Report) -> str:
    left = sum(not finding["fixed"] for finding in said["findings"])
    if left:
        fixable = any(f["fixable"] and not f["fixed"] for f in said["findings"])
        hint = "; `enid doctor --fix` does what is safe" if fixable else ""
        return f"{left} {'difference' if left == 1 else 'differences'}{hint}"
    if said["silent"]:
        return f"those that were heard agree; not heard: {', '.join(said['silent'])}"
    return "all agree"
