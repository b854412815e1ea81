"""A round of checks on the cluster that a kubeconfig names; nothing is left of it. Shell."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path

from kubernetes.config.config_exception import ConfigException
from rich.console import Console

from vpclab.checks.check import Check, run
from vpclab.checks.choice import Nodes
from vpclab.checks.ground import Ground, ImageError, NoNodesError
from vpclab.checks.network import NETWORK
from vpclab.checks.outcome import FailedError, NotApplicableError, Outcome, State
from vpclab.checks.records import Records
from vpclab.checks.report import About
from vpclab.checks.show import show_outcome
from vpclab.cluster.api import Api, ApiError

PUBLIC_IMAGE = "public.ecr.aws/docker/library/python:3-slim"
"""Where there is no DaemonSet of enid's to take an image from, which nodes have already."""

EVERY = Nodes()
DENIED = 403

STARTING: Check[Ground] = Check(
    "pods-start",
    "pods start on every node, and kubelet finds them ready",
    "the plugin or the daemon gives no address: `kubectl describe pod`, `kubectl get nn`",
    lambda _: "",
)


class VerifyError(Exception):
    """A round of checks cannot be made; the text says why, and what to do."""

    id = "VERIFY"


class KubeconfigError(VerifyError):
    """No cluster is named: set KUBECONFIG, or give --kubeconfig or --context."""

    id = "VERIFY-KUBECONFIG"


class ServerAwayError(VerifyError):
    """The API server does not answer: see that `kubectl get nodes` does."""

    id = "VERIFY-API"


class DeniedError(VerifyError):
    """The API server does not allow what checks need: give the rights of docs/verify.md."""

    id = "VERIFY-DENIED"


class UnfitError(VerifyError):
    """The cluster has no node that is ready: name some with --nodes, or see `kubectl get nodes`."""

    id = "VERIFY-NODES"


class BadImageError(VerifyError):
    """Containers do not start of the image: name one with Python 3, by --image."""

    id = "VERIFY-IMAGE"


class LeftError(VerifyError):
    """The namespace could not be removed: `kubectl delete namespace` with the name in the text."""

    id = "VERIFY-LEFT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be checked, and where."""

    checks: Sequence[Check[Ground]] = NETWORK
    kubeconfig: Path | None = None
    context: str = ""
    nodes: Nodes = EVERY
    image: str = ""
    """Of the pods; "" is the DaemonSet's."""

    cidrs: Sequence[IPv4Network] = ()


def verify(wish: Wish, console: Console) -> tuple[list[Outcome], About]:
    """Make the checks and tell of each as it ends. Raises VerifyError."""
    try:
        api = Api(wish.kubeconfig, wish.context)
    except (ConfigException, OSError) as error:
        raise KubeconfigError(f"no cluster is named: {error}") from error
    with contextlib.closing(api):
        return made(api, wish, console)


def made(api: Api, wish: Wish, console: Console) -> tuple[list[Outcome], About]:
    """Make the checks by an API server that is reached. Raises VerifyError."""
    began, started = datetime.now(UTC), time.monotonic()
    with _errors():
        image = wish.image or Records(api).image() or PUBLIC_IMAGE
        ground = Ground(api, image, wish.cidrs, wish.nodes.most, names=wish.nodes.names)
        console.print(f"{api.host}: nodes {', '.join(ground.nodes)}; image {image}", soft_wrap=True)
        outcomes = list(_round(wish, ground, console))
    about = About(
        version=_version(),
        cluster=api.host,
        nodes=tuple(ground.nodes),
        image=image,
        began=began.isoformat(timespec="seconds"),
        seconds=time.monotonic() - started,
    )
    return outcomes, about


def _version() -> str:
    from ipamd import __version__  # noqa: PLC0415 - it is read from the package's metadata

    return __version__


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Turn what keeps checks from being made into a VerifyError."""
    try:
        yield
    except ApiError as error:
        raise (DeniedError if error.status == DENIED else ServerAwayError)(str(error)) from error
    except NoNodesError as error:
        raise UnfitError(str(error)) from error
    except ImageError as error:
        raise BadImageError(f"{error}; name another with --image") from error


def _round(wish: Wish, ground: Ground, console: Console) -> Iterator[Outcome]:
    """Yield what comes of the checks; the ground is gone afterwards, however it ends."""
    try:
        with _interruptible():
            first = _started(ground, console)
            yield first
            if first.state is State.OK:
                for check in wish.checks:
                    with console.status(check.name):
                        outcome = run(check, ground)
                    show_outcome(outcome, console)
                    yield outcome
    finally:
        _remove(ground, console)


def _started(ground: Ground, console: Console) -> Outcome:
    """Furnish the ground, which is the first check. Raises ApiError, ImageError, NoNodesError."""
    began = time.monotonic()
    with console.status("starting pods"):
        try:
            ground.furnish()
            state, said = State.OK, f"{len(ground.ready())} pods on {len(ground.nodes)} nodes"
        except (ImageError, NoNodesError):
            raise
        except (FailedError, NotApplicableError) as error:
            state, said = State.FAILED, f"{error} -- {STARTING.means}"
    seconds = time.monotonic() - began
    outcome = Outcome(STARTING.name, STARTING.proves, state, said, seconds, "verify")
    show_outcome(outcome, console)
    return outcome


def _remove(ground: Ground, console: Console) -> None:
    with console.status(f"removing the namespace {ground.namespace}"):
        try:
            ground.remove()
        except (ApiError, FailedError) as error:
            raise LeftError(f"the namespace {ground.namespace} is left: {error}") from error
        except KeyboardInterrupt:
            console.print(f"the cluster is removing the namespace {ground.namespace}")
            raise


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end a round as ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
