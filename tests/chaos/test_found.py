"""What histories found in our own daemon, each in the smallest replay that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cni.dataplane import DYING_GROUP
from eni.errors import (
    InstanceLimitError,
    SubnetExhaustedError,
    ThrottledError,
    UnauthorizedError,
    UnreachableError,
)
from eni.model import Address, Kind
from ipamd.census import SURPRISE_SECONDS
from ipamd.engine import DOUBTFUL_FAILURES
from ipamd.eni_book import SECOND_LOOK_SECONDS
from ipamd.hearsay import LASTS_SECONDS
from ipamd.plan.cloud import Drop, Fault, Lose, Raise, no_fault
from ipamd.plan.loop import Delay
from ipamd.pool import Cooling
from ipamd.settings import Settings
from ipamd.upkeep import REAP_AGAIN_SECONDS
from tests.chaos.draw import History
from tests.chaos.many import folder
from tests.chaos.stage import PLAIN, Stage, fixed

WARM = fixed(warm_ip_target=3)

Setting = Callable[[History], Stage]


@pytest.fixture
def stage() -> Iterator[Setting]:
    with folder() as path:
        made: list[Stage] = []

        def make(history: History) -> Stage:
            made.append(Stage(Path(path), history))
            return made[0]

        yield make
        if made[0].world.life is not None:
            made[0].world.kill()


@pytest.mark.parametrize("steps", range(3))
def test_a_kernel_that_refuses_to_cut_a_wire_ends_nothing(stage: Setting, steps: int) -> None:
    s = stage(PLAIN)
    s.start()
    s.pods(2)
    s.world.kernel.refuse_after(steps)
    s.go(2, 30.0)
    s.rest()


@pytest.mark.parametrize("steps", range(12))
def test_a_kernel_that_refuses_once_does_not_end_a_start(stage: Setting, steps: int) -> None:
    s = stage(WARM)
    s.start()
    s.pods(12)
    s.world.kill()
    s.world.kernel.refuse_after(steps)
    s.start()
    assert len(s.world.living) == 12
    s.rest()


def test_an_assign_whose_look_fails_is_not_repeated_unlooked(stage: Setting) -> None:
    s = stage(WARM)
    s.start()
    seen: list[str] = []

    def fault(action: str, _about: str) -> Fault | None:
        seen.append(action)
        if action.startswith("Assign") and seen.count(action) == 1:
            return Lose()
        looks = seen.count("DescribeNetworkInterfaces")
        return Raise(UnreachableError) if action.startswith("Describe") and looks <= 3 else None

    s.account_cloud.account.faults = fault
    s.pods(2, 120.0)
    s.rest()
    assert seen.count("AssignPrivateIpAddresses") == 1


def test_an_eni_deleted_by_hand_is_not_asked_for_ever(stage: Setting) -> None:
    s = stage(replace(WARM, instance_type="t3.medium"))
    s.start()
    s.pods(6)
    last = s.secondary[-1]
    s.laws.by_hand |= {a for block in last.blocks for a in block}
    s.laws.lost.add(last.id)
    s.world.imds.late = s.world.cloud.attached()  # so that only a refusal tells
    s.account_cloud.account.delete_by_hand(last.id)
    s.pods(3, 300.0)
    known = s.world.daemon.pool.enis.get(last.id)
    assert known is None or known.closed
    s.rest()


def test_what_a_full_disk_kept_from_the_journal_cools_after_a_reboot(stage: Setting) -> None:
    s = stage(replace(PLAIN, settings=Settings(prefix_delegation=True, cooldown_seconds=60)))
    s.weather.is_disk_full = False
    s.start()
    s.pods(10)
    journal = s.world.daemon.journal
    for block in s.world.daemon.pool.blocks():
        journal._write(("DELETE FROM blocks WHERE block = ?", [(str(block),)]))  # noqa: SLF001
    s.world.reboot()
    s.start(0.0)
    s.run(120.0)
    assert len(s.world.living) == 10


def test_what_was_given_back_right_before_a_kill_is_not_believed(stage: Setting) -> None:
    s = stage(fixed(warm_ip_target=1, cooldown_seconds=0))
    s.start()
    s.pods(8)
    s.go(8)
    while not s.laws.calls["unassign"]:
        s.run(0.1)
    s.run(1.0)
    s.weather.stale, s.weather.stale_seconds = 1.0, 20.0
    s.weather.stale_least = 20.0
    s.restart(3.0)
    s.pods(8, 20.0)


def test_dead_links_are_reaped_once_a_strangers_has_left_their_group(stage: Setting) -> None:
    s = stage(PLAIN)
    s.start()
    s.pods(1)
    kernel = s.world.kernel
    kernel.new_link("uplink", "0a:00:00:00:00:01").group = DYING_GROUP
    left = kernel.new_link("enileft", "0a:00:00:00:00:02")  # by a life that was killed
    left.group, left.alias = DYING_GROUP, f"enid1 {'c' * 64}/eth0 enid uid-1 10.0.1.20 eni-0123"
    s.go(1, 30.0)
    assert {"uplink", "enileft"} <= {*kernel.names()}
    kernel.delete_link("uplink")
    s.run(2 * REAP_AGAIN_SECONDS)
    assert "enileft" not in kernel.names()
    s.rest()


def test_addresses_that_come_with_another_eni_are_not_given_up_for_the_first(
    stage: Setting,
) -> None:
    """Seed 56: an ENI is deleted unheard, and its addresses come with the next one."""
    s = stage(replace(fixed(warm_ip_target=1), instance_type="t3.small", subnet="10.0.0.0/28"))
    s.start()
    s.pods(5)
    first = s.secondary[0]
    theirs = {address for block in first.blocks for address in block}
    asked: list[str] = []

    def fault(action: str, about: str) -> Fault | None:
        asked.append(action)
        if action.startswith("Delete"):
            return Lose()
        is_unheard = "DeleteNetworkInterface" in asked and about == first.id
        return Raise(UnauthorizedError) if is_unheard else None

    def latency(work: Callable[..., object], arguments: tuple[object, ...]) -> Delay:
        is_late = getattr(work, "__name__", "") == "hold" and first.id not in arguments
        return Delay(60.0 if is_late else 0.01, 0.01)

    s.account_cloud.account.faults = fault
    s.kubelet.unwant("p1")  # the primary ENI has one to spare
    for name, sandbox in tuple(s.kubelet.sandboxes.items()):
        if sandbox and s.world.pods[sandbox].address in theirs:
            s.kubelet.unwant(name)
    s.run_until(lambda: "DeleteNetworkInterface" in asked)
    assert s.world.life is not None
    s.world.life.loop.latency = latency
    s.pods(3, 120.0)
    (second,) = s.secondary
    assert theirs & {address for block in second.blocks for address in block}
    s.account_cloud.account.faults = no_fault
    s.rest()


def test_an_attach_without_an_answer_is_asked_again_only_after_a_second_look(
    stage: Setting,
) -> None:
    s = stage(PLAIN)
    s.start()
    asked: dict[str, list[float]] = {}

    def fault(action: str, about: str) -> Fault | None:
        if not action.startswith("Attach"):
            return None
        asked.setdefault(about, []).append(s.world.now)
        return Drop() if sum(map(len, asked.values())) == 1 else None

    s.account_cloud.account.faults = fault
    s.pods(12, 90.0)
    assert len(s.world.living) == 12
    first, second = next(iter(asked.values()))
    assert second - first >= SECOND_LOOK_SECONDS
    s.rest()


def test_the_last_digit_of_a_clock_spins_no_loop(stage: Setting) -> None:
    s = stage(PLAIN)
    s.start(4000.0)
    s.world.reboot()  # from now on the boot's clock has finer digits than the loop's
    s.start()
    s.world.daemon.reconcile._due += 1e-13  # noqa: SLF001 - chance brings it, too
    s.run(100.0)


def test_an_eni_that_came_at_a_later_try_is_not_gone_for_being_shown_late(stage: Setting) -> None:
    """Seed 42: the tries before left nothing, and the tag told so; that counted against it."""
    s = stage(replace(fixed(warm_ip_target=3), lag_seconds=8.0))
    s.start()
    tries: list[float] = []

    def fault(action: str, _about: str) -> Fault | None:
        if action != "CreateNetworkInterface":
            return None
        tries.append(s.world.now)
        if len(tries) == 1:
            return Drop()
        return Raise(SubnetExhaustedError) if tries[-1] - tries[0] < SECOND_LOOK_SECONDS else None

    s.account_cloud.account.faults = fault
    s.pods(9, 300.0)
    assert len(tries) > 2
    s.rest()


def test_an_address_that_went_by_hand_while_it_cooled_cools_on_when_it_comes_back(
    stage: Setting,
) -> None:
    s = stage(fixed(minimum_ip_target=2))
    s.start()
    s.pods(2)
    account, census = s.account_cloud.account, s.world.daemon.engine.census
    (primary,) = s.world.cloud.attached()
    oldest = s.world.living[0].address
    assert oldest is not None
    blocks = tuple(block for block in primary.blocks if oldest in block)
    s.laws.by_hand |= {address for block in blocks for address in block}
    account.unassign_by_hand(primary.id, blocks)
    census.look_twice()
    s.run(25.0)
    s.go(1, 10.0)
    assert isinstance(s.world.daemon.pool.slots[oldest].state, Cooling), "EC2 gave it again at once"
    s.pods(8, 60.0)
    s.rest()


@pytest.mark.parametrize("steps", range(6))
def test_what_ec2_gave_and_the_kernel_refused_is_taken_before_more_is_asked_for(
    stage: Setting, steps: int
) -> None:
    """Seeds 799 and 896: an ENI was asked for an address too many, and EC2 said its limit."""
    s = stage(fixed(warm_ip_target=1, cooldown_seconds=0, max_eni=1))
    s.start()
    s.pods(3)
    s.run(60.0)
    asked = s.laws.calls["assign"]
    s.world.kernel.refuse_after(steps)
    s.pods(1, 30.0)
    s.run(30.0)
    assert s.laws.calls["assign"] == asked + 1
    s.rest()


def test_an_eni_whose_attach_is_throttled_is_joined_by_no_other(stage: Setting) -> None:
    """Seed 643: after three tries it was not counted on, and another waited beside it."""
    s = stage(replace(WARM, instance_type="m5.xlarge"))
    s.start()
    s.weather.throttled, s.weather.throttles = {"AttachNetworkInterface"}, 1.0
    s.pods(16, 60.0)
    assert s.laws.calls["attach"] > DOUBTFUL_FAILURES
    assert s.laws.calls["create"] == 1
    s.weather.clear_up()
    s.run(90.0)
    assert len(s.world.living) == 16
    s.rest()
    assert s.laws.calls["create"] == 1


def test_a_shorter_cooldown_frees_at_once_what_has_rested_long_enough(stage: Setting) -> None:
    s = stage(replace(fixed(warm_ip_target=1, cooldown_seconds=120), instance_type="t3.small"))
    s.start()
    s.pods(9, 60.0)
    assert len(s.world.living) == 9
    s.go(9, 10.0)
    s.pods(3, 5.0)
    assert not s.world.living
    shorter = replace(s.world.settings, cooldown_seconds=5)
    s.world.hold(shorter)
    s.world.daemon.apply(shorter)
    s.run(3.0)
    assert len(s.world.living) == 3


def test_what_is_to_provision_nothing_deletes_no_eni_that_somebody_detached(
    stage: Setting,
) -> None:
    s = stage(replace(fixed(warm_ip_target=3), instance_type="t3.medium"))
    s.start()
    s.pods(7, 60.0)
    last = s.secondary[-1]
    serves_only = replace(s.world.settings, provisioning=False, leaked_eni_cleanup=False)
    s.world.hold(serves_only)
    s.world.daemon.apply(serves_only)
    s.go(7, 400.0)
    s.laws.lost.add(last.id)
    s.laws.by_hand |= {address for block in last.blocks for address in block}
    s.account_cloud.account.detach_by_hand(last.id)
    s.run(300.0)
    assert last.id in {eni.id for eni in s.world.cloud.enis()}
    assert last.id not in s.world.daemon.pool.enis
    s.rest()


def test_where_only_imds_may_be_asked_no_eni_is_left_alone_for_lack_of_a_tag(
    stage: Setting,
) -> None:
    """Seed 17: IMDS tells no tags, and pods starved beside an ENI with addresses."""
    leaving = Settings(imds_only=True, provisioning=False, manage_untagged_eni=False)
    s = stage(replace(PLAIN, settings=leaving))
    s.start()
    node = s.world.cloud.identity.instance_id
    s.account_cloud.account.attach_foreign(node, 1, secondary_count=3)
    s.pods(3, 90.0)
    assert len(s.world.living) == 3
    s.rest()


def test_while_an_attach_is_throttled_the_enis_that_are_here_give_what_they_can(
    stage: Setting,
) -> None:
    s = stage(PLAIN)
    s.start()
    failed: list[str] = []

    def fault(action: str, _about: str) -> Fault | None:
        is_first = action.startswith("Assign") and action not in failed
        if is_first or action.startswith("Attach"):
            failed.append(action)
            return Raise(ThrottledError)
        return None

    s.account_cloud.account.faults = fault
    s.pods(8, 120.0)  # the primary, which is left alone for a while, has room for all
    assert failed.count("AttachNetworkInterface") > DOUBTFUL_FAILURES
    assert len(s.world.living) == 8
    s.account_cloud.account.faults = no_fault
    s.rest()


@pytest.mark.parametrize("steps", range(1, 8))
def test_an_add_that_comes_again_in_another_life_cuts_no_wire(stage: Setting, steps: int) -> None:
    """Seed 3099: the wire was made anew, and the daemon died between its end and its new beginning."""
    s = stage(PLAIN)
    s.start()
    s.pods(2)
    s.restart()
    s.world.kernel.crash_after = steps
    s.kubelet.ask_again("p1")
    s.run(5.0)
    if s.world.life is None:
        s.start()
    s.world.kernel.crash_after = None
    s.rest()
    assert [pod.name for pod in s.world.living] == ["p1.1", "p2.1"]


def test_an_add_that_comes_again_and_cannot_look_takes_nothing(stage: Setting) -> None:
    s = stage(PLAIN)
    s.start()
    s.pods(2)
    s.restart()
    s.world.kernel.refuse_after(0)
    s.kubelet.ask_again("p1")
    s.run(5.0)
    assert [answer["code"] for answer in s.refusals] == [5]
    s.rest()
    assert [pod.name for pod in s.world.living] == ["p1.1", "p2.1"]


GUARD, SET_UP = "ip route replace unreachable", "ip link set ens"


@pytest.mark.parametrize("refused", [GUARD, SET_UP], ids=["guards", "links"])
def test_an_eni_that_the_kernel_refuses_to_prepare_is_joined_by_no_other(
    stage: Setting, refused: str
) -> None:
    s = stage(replace(fixed(warm_ip_target=1), instance_type="m5.xlarge"))
    s.start()
    s.pods(13)  # the primary ENI takes one more
    s.run(30.0)
    assert not s.secondary
    s.world.kernel.refuses = refused
    s.pods(3, 300.0)
    assert s.laws.calls["create"] == 1
    assigned = s.laws.calls["assign"]
    s.world.kernel.refuses = None
    s.run(90.0)
    assert len(s.world.living) == 16
    s.rest()
    assert s.laws.calls["create"] == 1
    assert s.laws.calls["assign"] == assigned


def test_what_the_kernel_refuses_to_guard_on_one_eni_is_asked_of_no_other(stage: Setting) -> None:
    s = stage(replace(fixed(warm_ip_target=1), instance_type="m5.xlarge"))
    s.start()
    s.pods(18)
    s.run(60.0)
    assert len(s.secondary) == 1
    asked = s.laws.calls["assign"]
    s.world.kernel.refuses = GUARD
    s.pods(4, 300.0)
    assert s.laws.calls["assign"] == asked + 1
    assert s.laws.calls["create"] == 1
    s.world.kernel.refuses = None
    s.run(90.0)
    assert len(s.world.living) == 22
    s.rest()
    assert s.laws.calls["assign"] == asked + 1
    assert s.laws.calls["create"] == 1


NOTICED_SECONDS = LASTS_SECONDS + 60.0
"""Until what was taken by hand is noticed: IMDS has told otherwise for long, and two looks."""

FREED_SECONDS = 180.0
"""Until what EC2 denies is let go of, once pods have left it."""


def take_by_hand(s: Stage, address: Address) -> None:
    """Unassign the block of *address* behind the daemon's back."""
    held = ((eni.id, block) for eni in s.world.cloud.attached() for block in eni.blocks)
    eni_id, block = next((eni_id, block) for eni_id, block in held if address in block)
    s.laws.by_hand |= set(block)
    s.account_cloud.account.unassign_by_hand(eni_id, (block,))


