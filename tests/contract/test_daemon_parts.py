"""The daemon as a whole, on the models: what holds up what, and what a start believes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from ipamd import witnesses
from ipamd.plan.loop import Delay, Thread, VirtualLoop
from ipamd.ports import Ports, Threads
from ipamd.settings import Settings
from ipamd.start import NodeUnfitError
from ipamd.status import CacheStatus
from ipamd.told_by_aws import IMDS_SECONDS, WATCH_SECONDS
from tests.chaos.daemon_side import ModelNet
from tests.chaos.history import UNKNOWN
from tests.chaos.world import KEYS, World


class OneCaller(World):
    """A node with a single thread for EC2."""

    def _ports(self, loop: VirtualLoop) -> Ports:
        ports = super()._ports(loop)
        return replace(ports, threads=replace(ports.threads, cloud=Thread(loop)))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = OneCaller(tmp_path, settings=Settings(demand=False, warm_ip_target=1))
    yield made
    if made.life is not None:
        made.kill()


def test_slow_imds_holds_up_no_call_of_ec2(world: World) -> None:
    world.start(30)
    assert world.life is not None
    world.life.loop.latency = lambda work, _: Delay(
        100.0 if getattr(work, "__name__", "") in {"notices", "enis"} else 0.001, 0.001
    )
    world.run(15)  # IMDS is being asked
    pods = [world.add(f"pod-{number}").pod for number in range(12)]
    world.run(5)
    assert all(pod.waited is not None and pod.waited < 2.0 for pod in pods)


def test_a_look_at_imds_reads_what_changes_and_seldom_what_lasts(world: World) -> None:
    world.start(30)
    world.add("pod")
    world.run(120)
    enis, looks = len(world.cloud.attached()), int(600 / WATCH_SECONDS)
    before, read = imds_cache(world), world.imds.keys_read
    world.run(600)
    after, read = imds_cache(world), world.imds.keys_read - read
    assert after["hits"] - before["hits"] + after["misses"] - before["misses"] == looks * enis
    assert 600 / IMDS_SECONDS <= (after["misses"] - before["misses"]) / enis <= 600 / 48
    assert read < 0.6 * looks * enis * KEYS, "five keys of thirteen, but for one look in six"


def imds_cache(world: World) -> CacheStatus:
    """Return what `enid status` shows of what is remembered of IMDS."""
    (found,) = (c for c in world.daemon.status()["caches"] if c["name"] == "imds")
    return found


def test_a_cidr_of_the_vpc_is_heard_of_within_a_minute_and_goes_at_the_second_reading(
    world: World,
) -> None:
    world.start(120)
    former, new = world.cloud.vpc_cidr, IPv4Network("172.16.0.0/16")
    world.cloud.vpc_cidr = new
    world.imds.forget()
    since = world.now
    while new not in world.daemon.nat.cidrs:
        world.run(1)
        assert world.now - since <= IMDS_SECONDS + WATCH_SECONDS
    world.run(3 * WATCH_SECONDS)
    assert former in world.daemon.nat.cidrs, "looks at what is remembered are no readings"
    world.run(IMDS_SECONDS)
    assert set(world.daemon.nat.cidrs) == {new}


def test_a_full_run_is_a_mode_refuses_pods_and_is_said_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.start(30)
    first = [world.add(f"pod-{number}").pod for number in range(3)]
    world.run(30)
    leases = world.daemon.leases
    leases._db.execute("PRAGMA query_only = 1")  # noqa: SLF001 - as a full /run refuses
    refused = world.add("refused").pod
    for pod in first:
        world.delete(pod.name)
    world.run(60)
    status = world.daemon.status()
    assert status["mode"] == "no-leases"
    assert "leases.db cannot be written" in str(status["trouble"])
    ((code, answer),) = refused.answers
    assert (code, answer["code"]) == (1, 5)
    assert not world.pods.keys() & {pod.name for pod in first}, "a DEL succeeds"
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(said) == len(set(said)), "each line once in five minutes"
    leases._db.execute("PRAGMA query_only = 0")  # noqa: SLF001 - and somebody made room
    world.run(20)
    assert world.daemon.status()["mode"] == "normal"
    assert leases.rows() == ()
    late = world.add("late").pod
    world.run(60)
    assert late.address is not None


@pytest.mark.parametrize(
    ("left", "answered_after"),
    [pytest.param(30.0, 25.0, id="waits"), pytest.param(4.0, 0.0, id="at-once")],
)
def test_an_add_is_answered_five_seconds_before_its_own_deadline(
    world: World, left: float, answered_after: float
) -> None:
    world.start(30)
    world.daemon.attachments.hand_out = lambda: None  # type: ignore[method-assign]  # none is free
    call = world.add("late")
    call.frame = replace(call.frame, deadline_ns=call.frame.started_ns + int(left * 1e9))
    world.run(max(0.0, answered_after - 0.1))
    assert call.pod.answers == []
    world.run(0.2)
    ((code, answer),) = call.pod.answers
    assert (code, answer["code"]) == (1, 11)


def test_a_type_that_nobody_knows_takes_the_enis_that_are_here(world: World) -> None:
    world.start(30)
    for number in range(12):
        world.add(f"pod-{number}")
    world.run(10)
    daemon = world.daemon
    assert len(world.cloud.attached()) == 2
    unknown = replace(daemon.around.identity, instance_type=UNKNOWN)
    limits = witnesses.known_limits(daemon.journal, replace(daemon.around, identity=unknown))
    assert limits.enis == 2


def test_what_only_a_setting_needs_is_refused_with_it_and_noted_without(world: World) -> None:
    kernel, clamp = world.kernel, Settings(mss_clamp=True)
    threads = cast("Threads", SimpleNamespace(net=ThreadPoolExecutor(1)))

    def check(settings: Settings) -> str:
        return asyncio.run(witnesses.check_node(ModelNet(kernel), threads, settings))

    assert (check(Settings()), check(clamp)) == ("", "")
    kernel.lacks_for_clamp = ("rt is needed",)
    assert check(Settings()) == "rt is needed"
    with pytest.raises(NodeUnfitError, match=r"^rt is needed$"):
        check(clamp)
    kernel.lacks = ("fib is needed",)
    with pytest.raises(NodeUnfitError, match=r"^fib is needed$"):
        check(Settings())
