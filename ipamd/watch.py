"""What the cluster tells this node: its Node, its pods, who sweeps, how many nodes. Shell.

What happens to the API server reaches nobody here as a failure: the last that was heard
stays, `standing` says what is wrong, and it is asked again with full jitter. Nothing waits
for it.

Each blocking call has a thread of its own that ends with it; the loop owns everything else.
A watch that hangs holds no stop up: its thread is a daemon's, and its socket is shut.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote

from ipamd import election
from ipamd.clock import Instant
from ipamd.cluster import (
    ApiAwayError,
    ApiDeniedError,
    ApiRefusedError,
    Bookmark,
    Change,
    ClusterError,
    CredentialsUnreadableError,
    EniConfig,
    Gone,
    HistoryGoneError,
    LeaseView,
    Link,
    Listing,
    MalformedObjectError,
    NodeSeen,
    NodeView,
    ObjectAbsentError,
    OthersFirstError,
    Patch,
    PodView,
    Put,
    RecordSeen,
    Standing,
    backoff_seconds,
    change,
    eni_config,
    lease_view,
    listing,
    node_seen,
    node_view,
    pod_view,
    pods_bound,
    record_seen,
)
from ipamd.election import Action, Elector, Terms
from ipamd.kube import Api
from ipamd.kube_objects import annotations_patch, pod_path
from ipamd.node_network import RECORDS

log = logging.getLogger(__name__)
T = TypeVar("T")

WATCH_SECONDS: Final = 300
"""How long a watch lasts before the API server ends it, at least; client-go's five minutes."""

HASTE_SECONDS: Final = 1.0
"""A watch that ends sooner than this is not followed by the next at once."""

STEADY_SECONDS: Final = 30.0
"""What has worked for this long has forgotten its former failures."""

ABSENT_SECONDS: Final = 300.0
"""How long at most until it is looked again whether a kind of objects is there."""

RECORD: Final = "NodeNetworks"
LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
ENI_CONFIGS: Final = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs"
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


class Cluster(Protocol):
    """What a daemon that is joined hears; `KubeCluster` is the real one."""

    node: str
    view: NodeView | None
    seen: NodeSeen | None
    record: RecordSeen | None
    is_record_heard: bool
    on_node: Callable[[NodeView], None]
    on_bound: Callable[[int], None]
    on_leader: Callable[[bool], None]
    on_nodes: Callable[[int], None]
    on_standing: Callable[[Standing], None]
    on_record: Callable[[RecordSeen | None], None]

    @property
    def standing(self) -> Standing:
        """How we stand with the API server."""

    @property
    def pods(self) -> Mapping[str, PodView]:
        """This node's pods, by uid."""

    @property
    def is_leader(self) -> bool:
        """Whether this node sweeps now."""

    @property
    def denials(self) -> str:
        """What the API server does not allow, in its words; "" if it allows all."""

    async def find_eni_config(self, name: str) -> EniConfig:
        """Return an ENIConfig. Raises ClusterError."""

    async def post_event(self, namespace: str, body: Mapping[str, Any]) -> None:
        """Create an Event. Raises ClusterError."""

    async def patch(self, what: str, path: str, body: Mapping[str, Any], kind: Patch) -> Any:
        """Change an object, and return it; *what* names it where a refusal is said.

        Raises ClusterError.
        """

    async def create(self, what: str, path: str, body: Mapping[str, Any]) -> Any:
        """Create an object in *path*, and return it. As `patch`."""

    async def annotate(self, pod: PodView, annotations: Mapping[str, str]) -> None:
        """Set annotations of that very pod. Raises ClusterError, also if it is gone."""

    async def run(self) -> None:
        """Follow and elect until cancelled."""


# What is heard ---------------------------------------------------------------------------
@dataclass(slots=True)
class _Following:
    """One list that is kept true by a watch; *version* "" says that it must be listed."""

    what: str
    path: str
    query: Mapping[str, str]
    on_list: Callable[[Listing], None]
    on_change: Callable[[Change], None]
    version: str = ""


@dataclass(slots=True)
class _Trouble:
    """What fails, and how often it has in a row."""

    error: ClusterError
    times: int = 1