@pytest.mark.parametrize("kind", Kind, ids=str)
def test_a_free_block_that_was_taken_by_hand_is_noticed_within_minutes(
    stage: Setting, kind: Kind
) -> None:
    by_prefix = kind is Kind.PREFIX
    settings = Settings(demand=False, minimum_ip_target=20, prefix_delegation=by_prefix)
    s = stage(replace(PLAIN, settings=settings, draws=True, instance_type="m5.xlarge"))
    s.start()
    s.run(120.0)
    held, looks = s.held, s.laws.calls["attached"]
    take_by_hand(s, max(s.world.daemon.pool.slots))
    assert s.held < held
    s.run_until(lambda: s.held == held, NOTICED_SECONDS)
    assert s.laws.calls["attached"] == looks + 2
    s.rest()


def test_a_pods_address_that_was_taken_by_hand_is_given_up_when_the_pod_has_left(
    stage: Setting,
) -> None:
    s = stage(replace(fixed(minimum_ip_target=6), draws=True))
    s.start()
    s.pods(2)
    s.run(60.0)
    pod = s.world.living[0]
    assert pod.address is not None
    take_by_hand(s, pod.address)
    s.run(NOTICED_SECONDS)
    looks, slots = s.laws.calls["attached"], s.world.daemon.pool.slots
    assert pod.address in slots
    s.run(600.0)
    assert s.laws.calls["attached"] == looks
    s.go(1)
    s.run_until(lambda: pod.address not in slots, FREED_SECONDS)
    s.rest()


