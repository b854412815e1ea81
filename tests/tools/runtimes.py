"""What container runtimes do with a plugin, row by row, and what comes of it. Shell: it reads tests.

The one table of the rows that `docs/runtimes.md` and `make cri` show. A test belongs to a row by its
marker, `@pytest.mark.cri("normal life")`; each row has tests, each marker names a row, and the page
has the rows of this table (`tests/unit/test_runtimes.py`). What came of the tests, with each
containerd, is the page's other half: `make cri` writes it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.tools.pure import ROOT

PAGE = ROOT / "docs" / "runtimes.md"


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that a runtime does, and what enid makes of it."""

    name: str
    section: str
    runtime: str
    """What the runtime does."""
    ours: str
    """What comes of it."""


LIFE, FAILURES, FILES = "Pods that come and go", "What fails", "Files, versions, chains"

ROWS = (
    # Pods that come and go -----------------------------------------------------------------
    Row("pods of two nodes", LIFE,
        "runs pods on two nodes of one VPC",
        "pods, of one node or two, and nodes see each other's own addresses; nothing is dropped"),
    Row("the internet", LIFE,
        "",
        "a host on the internet sees a pod as its node's public address"),
    Row("normal life", LIFE,
        "ADD, over before any process of the pod runs; DEL at Stop, when all are dead and the netns is"
        " there; DEL again at each further Stop and at Remove, with neither netns nor prevResult; nothing"
        " else, ever",
        "the first DEL gives the address back, the others are nothing new"),
    Row("what a call carries", LIFE,
        "root, the node's network, the runtime's folder, session, cgroup and environment, whose PATH and"
        " LD_LIBRARY_PATH it has changed; CNI_ARGS in any order, the same at DEL; runtimeConfig by"
        " capability, with capital letters and nulls: portMappings (none whose HostPort is 0), bandwidth,"
        " dns, annotations, from 1.7 on cgroupPath; never ips, mac, ipRanges, aliases or labels",
        "the pod's name is in `enid status`; a capability that is not ours to serve harms nobody"),
    Row("a pod's MTU", LIFE,
        "hands a pod's annotations over where the conflist asks for them",
        "`enid.dev/mtu` is one pod's, POD_MTU every other's; one that is out of range is refused in a"
        " sentence"),
    Row("the result", LIFE,
        "an index one past the end of `interfaces` ends containerd by a panic; the result comes back"
        " as prevResult",
        "each address is on `eth0`, whose sandbox is named; the runtime shows both ends and both MACs"),
    Row("two sandboxes of one pod", LIFE,
        "the same sandbox again is refused while ADD runs; the next attempt runs beside it",
        "each sandbox has its own address; the former is shown as superseded, and its DEL takes only"
        " its own"),
    Row("many at once", LIFE,
        "twelve ADDs at a time, then twelve DELs",
        "twelve addresses, twelve pods that talk, nothing left"),
    Row("hostNetwork", LIFE, "no call", "nothing"),
    Row("pause dies", LIFE,
        "no call before Stop; then DEL with the netns",
        "the pod keeps its address until then"),
    Row("netns gone before Stop", LIFE,
        "DEL with an empty CNI_NETNS",
        "address and link are gone all the same"),
    Row("runtime restarts", LIFE,
        "no call; a later DEL has prevResult",
        "the pod talks on"),
    Row("user namespace", LIFE,
        "1.7 and 2.x make the pod's netns below a user namespace of its own",
        "the pod is wired by the same daemon, with CAP_NET_ADMIN of the node's user namespace alone"),
    # What fails ----------------------------------------------------------------------------
    Row("ADD is refused", FAILURES,
        "the error's msg and details are told, never its code; one DEL at once; the name is free",
        "the sentence names what is wrong; nothing is left"),
    Row("ADD fails in other words", FAILURES,
        "no JSON, nothing, or stderr only, with exit status 1: a DEL follows just so",
        "what was wired already is given back"),
    Row("ADD ends well with a bad answer", FAILURES,
        "an error object, no address, no eth0, or nothing, with exit status 0: the sandbox fails, a"
        " DEL follows, with prevResult unless there was nothing",
        "what was wired already is given back"),
    Row("ADD fails and its DEL too", FAILURES,
        "the sandbox is left, NotReady. 1.6 sends DEL again at Stop and Remove; 1.7.24 **never**;"
        " 2.2.9 leaves no sandbox, and sends none either",
        "where no DEL comes, the daemon sees that the pod is gone and frees its address within a"
        " minute. Without the daemon an ADD fails after `deadlineSeconds`, and its DEL only where 256 wait already"),
    Row("DEL fails", FAILURES,
        "Stop fails, the netns is kept; the next Stop sends DEL again, with netns and prevResult",
        "that one gives all back"),
    Row("DEL says not found", FAILURES,
        "an error with these words counts as done; the cached result is left behind",
        "the daemon frees the address within a minute"),
    Row("deadline in the middle of an ADD", FAILURES,
        "SIGKILL to the plugin, no TERM, then DEL",
        "the address is given back, whether the ADD was waiting or done; no child of the plugin keeps"
        " the runtime waiting"),
    Row("runtime killed in the middle of an ADD", FAILURES,
        "the plugin goes on as an orphan; after the restart the sandbox is NotReady; 1.6 and 2.2.9"
        " send DEL at Stop, 1.7.24 **none**",
        "an orphan's ADD after the DEL is refused; one that was done before it is given back, by DEL"
        " or by the daemon within a minute"),
    Row("plugin missing", FAILURES,
        "RunPodSandbox fails and names the file; NetworkReady stays true",
        "back again, pods run; nothing is left"),
    Row("daemon away at ADD", FAILURES,
        "waits for the plugin",
        "the plugin waits for the daemon; the pod runs as soon as it is back"),
    Row("daemon away at DEL", FAILURES,
        "Stop and Remove succeed",
        "the DEL is spooled, and done when the daemon is back"),
    # Files, versions, chains ---------------------------------------------------------------
    Row("conflist gone", FILES,
        "NetworkReady is false; pods can neither be run nor stopped",
        "so nothing of ours removes it; back again, all goes on"),
    Row("conflist edited", FILES,
        "a DEL is sent with the new one",
        "the DEL needs nothing of the old"),
    Row("conflist installed", FILES,
        "notices a file that is renamed within the folder; one that is written in place is read half; one"
        " that is renamed in from elsewhere, or written behind a symlink, is not noticed",
        "installed by draft and rename: NetworkReady stays true through fifty installs"),
    Row("several conflists", FILES,
        "the first by name counts; if that is invalid, the node is not ready",
        "`05-enid.conflist` comes before the usual names"),
    Row("cniVersion", FILES,
        "takes 0.3.0, 0.3.1, 0.4.0 and 1.0.0; 0.3.x sends no prevResult; 1.1.0 is taken by 2.x only: with 1.6"
        " and 1.7 no pod starts then, and none that runs can be stopped",
        "works in each that the runtime takes, and refuses 0.2.0 in a sentence; shipped as 1.0.0"),
    Row("chain with portmap and bandwidth", FILES,
        "ADD in order, each with the result of the one before; DEL backwards, each with the last result",
        "a hostPort leads to the pod, and is gone with it; rates are set"),
    Row("chain whose second plugin fails", FILES,
        "DEL backwards, without prevResult",
        "the address is given back"),
    Row("result cache corrupt", FILES,
        "1.6 and 1.7: Stop fails for ever, and the plugin is not called, until the file is removed;"
        " 2.2.9 does without it",
        "then the DEL, without prevResult, gives all back"),
    Row("STATUS", FILES,
        "2.x asks STATUS at each look of kubelet's if the conflist says 1.1.0; a failure makes the"
        " node NotReady. 1.6 and 1.7 never ask",
        "neither a daemon that restarts nor a full pool makes the node NotReady; a daemon that is away"
        " for longer than STATUS_GRACE_SECONDS does, until it is back; a full pool where"
        " ENID_STATUS_FAILS_WHEN_FULL says so"),
)  # fmt: skip