class KubeCluster:
    """This node's Node and pods, the sweeper's election and the number of nodes, as they change.

    Callbacks run on the loop, and only when their value is a new one.
    """

    def __init__(
        self,
        *,
        api: Api,
        node: str,
        namespace: str,
        clock: Callable[[], Instant],
        jitter: Callable[[], float],
        terms: Terms | None = None,
        watch_seconds: int = WATCH_SECONDS,
        with_record: bool = False,
    ) -> None:
        self.api, self.node = api, node
        self.on_node: Callable[[NodeView], None] = lambda _: None
        self.on_bound: Callable[[int], None] = lambda _: None
        self.on_leader: Callable[[bool], None] = lambda _: None
        self.on_nodes: Callable[[int], None] = lambda _: None
        self.on_standing: Callable[[Standing], None] = lambda _: None
        self.on_record: Callable[[RecordSeen | None], None] = lambda _: None
        self.view: NodeView | None = None
        self.seen: NodeSeen | None = None
        self.record: RecordSeen | None = None
        self.is_record_heard = False
        self._with_record = with_record
        self.bound: int | None = None
        self.nodes: int | None = None
        self._clock, self._jitter, self._watch_seconds = clock, jitter, watch_seconds
        self._leases = LEASES.format(quote(namespace, safe=""))
        self._elector = Elector(me=node, terms=terms or Terms())
        self._led = False
        self._deadline: asyncio.TimerHandle | None = None
        self._pods: dict[str, PodView] = {}
        self._troubles: dict[str, _Trouble] = {}
        self._heard = False
        self._told = self.standing

    # Questions -------------------------------------------------------------------------
    @property
    def standing(self) -> Standing:
        """How we stand with the API server, and the last sentence about it."""
        errors = [trouble.error for trouble in self._troubles.values()]
        away = [e for e in errors if isinstance(e, ApiAwayError | CredentialsUnreadableError)]
        if away:
            return Standing(Link.AWAY, str(away[-1]))
        if not errors and not self._heard:
            return Standing(Link.AWAY, "the API server has not answered yet")
        return Standing(Link.CONNECTED, str(errors[-1]) if errors else "")

    @property
    def denials(self) -> str:
        """What the API server does not allow, in its words; "" if it allows all."""
        errors = (trouble.error for trouble in self._troubles.values())
        return "; ".join(str(error) for error in errors if isinstance(error, ApiDeniedError))

    @property
    def pods(self) -> Mapping[str, PodView]:
        """This node's pods, by uid, as they were heard of last."""
        return self._pods

    @property
    def is_leader(self) -> bool:
        """Whether this node sweeps now; ask again before each deletion."""
        return self._elector.leads(self._clock().boot)

    @property
    def leads_until(self) -> float:
        """Until when, in seconds of the boot clock: start no deletion that may take longer."""
        return self._elector.leads_until

    def eni_config(self, name: str) -> EniConfig:
        """Return an ENIConfig; blocks, for a thread. Raises ClusterError."""
        try:
            return eni_config(self.api.get(f"{ENI_CONFIGS}/{quote(name, safe='')}"))
        except ObjectAbsentError as error:
            raise ObjectAbsentError(f"ENIConfig {name} is not in the cluster ({error})") from error

    async def find_eni_config(self, name: str) -> EniConfig:
        """Return an ENIConfig. Raises ClusterError."""
        return await _threaded(f"ENIConfig {name}", lambda: self.eni_config(name))

    # Events ----------------------------------------------------------------------------
    async def post_event(self, namespace: str, body: Mapping[str, Any]) -> None:
        """Create an Event. Raises ClusterError."""
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/events"
        await _threaded("event", lambda: self.api.create(path, body))

    # Writing ---------------------------------------------------------------------------
    async def patch(self, what: str, path: str, body: Mapping[str, Any], kind: Patch) -> Any:
        """Change an object, and return it. Raises ClusterError."""
        return await self._write(what, lambda: self.api.patch(path, body, kind))

    async def create(self, what: str, path: str, body: Mapping[str, Any]) -> Any:
        """Create an object in *path*, and return it. Raises ClusterError."""
        return await self._write(what, lambda: self.api.create(path, body))

    async def annotate(self, pod: PodView, annotations: Mapping[str, str]) -> None:
        """Set annotations of that very pod. Raises ClusterError."""
        path, body = pod_path(pod), annotations_patch(pod, annotations)

        def work() -> ClusterError | None:
            try:
                self.api.patch(path, body, Patch.MERGE)
            except ObjectAbsentError as error:  # which is nothing to be said
                return error
            except ApiRefusedError as error:
                if "metadata.uid" not in str(error):
                    raise
                return OthersFirstError(str(error))
            return None

        if (gone := await self._write("pod annotations", work)) is not None:
            raise gone

    async def _write(self, what: str, work: Callable[[], T]) -> T:
        """Do *work*; what the API server refuses stays in `standing` until it is taken."""
        try:
            answer = await _threaded(what, work)
        except (ApiAwayError, OthersFirstError):
            raise  # the watches say that it is away; who was late reads again
        except ClusterError as error:
            self._note(what, error)
            raise
        self._note(what, None)
        return answer

    # Life ------------------------------------------------------------------------------
    async def run(self) -> None:
        """Follow and elect until cancelled. Raises nothing of the API server's."""
        followings = [
            _Following(
                "this Node",
                "/api/v1/nodes",
                {"fieldSelector": f"metadata.name={self.node}"},
                self._list_node,
                self._change_node,
            ),
            _Following(
                "this node's pods",
                "/api/v1/pods",
                {"fieldSelector": f"spec.nodeName={self.node}"},
                self._list_pods,
                self._change_pod,
            ),
        ]
        if self._with_record:
            query = {"fieldSelector": f"metadata.name={self.node}"}
            followings.append(
                _Following(RECORD, RECORDS, query, self._list_record, self._change_record)
            )
        try:
            async with asyncio.TaskGroup() as tasks:
                for following in followings:
                    tasks.create_task(self._follow(following))
                tasks.create_task(self._elect())
        finally:
            self.api.close()
            self._elector = Elector(me=self.node, terms=self._elector.terms)
            self._tell_leader()

    # Following -------------------------------------------------------------------------
    async def _follow(self, following: _Following) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await _threaded(following.what, lambda: self._look(following, loop))
            except ClusterError as error:
                lasted = loop.time() - began
                failures = 1 if lasted > STEADY_SECONDS else failures + 1
                if isinstance(error, HistoryGoneError | MalformedObjectError | ObjectAbsentError):
                    following.version = ""
                if not isinstance(error, HistoryGoneError):
                    self._note(following.what, error)
                pause = backoff_seconds(failures, self._jitter())
                if isinstance(error, ObjectAbsentError):  # there is no such kind of objects
                    self.record, self.is_record_heard = None, False
                    pause = ABSENT_SECONDS * (1 + self._jitter()) / 2
                await asyncio.sleep(pause)
            else:
                failures = 0
                if loop.time() - began < HASTE_SECONDS:
                    await asyncio.sleep(self._jitter())

    def _look(self, following: _Following, loop: asyncio.AbstractEventLoop) -> None:
        """List if need be, then watch until the server ends it. In a thread."""
        tell = loop.call_soon_threadsafe
        if not following.version:
            # Version "0" is answered from the API server's cache, whose index by node spares
            # it reading all pods of the cluster; kubelet asks the same way.
            query = {**following.query, "resourceVersion": "0"}
            listed = listing(self.api.get(following.path, query), f"list of {following.what}")
            tell(following.on_list, listed)
            tell(self._note, following.what, None)
            following.version = listed.version
        seconds = self._watch_seconds + int(self._watch_seconds * self._jitter())
        query = {**following.query, "resourceVersion": following.version}
        with closing(self.api.watch(following.path, query, seconds)) as lines:
            for line in lines:
                if not line:
                    tell(self._note, following.what, None)
                    continue
                changed = change(line, following.what)
                if not isinstance(changed, Bookmark):
                    tell(following.on_change, changed)
                following.version = changed.version

    def _list_node(self, listed: Listing) -> None:
        if not listed.objects:
            self._note("Node", ObjectAbsentError(f"Node {self.node} is not in the cluster"))
        for found in listed.objects:
            self._see_node(found)

    def _change_node(self, changed: Change) -> None:
        match changed:
            case Put(_, found):
                self._see_node(found)
            case Gone():  # a kubelet that runs registers it again
                self.seen = None
                self._note("Node", ObjectAbsentError(f"Node {self.node} was deleted"))

    def _see_node(self, found: object) -> None:
        try:
            view, self.seen = node_view(found), node_seen(found)
        except MalformedObjectError as error:
            self._note("Node", error)
            return
        self._note("Node", None)
        if view != self.view:
            self.view = view
            self.on_node(view)

    def _list_record(self, listed: Listing) -> None:
        self._see_record(listed.objects[0] if listed.objects else None)
        self.is_record_heard = True

    def _change_record(self, changed: Change) -> None:
        match changed:
            case Put(_, found):
                self._see_record(found)
            case Gone():
                self._see_record(None)

    def _see_record(self, found: object) -> None:
        try:
            self.record = None if found is None else record_seen(found)
        except MalformedObjectError as error:  # which its schema does not allow
            log.warning("nodenetwork not read", extra={"reason": str(error)})
            return
        self.on_record(self.record)

    def _list_pods(self, listed: Listing) -> None:
        views = [view for found in listed.objects if (view := self._read_pod(found))]
        self._pods = {view.uid: view for view in views}
        self._count_pods()

    def _change_pod(self, changed: Change) -> None:
        match changed:
            case Put(_, found):
                if view := self._read_pod(found):
                    self._pods[view.uid] = view
            case Gone(_, found):
                if view := self._read_pod(found):
                    self._pods.pop(view.uid, None)
        self._count_pods()

    def _read_pod(self, found: object) -> PodView | None:
        try:
            return pod_view(found)
        except MalformedObjectError as error:
            log.warning("pod not counted", extra={"reason": str(error)})
            return None

    def _count_pods(self) -> None:
        bound = pods_bound(self._pods.values(), self.node)
        if bound != self.bound:
            self.bound = bound
            self.on_bound(bound)

    # Election --------------------------------------------------------------------------
    async def _elect(self) -> None:
        failures = 0
        while True:
            try:
                pause = await self._candidate()
            except OthersFirstError:
                pause = self._jitter()  # of two who wrote, the other was first: read again
            except ClusterError as error:
                failures += 1
                self._note("election", error)
                pause = backoff_seconds(failures, self._jitter())
                pause = min(pause, self._elector.terms.renew_seconds)
            else:
                failures = 0
                self._note("election", None)
            self._tell_leader()
            await asyncio.sleep(pause)

    async def _candidate(self) -> float:
        """Read the Lease and do what is to be done; return how long to wait."""
        found = await _threaded("election", self._read_lease)
        lease = None if found is None else lease_view(found)
        self._elector, action = election.step(self._elector, lease, self._clock().boot)
        self._tell_leader()  # a lost leadership is told before anything else is asked
        if action is not Action.STAND_BY:
            nodes = await _threaded("election", self._count_nodes)
            moment = self._clock()
            body = election.draft(self._elector, action, found, wall=moment.wall, nodes=nodes)
            written = await _threaded("election", lambda: self._write_lease(action, body))
            lease = lease_view(written)
            self._elector = election.granted(
                self._elector, action, lease, asked_at=moment.boot, now=self._clock().boot
            )
            if action is not Action.RENEW:
                log.info("lease taken", extra={"lease": election.NAME, "by": action.value})
        self._see_nodes(lease)
        return election.pause_seconds(self._elector, action, self.nodes or 0, self._jitter())

    def _read_lease(self) -> Any:
        try:
            return self.api.get(f"{self._leases}/{election.NAME}")
        except ObjectAbsentError:
            return None

    def _write_lease(self, action: Action, body: Mapping[str, Any]) -> Any:
        if action is Action.CREATE:
            return self.api.create(self._leases, body)
        return self.api.replace(f"{self._leases}/{election.NAME}", body)

    def _count_nodes(self) -> int | None:
        """Return how many nodes the cluster has: one small LIST; None keeps the former number."""
        try:
            found = self.api.get("/api/v1/nodes", {"limit": "1"}, METADATA_ONLY)
            return listing(found, "list of nodes").total
        except ClusterError as error:
            log.warning("nodes not counted", extra={"reason": str(error)})
            return None

    def _see_nodes(self, lease: LeaseView | None) -> None:
        if lease is not None and lease.nodes and lease.nodes != self.nodes:
            self.nodes = lease.nodes
            self.on_nodes(lease.nodes)

    def _tell_leader(self) -> None:
        """Say whether we lead, now and when the deadline has passed."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        leads = self.is_leader
        if leads:
            rest = self._elector.leads_until - self._clock().boot
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(rest, self._tell_leader)
        if leads != self._led:
            self._led = leads
            log.info("sweeper" if leads else "no longer sweeper", extra={"node": self.node})
            self.on_leader(leads)

    # Trouble ---------------------------------------------------------------------------
    def _note(self, what: str, error: ClusterError | None) -> None:
        """Remember how *what* goes, and tell if we stand otherwise with the API server now."""
        self._remember(what, error)
        standing = self.standing
        if standing != self._told:
            self._told = standing
            self.on_standing(standing)

    def _remember(self, what: str, error: ClusterError | None) -> None:
        """Remember how *what* goes; a failure is logged when it is new, and when it ends."""
        former = self._troubles.get(what)
        if error is None:
            self._heard = True
            if former is not None:
                del self._troubles[what]
                log.info("kubernetes answers again", extra={"of": what, "failures": former.times})
            return
        if former is None or type(former.error) is not type(error):
            log.warning("kubernetes", extra={"of": what, "reason": str(error), "id": error.id})
            self._troubles[what] = _Trouble(error)
        else:
            self._troubles[what] = _Trouble(error, former.times + 1)


def _threaded(name: str, work: Callable[[], T]) -> Awaitable[T]:
    """Run *work* in a thread that holds up nobody's exit; its ClusterError is raised here.

    So is any other failure, as one: a mistake of ours about Kubernetes ends no daemon.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: Callable[[], None]) -> None:
        if not future.done():  # else whoever waited was cancelled
            result()

    def top() -> None:
        try:
            value = work()
            result = partial(future.set_result, value)
        except ClusterError as error:
            result = partial(future.set_exception, error)
        except Exception as error:  # the thread's top
            log.exception("kubernetes, not foreseen", extra={"of": name})
            result = partial(future.set_exception, ApiRefusedError(f"{name}: {error!r}"))
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, result)

    threading.Thread(target=top, name=f"kube {name}", daemon=True).start()
    return future