def test_an_eni_that_was_taken_by_hand_makes_place_when_its_pods_have_left(
    stage: Setting,
) -> None:
    s = stage(replace(fixed(warm_ip_target=1, max_eni=2), instance_type="t3.medium"))
    s.start()
    s.pods(7)
    (first,) = s.secondary
    theirs = {address for block in first.blocks for address in block}
    s.laws.by_hand |= theirs
    s.laws.lost.add(first.id)
    s.account_cloud.account.detach_by_hand(first.id)
    s.run(120.0)
    assert s.world.daemon.pool.enis[first.id].closed
    for name, sandbox in tuple(s.kubelet.sandboxes.items()):
        if sandbox and s.world.pods[sandbox].address in theirs:
            s.kubelet.replace(name)
    s.run_until(lambda: len(s.world.living) == 7, FREED_SECONDS)
    s.rest()


def test_an_address_that_ec2_gives_to_another_eni_while_a_pod_has_it_fills_a_slot_there(
    stage: Setting,
) -> None:
    """Seed 353: that ENI was asked for one more, which EC2 refused, until the pod had left."""
    s = stage(replace(fixed(warm_ip_target=1), instance_type="t3.medium"))
    s.start()
    s.pods(6)
    s.run(60.0)
    address = s.world.living[0].address
    assert address is not None
    take_by_hand(s, address)
    s.laws.watch.is_strict = True  # from now on no call may meet a limit
    s.pods(2, 10.0)
    (second,) = s.secondary
    assert any(address in block for block in second.blocks), "EC2 gave another"
    s.pods(2, 600.0)
    s.go(1)
    slots = s.world.daemon.pool.slots
    s.run_until(lambda: slots[address].eni_id == second.id, FREED_SECONDS)
    s.rest()


