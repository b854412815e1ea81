"""The table of lanes (docs/architecture.md), row by row, with the daemon killed at every await. Shell.

Each row is a small play on a whole daemon in virtual time: calls of plugins, which hold the pod's
namespace open and send their frame again when the daemon dies before it answers. The play is
given once to the end, and then once for each step of the daemon's loop and of the kernel in it:
the daemon is killed there, and the next one starts a second later. A row says how each call may
be answered, by a daemon that lives and by one that was killed, and who has a wire in the end.

    python -m tests.chaos.lane_rows        every kill, as a table (`make matrix`)

Long, because it is one table, and each row is a few lines.
"""

from __future__ import annotations

import logging
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ipamd.plan.loop import Delay
from ipamd.settings import Settings
from tests.chaos.draw import History
from tests.chaos.law import Law, LawBrokenError
from tests.chaos.many import folder
from tests.chaos.stage import PLAIN, Stage
from tests.chaos.world import Call, EndedError, Pod

WIRE_SECONDS = 0.4
"""How long a wire takes here, so that something can happen meanwhile."""

BACK_SECONDS = 1.0
"""From a kill to the next daemon."""

BUSY_SECONDS = 2.0
"""After which nothing of a play is on its way, if nothing went wrong."""

AFTER_SECONDS = 40.0
"""After which a play has come to its end: two looks at the links, and a cooldown."""

ROOMY = replace(
    PLAIN,
    settings=Settings(demand=False, minimum_ip_target=6, warm_ip_target=1, cooldown_seconds=5),
)
FULL = replace(
    PLAIN,
    settings=Settings(demand=False, warm_ip_target=1, max_eni=1, cooldown_seconds=5),
    instance_type="t3.nano",
)
"""A node of one address."""


class Play(Stage):
    """One play: calls by name, and their answers."""

    def __init__(self, history: History, folder: Path) -> None:
        super().__init__(folder, history)
        self.laws.on_answers.remove(self.kubelet.on_answer)  # the row says what a runtime does
        self.laws.on_answers.append(self._on_call_answered)
        self.world.latency = self._latency
        self.calls: dict[str, Call] = {}
        self.codes: dict[str, int] = {}
        self.addresses: dict[str, object] = {}
        self.was_killed = False

    @staticmethod
    def _latency(work: Callable[..., object], _arguments: tuple[object, ...]) -> Delay:
        name = getattr(work, "__qualname__", "")
        slow = name.endswith((".connect", ".disconnect", ".inspect"))
        return Delay(WIRE_SECONDS / 2, WIRE_SECONDS / 2) if slow else Delay(0.0005, 0.0005)

    def _on_call_answered(self, call: Call, code: int, answer: Mapping[str, object]) -> None:
        for name, known in self.calls.items():
            if known is call:
                self.codes[name] = int(str(answer.get("code"))) if code else 0
                self.addresses[name] = answer.get("ips")

    def _on_death(self) -> None:
        self.was_killed = True
        self.world.later(BACK_SECONDS, self._begin)

    # What a runtime and its plugins do ----------------------------------------------------
    def add(self, name: str, pod: str = "web") -> None:
        """Let a plugin ask for an address."""
        self.delay(name, pod)
        self.go_on(name)

    def add_anew(self, name: str, pod: str = "web") -> None:
        """Let a plugin ask for a new life of a sandbox: its namespace is another."""
        self.world.pods[pod] = Pod(pod, self.world.kernel.new_netns(pod))
        self.add(name, pod)

    def add_elsewhere(self, name: str, pod: str = "web") -> None:
        """Let a plugin ask for the same sandbox with another namespace."""
        other = Pod(pod, self.world.kernel.new_netns(f"{pod}-elsewhere"))
        self.calls[name] = Call(self.world, other, "ADD", with_netns=True)
        self.go_on(name)

    def delay(self, name: str, pod: str = "web") -> None:
        """Start a plugin that takes its time until it calls."""
        there = self.world.pods.get(pod) or Pod(pod, self.world.kernel.new_netns(pod))
        self.world.pods[pod] = there
        self.calls[name] = Call(self.world, there, "ADD", with_netns=True)

    def go_on(self, name: str) -> None:
        """Let it call."""
        self.world.submit(self.calls[name])

    def delete(self, name: str, pod: str = "web") -> None:
        """Take a sandbox down; nothing if it was never made."""
        if pod not in self.world.pods:
            self.world.pods[pod] = Pod(pod, self.world.kernel.new_netns(pod))
        there = self.world.pods[pod]
        there.is_deleted = True
        self.calls[name] = Call(self.world, there, "DEL", with_netns=True)
        self.go_on(name)

    def kill_daemon(self) -> None:
        """Kill the daemon, if there is one; the next one starts by itself."""
        if self.world.life is not None:
            self.world.kill()

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        self.world.run(seconds)

    # What there is ------------------------------------------------------------------------
    @property
    def wired(self) -> set[str]:
        """Whose wires are there."""
        return {
            link.netns.name for link in self.world.kernel.links if link.netns and link.is_up
        } - {"node"}

    @property
    def leased(self) -> set[str]:
        """Who has a lease, in the file and in memory."""
        daemon = self.world.daemon
        rows = {row.sandbox.container_id for row in daemon.leases.rows()}
        known = {row.sandbox.container_id for row in daemon.attachments.rows}
        self.demand(rows == known, f"leases of {rows} are written, and of {known} are known")
        return rows

    @staticmethod
    def demand(holds: object, sentence: str) -> None:
        """Raise *sentence* if something does not hold."""
        if not holds:
            raise LawBrokenError(Law.WITNESSES, sentence)