def marked() -> dict[str, set[str]]:
    """Return the tests of each row."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "tests" / "cri").glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                for name in _names(node):
                    found.setdefault(name, set()).add(f"{path.stem}::{node.name}")
    return found


def _names(node: ast.FunctionDef) -> Iterator[str]:
    for mark in node.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.cri":
            yield from (str(a.value) for a in mark.args if isinstance(a, ast.Constant))


# Results -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Outcome:
    """One test with one containerd."""

    rows: tuple[str, ...]
    release: str
    word: str
    """passed, failed or skipped."""
    reason: str = ""
    test: str = ""


def cell(outcomes: Iterable[Outcome]) -> str:
    """Return what a row came to with one containerd: "ok", "FAILED", or why it was not run."""
    found = list(outcomes)
    words = {outcome.word for outcome in found}
    if "failed" in words:
        return "FAILED"
    if "passed" in words:
        return "ok"
    return next((f"skipped: {o.reason}" for o in found if o.reason), "not run")


def cells(outcomes: Sequence[Outcome], releases: Sequence[str]) -> dict[str, list[str]]:
    """Return the table: of each row, a cell for each containerd."""
    return {
        row.name: [
            cell(o for o in outcomes if row.name in o.rows and o.release == release)
            for release in releases
        ]
        for row in ROWS
    }


# The page ----------------------------------------------------------------------------------
HEAD = """\
# Container runtimes

What real containerds do with a CNI plugin, and what comes of it with enid: each row is a test, run
with each of them. Two nodes of the [lab's VPC](vpc-on-a-laptop.md), on each the containerd, `ipamd` with
CAP_NET_ADMIN and nothing else, and the plugin; pods by the CRI, as kubelet runs them.

    make cri           fetches and builds what it needs, runs all, and prints the table

| containerd | what it is |
| --- | --- |
| 1.6-debian12 | Debian 12's package, 1.6.20; the plugin is run from its source |
| 1.7-debian13 | Debian 13's package, 1.7.24; the plugin is [one static file](plugin.md) |
| 2.2.9 | built from github.com/containerd/containerd/v2, with runc 1.3.3 and the CNI plugins 1.9.1, chained at 1.1.0; the plugin is one static file |

One that cannot be had is skipped, and said. This page's rows are `tests/tools/runtimes.py`; its columns of results
are what `make cri` has last seen."""


def render(table: Mapping[str, Sequence[str]], releases: Sequence[str]) -> Iterator[str]:
    """Yield the lines of `docs/runtimes.md`."""
    yield HEAD
    for section in dict.fromkeys(row.section for row in ROWS):
        yield ""
        yield f"## {section}"
        yield ""
        yield f"| | the runtime | enid | {' | '.join(releases)} |"
        yield "|".join(["", *[" --- "] * (3 + len(releases)), ""])
        for row in (row for row in ROWS if row.section == section):
            yield f"| {row.name} | {row.runtime} | {row.ours} | {' | '.join(table[row.name])} |"


def rows_of_page() -> list[tuple[str, str, str]]:
    """Return the rows that the page has: name, runtime, enid."""
    row = re.compile(r"^\| ([^|]*) \| ([^|]*) \| ([^|]*) \| .* \|$", re.MULTILINE)
    return [line for line in row.findall(PAGE.read_text()) if line[1] not in {"the runtime", "---"}]