def test_what_contradicts_our_books_again_and_again_is_looked_into_now_and_then(
    stage: Setting,
) -> None:
    s = stage(WARM)
    s.start()
    s.run(60.0)
    refused, looks = [0], s.laws.calls["attached"]

    def fault(action: str, _about: str) -> Fault | None:
        is_refused = action.startswith("Assign")
        refused[0] += is_refused
        return Raise(InstanceLimitError) if is_refused else None

    s.account_cloud.account.faults = fault
    s.pods(3)
    for _ in range(30):
        s.go(1)
        s.pods(1, 60.0)
    assert refused[0] > 10, "nothing was refused"
    assert s.laws.calls["attached"] - looks <= 2 * (1800 / SURPRISE_SECONDS + 1)
    s.account_cloud.account.faults = no_fault
    s.rest()


def test_a_clock_that_is_set_back_keeps_no_cooled_address_from_who_waits(stage: Setting) -> None:
    """Seed 260: what was reckoned by one wall clock was waited for by the next."""
    s = stage(replace(fixed(max_eni=1, cooldown_seconds=30), instance_type="t3.nano"))
    s.start()
    s.pods(1)
    s.go(1)
    s.world.wall_offset -= 15.0  # what cools is reckoned to take so much longer
    s.pods(1, 32.0)
    assert not s.world.living
    s.world.wall_offset -= 3600.0  # now the boot's clock decides alone
    s.run(2.0)
    assert s.world.living
    s.rest()
