"""A node over the embedded EC2: a whole daemon, a modelled kernel, and what must agree at rest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any, cast

import pytest

from cni.dataplane import GUARD_METRIC, PODS_TABLE, EniLink, desired_rules, eni_table
from eni.model import Eni, EniId
from ipamd.engine import ADD
from ipamd.intents import UNMANAGED_TAG, EniState, Held
from ipamd.journal import Journal
from ipamd.pool import Leaving
from ipamd.settings import ENI_MTU, Settings
from tests.chaos.kernel import KilledError
from tests.chaos.world import Pod, World
from tests.contract.embedded import EmbeddedCloud, Region

WARM = Settings(demand=False, warm_eni_target=1)
"""The peer's default: one ENI's worth of addresses beyond those of the pods."""

REST_SECONDS = 200.0
"""After this long nothing is on its way any more: two looks, a sweep's two, and backoffs."""


LOOKS = 100.0
"""Two looks at EC2, half a minute apart, and what follows from them."""


def by_address(warm: int | None = None, minimum: int | None = None, **more: Any) -> Settings:
    """Return settings with IP targets."""
    return Settings(demand=False, warm_ip_target=warm, minimum_ip_target=minimum, **more)


class Node(World):
    """A world whose cloud is the embedded EC2."""

    ec2: EmbeddedCloud

    def __init__(
        self,
        folder: Path,
        region: Region,
        *,
        settings: Settings | None = None,
        cloud: Callable[[Callable[[], float]], EmbeddedCloud] | None = None,
        **aws: Any,
    ) -> None:
        make = cloud or (lambda clock: EmbeddedCloud(region, clock, **aws))
        super().__init__(folder, settings=settings, make_cloud=make)
        self.ec2 = cast("EmbeddedCloud", self.cloud)
        self.ec2.linger, self.ec2.die_in = self._linger, self._die_in

    def _linger(self, seconds: float) -> None:
        self._alive().loop.linger(seconds)

    def _die_in(self, seconds: float) -> None:
        self._alive().loop.call_later(seconds, _die)

    # What happens to it ------------------------------------------------------------------
    def boot_up(self, seconds: float = REST_SECONDS) -> None:
        """Start the first daemon and let it come to rest."""
        self.start()
        self.run(seconds)

    def end(self) -> None:
        """End the daemon and everything of its node."""
        if self.life is not None:
            self.kill()
        self.ec2.end()

    def restart(self, seconds: float = 1.0, *, keep_journal: bool = True) -> None:
        """Kill the daemon, if there is one, and start the next."""
        if self.life is not None:
            self.kill()
        if not keep_journal:
            self.lose_journal()
        self.start(seconds)

    def lose_journal(self) -> None:
        """Take the journal's file away."""
        for path in self.folder.glob("journal.db*"):
            path.unlink()

    def become_another(self) -> None:
        """Boot the disk as another instance, as an image that was baked with its state does."""
        cloud, kernel = self.ec2, self.kernel
        kernel._primary_mac = cloud.identity.mac  # noqa: SLF001 - no node changes its own
        kernel._primary = IPv4Interface(  # noqa: SLF001 - as above
            (cloud.identity.primary, cloud.subnet_cidr.prefixlen)
        )
        self.reboot()

    def kill_and_forget(self) -> None:
        """Kill the daemon and give back what it held, as if it had never been."""
        self.kill()
        self.lose_journal()
        self.ec2.end()
        self.ec2.launch()
        self.become_another()

    def adds(self, number: int) -> list[Pod]:
        """Let so many pods come at once."""
        return [self.add(f"pod-{self.next_id():03}").pod for _ in range(number)]

    def deletes(self, *, on: EniId | None = None) -> None:
        """Let every pod go, or those of one ENI."""
        for pod in self.living:
            assert pod.address is not None
            if on is None or self.daemon.pool.slots[pod.address].eni_id == on:
                self.delete(pod.name)

    def calls(self) -> dict[str, int]:
        """Return what EC2 was asked since the last time, by action."""
        found = {action: n for action, n in self.ec2.plane.calls.items() if n}
        self.ec2.plane.calls.clear()
        return found

    # What EC2 shows ----------------------------------------------------------------------
    def attached(self) -> tuple[Eni, ...]:
        """Return what is attached, by device index."""
        return tuple(
            sorted(
                self.ec2.attached(), key=lambda e: e.attachment.device_index if e.attachment else 0
            )
        )

    def shape(self) -> list[int]:
        """Return how many addresses for pods each ENI has."""
        return [sum(b.num_addresses for b in eni.blocks) for eni in self.attached()]

    def held(self) -> set[IPv4Network]:
        """Return every block of the node's ENIs."""
        return {block for eni in self.attached() for block in eni.blocks}

    def adopted(self) -> tuple[Eni, ...]:
        """Return the ENIs that are the daemon's."""
        return tuple(e for e in self.attached() if e.tags.get(UNMANAGED_TAG) != "true")

    # What must agree ---------------------------------------------------------------------
    def check(self) -> None:
        """Raise if at rest anything is lost or leaked."""
        assert not [*self.lost(), *self.leaked_things()]

    def lost(self) -> Iterator[str]:
        """Yield what pods could have and cannot."""
        yield from self._doubly_owned()
        yield from (f"{call.verb} {call.pod.name} waits" for call in self.pending)
        pool = self.daemon.pool
        for eni in self.adopted():
            if eni.id not in pool.enis:
                yield f"{eni.id} is attached and not in the pool"
            if eni.attachment and eni.attachment.device_index and not self._is_routed(eni):
                yield f"{eni.id} has no table"
        blocks = {b: eni.id for eni in self.adopted() for b in eni.blocks}
        yield from (
            f"{b} is not in the pool" for b, e in blocks.items() if pool.blocks().get(b) != e
        )
        yield from (f"{block} has no guard" for block in blocks.keys() - self.guards())
        yield from (f"no rule {rule}" for rule in set(self._rules()) - self.kernel.rules)
        leaving = (a for a, slot in pool.slots.items() if isinstance(slot.state, Leaving))
        yield from (f"{address} is neither ours nor EC2's" for address in leaving)

    def _doubly_owned(self) -> Iterator[str]:
        """Yield addresses that two pods have, or that a pod has and the node does not."""
        for address, names in self.kernel.owners().items():
            if len(names) > 1:
                yield f"{address} has {len(names)} owners"
        held = {address for block in self.held() for address in block}
        yield from (
            f"{p.name}'s {p.address} is EC2's" for p in self.living if p.address not in held
        )
        if len({pod.address for pod in self.living}) < len(self.living):
            yield "two pods have one address"

    def leaked_things(self) -> Iterator[str]:
        """Yield what nobody uses and nobody gives back."""
        there = self.adopted()
        held = {block for eni in there for block in eni.blocks}
        made = [eni for eni in self.ec2.enis() if eni.description.startswith("aws-K8S-")]
        yield from (f"{eni.id} is nobody's" for eni in made if eni.attachment is None)
        yield from (f"{b} in the pool is EC2's" for b in self.daemon.pool.blocks() if b not in held)
        yield from (f"{b} is guarded" for b in self.guards() - held)
        yield from (f"rule {rule}" for rule in self.kernel.rules - set(self._rules()))
        for eni in there:
            if eni.attachment and not eni.attachment.delete_on_termination:
                yield f"{eni.id} would outlive its instance"
        yield from self._journalled(self.daemon.journal, there)

    def _journalled(self, journal: Journal, there: tuple[Eni, ...]) -> Iterator[str]:
        blocks = {block: eni.id for eni in there for block in eni.blocks}
        rows = {b: e for b, e, state in journal.blocks() if state is Held.HELD}
        yield from (f"the journal lacks {b}" for b in blocks.keys() - rows.keys())
        yield from (f"the journal has {b}" for b, _, _ in journal.blocks() if b not in blocks)
        intents = {i.eni_id: i.state for i in journal.intents()}
        yield from (f"the journal lacks {eni.id}" for eni in there if eni.id not in intents)
        for eni_id, state in intents.items():
            if eni_id not in {eni.id for eni in there} or state is not EniState.ACTIVE:
                yield f"the journal has {eni_id}, {state}"

    def guards(self) -> set[IPv4Network]:
        """Return what the kernel guards."""
        return {
            cast("IPv4Network", way.network)
            for way in self.kernel.ways.values()
            if way.table == PODS_TABLE and way.metric == GUARD_METRIC
        }

    def _is_routed(self, eni: Eni) -> bool:
        assert eni.attachment is not None
        table = eni_table(eni.attachment.device_index + 1)
        link = next((link for link in self.kernel.links if link.mac == eni.mac), None)
        ways = [way for way in self.kernel.ways.values() if way.table == table]
        return link is not None and {way.index for way in ways} == {link.index}

    def _rules(self) -> tuple[Any, ...]:
        links = []
        for eni in self.adopted():
            assert eni.attachment is not None
            assert eni.primary is not None
            number = eni.attachment.device_index + 1
            links.append(
                EniLink(number, eni.mac, eni.primary, self.ec2.subnets[eni.subnet_id], ENI_MTU)
            )
        return desired_rules(links)

    @property
    def failures(self) -> dict[str, str]:
        """What is wrong now, by flight."""
        return {name: str(error) for name, error in self.daemon.engine.flights.troubles.items()}

    @property
    def is_growing(self) -> bool:
        """Whether the daemon may attach another ENI now."""
        return self.daemon.engine.flights.may_start(ADD)


def _die() -> None:
    raise KilledError("killed while it waits")


Make = Callable[..., Node]
"""What the fixture `new_node` gives."""


def grown(new_node: Make, **more: object) -> tuple[Node, str]:
    """Return a node with a pod, and its second ENI, which nobody uses."""
    node = new_node(settings=WARM, **more)
    node.boot_up()
    node.adds(1)
    node.run(60)
    return node, node.attached()[1].id


def said(caplog: pytest.LogCaptureFixture, message: str) -> Iterator[logging.LogRecord]:
    """Yield what was logged under *message*."""
    return (record for record in caplog.records if record.getMessage() == message)