def anything(play: Play) -> None:
    """Ask for no more."""
    del play


@dataclass(frozen=True)
class Row:
    """One row: the *play*, the codes by call, also by a daemon that was killed, and who stays."""

    words: str
    play: Callable[[Play], None]
    answers: Mapping[str, set[int]]
    killed: Mapping[str, set[int]] = field(default_factory=dict)
    stay: frozenset[str] = frozenset()
    may_stay: frozenset[str] = frozenset()
    """Of those that a kill may leave to the runtime's DEL."""
    judge: Callable[[Play], None] = anything
    node: History = ROOMY
    is_killed: bool = True

    def __str__(self) -> str:
        return self.words


# The plays of the rows: what each does is its row's words ----------------------------------------------------------------------------------
def gone_at_once(p: Play) -> None:
    p.add("add")
    p.calls["add"].hang_up()


def nothing_written(p: Play) -> None:
    p.demand("add" not in p.codes, "a client that was gone was answered")
    noted = [event.event for event in p.world.daemon.journal.history(100)]
    p.demand("address assigned" not in noted, "an address was given to a client that was gone")


def no_netns(p: Play) -> None:
    p.delay("add")
    call = p.calls["add"]
    p.world.kernel.let_go(call.pod.netns)
    call.holds = False
    p.go_on("add")


def orphan(p: Play) -> None:
    p.delay("old")
    p.pause(0.1)
    p.delete("del")
    p.pause(0.1)
    p.go_on("old")
    p.pause(2.5)
    p.add_anew("new")


def orphan_of_an_attached_one(p: Play) -> None:
    p.add("add")
    p.pause(1)
    p.delay("old")
    p.pause(0.1)
    p.delete("del")
    p.pause(0.1)
    p.go_on("old")


def second_meanwhile(p: Play) -> None:
    p.add("first")
    p.pause(0.1)
    p.add("second")


def second_later(p: Play) -> None:
    p.add("first")
    p.pause(1)
    p.add("second")


def second_after_a_death(p: Play) -> None:
    p.add("first")
    p.pause(1)
    p.kill_daemon()
    p.pause(2.5)
    p.add("second")


def second_after_a_death_goes(p: Play) -> None:
    second_after_a_death(p)
    p.pause(0.1)
    p.calls["second"].hang_up()


def same_result(p: Play) -> None:
    p.demand(p.addresses["first"] == p.addresses["second"], f"two results: {p.addresses}")


def elsewhere_meanwhile(p: Play) -> None:
    p.add("first")
    p.pause(0.1)
    p.add_elsewhere("second")


def elsewhere_later(p: Play) -> None:
    p.add("first")
    p.pause(1)
    p.add_elsewhere("second")


def delete_while_waiting(p: Play) -> None:
    p.add("first", "db")
    p.pause(1)
    p.add("add")
    p.pause(0.5)
    p.delete("del")


