"""What a daemon may lose: its journal, its leases. Shell.

EC2 tells which ENIs and addresses are the node's, and each pod's veth which lease is its own
(docs/architecture.md, "Three witnesses").
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

from tests.e2e.accounts import settled, status_of
from tests.e2e.latency import total
from tests.e2e.nodes import crowd, disperse
from tests.e2e.stage import Stage, a_new_pod, pids_of, ready, scraped, traffic, unchanged
from vpclab.checks.check import Check, FailedError, require
from vpclab.cluster.api import ApiError
from vpclab.cluster.worker import Worker

JOURNAL, LEASES = "/var/lib/enid/journal.db*", "/run/enid/leases.db*"


def journal_lost(stage: Stage) -> str:
    """Delete the journal while the daemon runs; kill it later, so that the next has none."""
    worker = stage.cluster.workers[0]
    crowd(stage, "witnesses", worker)
    before, own = stage.ground.web_pods(), addresses(stage)
    with traffic(stage) as asked:
        remove(worker, JOURNAL)
        running = a_new_pod(stage, worker, "with-no-journal")
        end_daemon(stage, worker, signal.SIGKILL)
        after = a_new_pod(stage, worker, "with-a-new-journal")
    require(addresses(stage) == own, f"pods had {own}, and have {addresses(stage)}")
    require(list(_files(worker, JOURNAL)), "there is no journal again")
    told = settled(stage)
    return (
        f"the next pod had {running}, the first of the next daemon {after}; {sum(asked)} requests"
        f" meanwhile, all answered; {len(own)} pods on several ENIs and {unchanged(stage, before)};"
        f" {told}"
    )


def all_lost(stage: Stage) -> str:
    """Delete journal and leases while the daemon is stopped; it dies, and the next has neither."""
    worker = stage.cluster.workers[0]
    before, own = stage.ground.web_pods(), addresses(stage)
    count = len(status_of(stage, worker)["leases"])
    with traffic(stage) as asked:
        os.kill(daemon_of(worker), signal.SIGSTOP)
        remove(worker, JOURNAL, LEASES)
        end_daemon(stage, worker, signal.SIGKILL)
        after = a_new_pod(stage, worker, "with-new-leases")
    rebuilt = int(total(scraped(worker), "enid_leases_rebuilt_total"))
    require(rebuilt == count, f"of {count} leases {rebuilt} were rebuilt")
    require(addresses(stage) == own, f"pods had {own}, and have {addresses(stage)}")
    told = settled(stage)
    disperse(stage, "witnesses")
    return (
        f"{rebuilt} leases rebuilt from veths, the next pod has {after}; {sum(asked)} requests"
        f" meanwhile, all answered; {unchanged(stage, before)}; {told}"
    )


def addresses(stage: Stage) -> dict[str, str]:
    """Return the witnesses' addresses, by their names."""
    return {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in ready(stage, "witnesses")}


def remove(worker: Worker, *patterns: str) -> None:
    """Delete files of a node."""
    worker.node.run(["sh", "-c", f"rm -v {' '.join(patterns)}"])
    for pattern in patterns:
        require(not list(_files(worker, pattern)), f"{pattern} is there still")


def _files(worker: Worker, pattern: str) -> Iterator[str]:
    folder, _, name = pattern.rpartition("/")
    yield from (path.name for path in worker.node.path(folder).glob(name))


def daemon_of(worker: Worker) -> int:
    """Return the process of a node's daemon. Raises FailedError if there is not one."""
    found = pids_of(worker, "ipamd")
    require(len(found) == 1, f"{worker.name} has the daemons {found}")
    return found[0]


def end_daemon(stage: Stage, worker: Worker, number: signal.Signals) -> None:
    """End the daemon of a node by a signal; wait until there is another, and it answers."""
    former = daemon_of(worker)
    os.kill(former, number)

    def answers() -> bool:
        try:
            return former not in pids_of(worker, "ipamd") and bool(status_of(stage, worker))
        except (FailedError, ApiError):
            return False

    stage.ground.wait(answers, f"another daemon on {worker.name}")


LOSSES: tuple[Check[Stage], ...] = (
    Check(
        "journal-deleted",
        "with its journal deleted under it a daemon serves on, and the next makes one anew from EC2",
        "ENIs without a journal were not taken over: the log's census, `enid doctor`",
        journal_lost,
    ),
    Check(
        "journal-and-leases-deleted",
        "a daemon that finds neither journal nor leases rebuilds each from EC2 and the pods' veths",
        'an alias that could not be read: `ip -d link`, the log\'s "lease rebuilt from its veth"',
        all_lost,
    ),
)
"""All, in their order."""
