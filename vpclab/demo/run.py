"""The demo from first to last. Shell.

Set the stage, play the scenes, draw what was found. A scene that breaks fails its own
claims and the next goes on, so that one run names everything that is wrong.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from ipamd.cli import CommandError
from vpclab.demo import crash, proofs
from vpclab.demo.ledger import CLAIMS, Ledger, NodeView, Outcome, PodView, caught, verdict
from vpclab.demo.picture import WIDTH, draw, save
from vpclab.demo.proofs import Scene
from vpclab.demo.sabotage import Moment, Sabotage
from vpclab.demo.stage import DAEMON_SECONDS, PLATFORM, SHOP, Stage, StageError, raised
from vpclab.fabric import INTERNET
from vpclab.runtime import PluginError

NOT_CAUGHT = 3
"""Exit status of a sabotage that not every proof it was made for has noticed."""

VPC = "10.0.0.0/16"


class Progress:
    """What a person sees while it works: a line a step, and a clock on a terminal."""

    def __init__(self, console: Console) -> None:
        self.console, self.since = console, time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.since

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[list[str]]:
        """Show that *title* is being done, then that it is; words put into the list follow."""
        words: list[str] = []
        start = self.seconds
        with self.console.status(title) if self.console.is_terminal else contextlib.nullcontext():
            yield words
        line = Text(f"  {start:5.1f} s  {title}")
        if words:
            line.append(f": {', '.join(words)}", style="dim")
        self.console.print(line)


def run(*, sabotage: Sabotage | None, as_json: bool, svg: str | None) -> int:
    """Run the demo and return the exit status."""
    console = Console(stderr=as_json, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=as_json, highlight=False, width=WIDTH)
    progress = Progress(console)
    ledger = Ledger()
    with contextlib.ExitStack() as exits:
        with progress.step("a VPC, an internet host, two m5.large nodes in two zones"):
            stage = exits.enter_context(raised())
        performance = Show(stage, ledger, sabotage, progress)
        performance.play()
        logs = {site.node.name: site.daemon.last_words() for site in stage.sites}
    outcome = performance.outcome()
    if not outcome.ok and sabotage is None:
        for name, lines in logs.items():
            progress.console.print(Text("\n".join([f"log of ipamd on {name}:", *lines])))
    return tell(outcome, sabotage, progress.console, as_json=as_json, svg=svg)


class Show:
    """One performance."""

    def __init__(
        self, stage: Stage, ledger: Ledger, sabotage: Sabotage | None, progress: Progress
    ) -> None:
        self.stage, self.ledger, self.sabotage = stage, ledger, sabotage
        self.progress = progress
        self._nodes: tuple[NodeView, ...] = ()
        self._pods: tuple[PodView, ...] = ()
        self._calls: dict[str, int] = {}

    def play(self) -> None:
        """Play everything; what breaks is in the ledger afterwards."""
        try:
            self._open()
        except (StageError, PluginError, CommandError) as error:
            self.ledger.fail_rest(CLAIMS, f"the stage was not set: {error}")
            return
        for scene in proofs.SCENES:
            self._play(scene)
        self._play(crash.scene(lambda: self._strike(Moment.DAEMON_DEAD)))
        drops, ending = proofs.FINALE
        self._play(drops)
        self._look()
        self._play(ending)

    def _open(self) -> None:
        stage = self.stage
        self._strike(Moment.BEFORE_DAEMONS)
        with self.progress.step("ipamd on each, with CAP_NET_ADMIN and nothing else"):
            for site in stage.sites:
                site.daemon.start()
            for site in stage.sites:
                site.daemon.wait(lambda s: s["ready"], DAEMON_SECONDS, "ipamd")
        with self.progress.step("two dozen pods"):
            for names in zip(SHOP, PLATFORM, strict=True):
                for site, namespace, name in zip(
                    stage.sites, ("shop", "platform"), names, strict=True
                ):
                    stage.add_pod(site, namespace, name)
            stage.find_enis()
        stage.vpc.delays.attach_seconds = crash.ATTACH_SECONDS
        self._strike(Moment.PODS_UP)

    def _strike(self, moment: Moment) -> None:
        if self.sabotage is not None and self.sabotage.moment is moment:
            self.sabotage.strike(self.stage)
            self.progress.console.print(Text(f"         sabotage: {self.sabotage.breaks}"))

    def _play(self, scene: Scene) -> None:
        with self.progress.step(scene.title) as words:
            try:
                scene.play(self.stage, self.ledger)
            except Exception as error:  # noqa: BLE001 - a proof that breaks has failed; the rest goes on
                self.ledger.fail_rest(scene.names, f"it broke: {error!r}")
            self.ledger.fail_rest(scene.names, "the scene said nothing of it")
            words += [f"{name} {'✓' if self.ledger.holds(name) else '✗'}" for name in scene.names]

    def _look(self) -> None:
        """Keep what the picture shows; soon it is gone."""
        self._nodes, self._pods = self.stage.node_views(), self.stage.pod_views()
        self._calls = dict(self.stage.vpc.calls)

    def outcome(self) -> Outcome:
        """Return what was found."""
        return Outcome(
            seconds=self.progress.seconds,
            vpc=VPC,
            internet=str(INTERNET),
            proofs=self.ledger.close(),
            nodes=self._nodes,
            pods=self._pods,
            connectivity=self.stage.connectivity,
            ec2_calls=self._calls,
            milliseconds=self.stage.milliseconds,
            drops=self.stage.drops,
        )


def tell(
    outcome: Outcome, sabotage: Sabotage | None, console: Console, *, as_json: bool, svg: str | None
) -> int:
    """Print what was found and return the exit status."""
    if as_json:
        json.dump(outcome.as_data(), sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    else:
        console.print()
        console.print(draw(outcome))
        console.print()
    if svg is not None:
        save(outcome, svg)
    if sabotage is None:
        console.print(Text(f"{verdict(outcome.proofs)} ({outcome.seconds:.0f} s)", style="bold"))
        return 0 if outcome.ok else 1
    noticed, sentence = caught(sabotage.name, sabotage.caught_by, outcome.proofs)
    console.print(Text(f"{sentence} ({outcome.seconds:.0f} s)", style="bold"))
    return 1 if noticed else NOT_CAUGHT