def nobody_waits(p: Play) -> None:
    p.demand(not p.world.daemon.attachments.waiting, "somebody still waits")


def delete_while_wiring(p: Play) -> None:
    p.add("add")
    p.pause(0.1)
    p.delete("del")


def gone_while_wiring(p: Play) -> None:
    p.add("add")
    p.pause(0.1)
    p.calls["add"].hang_up()


def gone_after_the_answer(p: Play) -> None:
    p.add("add")
    p.pause(1)
    p.calls["add"].go()


def only_an_add(p: Play) -> None:
    p.add("add")


def only_a_delete(p: Play) -> None:
    p.add("add")
    p.pause(1)
    p.delete("del")


def delete_while_away(p: Play) -> None:
    p.add("add")
    p.pause(1)
    p.kill_daemon()
    p.pause(0.5)
    p.delete("del")


def delete_while_away_and_again(p: Play) -> None:
    p.add("add")
    p.pause(1)
    p.kill_daemon()
    p.pause(0.2)
    p.delete("del")
    p.pause(0.2)
    p.add_anew("new")


def older_file(p: Play) -> None:
    p.add("add")
    p.pause(1)
    p.delete("first")
    p.pause(2.5)
    p.add_anew("new")
    p.pause(2.5)
    p.kill_daemon()
    p.world.write_file(p.calls["first"])


def unknown(p: Play) -> None:
    p.delete("del", "ghost")


def remembered(p: Play) -> None:
    p.delay("old")
    p.pause(0.1)
    p.delete("del")
    p.pause(595)
    p.go_on("old")


DONE, WEB = {0}, frozenset({"web"})
REFUSED = {0, 3, 11}
"""An ADD and its DEL that a killed daemon did not answer come to the next one together: the ADD is
refused, or what it gets is taken back."""

ROWS = (
    Row("ADD whose client is gone", gone_at_once, {}, judge=nothing_written),
    Row("ADD without a namespace", no_netns, {"add": {4}}, judge=nobody_waits),
    Row("ADD older than the DEL, and a new life", orphan, {"old": {3}, "del": DONE, "new": DONE},
        {"old": REFUSED}, stay=WEB),
    Row("ADD older than the DEL of what was there", orphan_of_an_attached_one,
        {"add": DONE, "old": {3}, "del": DONE}, {"add": REFUSED, "old": REFUSED}),
    Row("second ADD while the first runs", second_meanwhile, {"first": DONE, "second": DONE},
        stay=WEB, judge=same_result),
    Row("second ADD after the first", second_later, {"first": DONE, "second": DONE},
        stay=WEB, judge=same_result),
    Row("second ADD, the daemon has died meanwhile", second_after_a_death, {"first": DONE, "second": DONE},
        stay=WEB, judge=same_result),
    Row("client of that second ADD gone", second_after_a_death_goes, {"first": DONE}, stay=WEB),
    Row("second ADD elsewhere while the first runs", elsewhere_meanwhile,
        {"first": DONE, "second": {7}}, stay=WEB),
    Row("second ADD elsewhere after the first", elsewhere_later, {"first": DONE, "second": {7}}, stay=WEB),
    Row("DEL while the ADD waits", delete_while_waiting, {"first": DONE, "add": {11}, "del": DONE},
        {"add": {3, 11}}, stay=frozenset({"db"}), judge=nobody_waits, node=FULL),
    Row("DEL while the wire is made", delete_while_wiring, {"add": DONE, "del": DONE}, {"add": REFUSED}),
    Row("client gone while the wire is made", gone_while_wiring, {}, may_stay=WEB),
    Row("client gone after the answer", gone_after_the_answer, {"add": DONE}, stay=WEB),
    Row("killed between commit and answer", only_an_add, {"add": DONE}, stay=WEB),
    Row("killed within a DEL", only_a_delete, {"add": DONE, "del": DONE}, {"add": REFUSED}),
    Row("DEL with the daemon away", delete_while_away, {"add": DONE, "del": DONE}, {"add": REFUSED}),
    Row("DEL and a new ADD with the daemon away", delete_while_away_and_again,
        {"add": DONE, "del": DONE, "new": DONE}, {"add": REFUSED}, stay=WEB),
    Row("file of a DEL that is older than the lease", older_file,
        {"add": DONE, "first": DONE, "new": DONE}, {"add": REFUSED}, stay=WEB),
    Row("DEL of what nobody knows", unknown, {"del": DONE}),
    Row("DEL that is remembered for ten minutes", remembered, {"del": DONE, "old": {3}}, is_killed=False),
)  # fmt: skip


