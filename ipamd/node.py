"""The daemon's border on a real node: its ports, its socket, its end. Shell.

Nothing is decided here. `ipamd.daemon` is the daemon; this gives it EC2, IMDS, the kernel,
clocks and threads, listens, and stops it when it is told to.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cni.events import Events
from cni.mender import KernelMender
from cni.netlink import NodeNetlink
from cni.wire import KernelWiring
from eni.ec2 import Ec2
from eni.imds import Imds
from ipamd import account_limits, conflists, metrics, web
from ipamd.audience import audience
from ipamd.clock import Instant
from ipamd.cluster import is_configured
from ipamd.configuration import LOOK_SECONDS, Configuration
from ipamd.daemon import Daemon
from ipamd.heard import NodeNotes, noted_node
from ipamd.journal import Journal
from ipamd.ports import Ports, Threads
from ipamd.pulse import Pulse
from ipamd.replies import exhaustion
from ipamd.server import Call, Server
from ipamd.settings import Settings
from ipamd.start import Paths, lock, make_folders, open_leases

log = logging.getLogger(__name__)

CLOUD_THREADS = 4
"""Calls to AWS at once. An ENI's life is a chain of calls, so this many ENIs come at once; more
would only meet the account's limits."""

QUESTION_ATTEMPTS = 2
"""One dropped packet is not worth a backoff; more repeats would pass by our own limiter."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def now() -> Instant:
    """Return this moment."""
    return Instant(boot=time.clock_gettime(time.CLOCK_BOOTTIME), wall=time.time())


def real_ports(settings: Settings) -> Ports:
    """Return the ways out of a daemon on this node."""
    return Ports(
        imds=Imds(),
        make_ec2=lambda region: Ec2(
            region=region,
            endpoint_url=settings.ec2_endpoint or None,
            total_attempts=QUESTION_ATTEMPTS,
            http_timeout_seconds=settings.http_timeout_seconds,
        ),
        make_net=NodeNetlink,
        make_wiring=KernelWiring,
        make_mender=KernelMender,
        make_ears=Events,
        threads=Threads(
            cloud=ThreadPoolExecutor(CLOUD_THREADS, "cloud"),
            net=ThreadPoolExecutor(1, "net"),
            wire=ThreadPoolExecutor(1, "wire"),
            back=ThreadPoolExecutor(1, "background"),
            journal=ThreadPoolExecutor(1, "journal"),
            imds=ThreadPoolExecutor(1, "imds"),
        ),
        clock=now,
        random=random.random,
        new_token=lambda: str(uuid.uuid4()),
        boot_id=BOOT_ID.read_text().strip(),
        account_limits=account_limits.load(Path(settings.account_limits))
        if settings.account_limits
        else account_limits.shipped(),
    )


def _on_call(daemon: Daemon, configuration: Configuration, call: Call) -> None:
    match call.frame.env.get("ENID_COMMAND"):
        case "STATUS":
            _show(call, daemon.status())
        case "SETTINGS":
            _show(call, configuration.report(daemon.outlook.limits))
        case "MEND":
            daemon.reconcile.hurry(lambda: _show(call, {}))
        case _:
            daemon.on_call(call, call.frame)


def _show(call: Call, what: object) -> None:
    call.reply(0, json.dumps(what).encode())
    call.close()


async def follow(daemon: Daemon, configuration: Configuration) -> None:
    """Let the daemon work by the settings as they change."""
    configuration.on_change = lambda _, new: daemon.apply(new.settings)
    configuration.unfit = daemon.unfit
    while True:
        daemon.complain(configuration.complaint)
        configuration.look()
        await asyncio.sleep(LOOK_SECONDS)


async def join(daemon: Daemon, configuration: Configuration, environ: Mapping[str, str]) -> None:
    """Follow the cluster, where there is one; else say what is missed, and do nothing for ever."""
    why = ""
    if not is_configured(environ):
        why = (
            "no cluster is configured: run the daemon with a service account or KUBECONFIG"
            " (docs/kubernetes.md)"
        )
    elif not configuration.settings.node_name:
        why = "MY_NODE_NAME is not set, so the cluster is not asked for this node: set it"
        log.warning("cluster not joined", extra={"reason": why})
    if why:
        if configuration.settings.custom_networking:
            asks = "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true: new ENIs go where ENIConfigs say, and"
            daemon.by_cluster.hear_configs(None, f"{asks} {why}, or unset it")
        await asyncio.Event().wait()
    from ipamd.joined import connect  # noqa: PLC0415 - plain mode does without its library
    from ipamd.kube import Access  # noqa: PLC0415 - as above

    await connect(daemon, configuration, Access(environ=environ)).run()


def _pulse(daemon: Daemon, paths: Paths) -> Pulse:
    """Return the sign of life of this daemon, which beats before it can serve."""
    pulse = Pulse(paths.heartbeat, daemon.ports.boot_id, now)
    pulse.has_addresses = lambda: any(c.free or c.assigned for c in daemon.pool.census())
    return pulse


def _exhaustion(daemon: Daemon) -> str:
    if not daemon.settings.status_fails_when_full:
        return ""
    return exhaustion(daemon.pool.census(), daemon.attachments.shortage())


async def _live(daemon: Daemon, configuration: Configuration, paths: Paths) -> None:
    """Start, serve until told to stop, and leave what is on disk whole."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    pulse = _pulse(daemon, paths)
    beating = loop.create_task(pulse.run(lambda: daemon.settings.status_grace_seconds))
    starting = loop.create_task(daemon.start())
    stopping = loop.create_task(stopped.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        beating.cancel()
        log.info("stopped before it could start")
        return
    starting.result()
    pulse.exhaustion = lambda: _exhaustion(daemon)
    server = Server(paths.socket, lambda call: _on_call(daemon, configuration, call))
    server.listen()
    daemon.upkeep.drain()
    stop_web = web.serve(loop, daemon.status, lambda: audience(daemon.settings))
    log.info("serving", extra={"socket": str(paths.socket), "leases": len(daemon.attachments.rows)})
    running = loop.create_task(daemon.run())
    following = loop.create_task(follow(daemon, configuration))
    joined = loop.create_task(join(daemon, configuration, os.environ))
    watching = loop.create_task(conflists.watch(conflists.FOLDER, daemon.hear_conflists))
    done, _ = await asyncio.wait(
        {running, following, joined, watching, beating, stopping},
        return_when=asyncio.FIRST_COMPLETED,
    )
    for task in done - {stopping}:
        task.result()
    log.info("stopping")
    server.close()
    is_idle = daemon.engine.flights.is_idle
    running.cancel()
    following.cancel()
    joined.cancel()
    watching.cancel()
    beating.cancel()
    await asyncio.wait({running, following, joined, watching, beating})
    await loop.run_in_executor(None, stop_web)
    daemon.end_life(is_idle=is_idle)
    daemon.journal.close()
    daemon.leases.close()


def recall(journal: Journal, environ: Mapping[str, str]) -> NodeNotes:
    """Return what a cluster said last of this node, for settings that hold before it answers."""
    if not is_configured(environ):
        return NodeNotes({}, {})
    return noted_node(journal, environ.get("MY_NODE_NAME", ""))


def live(configure: Callable[[NodeNotes], Configuration], paths: Paths) -> None:
    """Run the daemon until it is told to stop. Raises StartError and SettingsError.

    *configure* is called with what a former life was told of the node.
    """
    make_folders(paths)
    held = lock(paths)
    journal = Journal(paths.state / "journal.db")
    configuration = configure(recall(journal, os.environ))
    settings = configuration.settings
    daemon = Daemon(
        settings,
        real_ports(settings),
        journal=journal,
        leases=open_leases(paths),
        spool_in=paths.run / "spool",
    )
    daemon.on_answer = metrics.observe
    daemon.on_counted = metrics.count
    try:
        asyncio.run(_live(daemon, configuration, paths))
    finally:
        os.close(held)