# The plays -------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Kill:
    """Where the daemon is killed: before a step of its loop, or behind a step of the kernel."""

    step: int | None = None
    kernel_step: int | None = None


NEVER = Kill()


def perform(row: Row, kill: Kill) -> tuple[int, int]:
    """Perform *row*; return how many steps of the loop and of the kernel it took. Raises what is wrong."""
    with folder() as path:
        play = Play(row.node, Path(path))
        with play.laws.listening():
            play.start()
            try:
                return _perform(row, kill, play)
            finally:
                play.laws.on_deaths.clear()
                if play.world.life is not None:
                    play.world.kill()


def _perform(row: Row, kill: Kill, play: Play) -> tuple[int, int]:
    world, many = play.world, 1 << 30
    begun = world.steps_taken
    if kill.step is not None:
        world.kill_at = begun + kill.step
    world.kernel.crash_after = kill.kernel_step or many
    row.play(play)
    play.pause(BUSY_SECONDS)
    taken = world.steps_taken - begun, many - (world.kernel.crash_after or many)
    play.pause(AFTER_SECONDS)
    world.kill_at = world.kernel.crash_after = None
    judge(row, play)
    return taken


def judge(row: Row, play: Play) -> None:
    """Raise what is not as the row says; then let everybody go, and demand an empty node."""
    play.laws.look()
    play.laws.check()
    for name, codes in row.answers.items():
        allowed = codes | (row.killed.get(name, set()) if play.was_killed else set())
        found = play.codes.get(name)
        play.demand(found in allowed, f"{name} was answered with {found}, not one of {allowed}")
    row.judge(play)
    there = play.leased
    most = row.stay | (row.may_stay if play.was_killed else frozenset())
    play.demand(row.stay <= there <= most, f"{there} have leases, and {row.stay} should")
    play.demand(play.wired == there, f"{play.wired} are wired, and {there} have leases")
    for pod in sorted(play.world.pods):
        play.delete(f"last of {pod}", pod)
    play.pause(AFTER_SECONDS)
    play.demand(not play.leased, f"{play.leased} are left")
    play.demand(not play.wired, f"the wires of {play.wired} are left")
    play.laws.look()
    play.laws.check()
    for law, sentence in play.laws.at_rest(play.kubelet):
        raise LawBrokenError(law, sentence)


def kills(row: Row) -> Iterator[Kill]:
    """Yield every point of *row* at which the daemon can be killed."""
    steps, kernel_steps = perform(row, NEVER)
    yield from map(Kill, range(steps))
    yield from (Kill(kernel_step=number) for number in range(1, kernel_steps + 1))


def play_row(words: str) -> tuple[str, int, list[str]]:
    """Return a row's words, its points, and what did not hold at some."""
    row = next(row for row in ROWS if row.words == words)
    logging.disable(logging.CRITICAL)  # kills are what it is about
    wrong, points = [], list(kills(row))
    for kill in points:
        try:
            perform(row, kill)
        except (LawBrokenError, EndedError) as error:
            wrong.append(f"{row}, {kill}: {error}")
    return row.words, len(points), wrong


def main() -> int:
    """Kill the daemon at every point of every row, and print the table; return 1 if one failed."""
    rows = [row.words for row in ROWS if row.is_killed]
    with multiprocessing.get_context("spawn").Pool(maxtasksperchild=1) as pool:
        found = pool.map(play_row, rows, chunksize=1)
    for words, points, wrong in found:
        print(f"{words:48}{points:6} kills{len(wrong):6} wrong")  # noqa: T201 - what a command prints is its answer
    sentences = [sentence for _, _, wrong in found for sentence in wrong]
    print(f"{sum(points for _, points, _ in found)} kills", *sentences, sep="\n")  # noqa: T201 - as above
    return 1 if sentences else 0


if __name__ == "__main__":
    sys.exit(main())
