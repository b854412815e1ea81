"""Some seeds, some crash points, some sabotages; `make chaos` has them all."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipamd.layers import Sources, layers_of, read_settings, resolve
from ipamd.settings import SettingsError
from tests.chaos import crash
from tests.chaos.__main__ import idle
from tests.chaos.draw import TYPES, What, draw, draw_wish, environ_of
from tests.chaos.history import HAPPENS, Player
from tests.chaos.law import Law
from tests.chaos.many import catch, folder
from tests.chaos.sabotage import Sabotages
from tests.tools.pure import ROOT

SEEDS = range(6)
POINTS = (
    *(crash.Point(crash.Wrong.KILL, number) for number in range(40, 1400, 120)),
    *(crash.Point(crash.Wrong.KERNEL, number) for number in range(3, 100, 16)),
    *(crash.Point(wrong, number) for wrong in crash.FAULTS for number in (3, 4)),
    *(crash.Point(crash.Wrong.KILL, number, "prefixes") for number in range(40, 980, 240)),
    *(crash.Point(wrong, 2, "prefixes") for wrong in crash.FAULTS),
)
QUICK = ("cooling-is-free", "guards-dropped", "intent-after-call")
TRACE = """
import sys
from tests.chaos.draw import draw
from tests.chaos.history import Player
from tests.chaos.many import folder
from pathlib import Path
for seed in (0, 5):
    with folder() as path:
        print(Player(draw(seed), Path(path)).play().hash)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with folder() as path:
        yield Path(path)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_law_is_broken(seed: int, place: Path) -> None:
    result = Player(draw(seed), place).play()
    assert not result.broken, f"make chaos SEED={seed}"


def test_a_seed_is_one_history_down_to_the_byte() -> None:
    def hashes(hash_seed: str) -> bytes:
        environ = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", TRACE]
        return subprocess.run(command, env=environ, check=True, capture_output=True).stdout

    assert hashes("1") == hashes("2")


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_a_crash_loses_nothing(point: crash.Point) -> None:
    assert not crash.play_point(point)[1].broken


@pytest.mark.parametrize("name", QUICK)
def test_a_sabotage_is_noticed(name: str) -> None:
    assert catch(name).law


def test_what_breaks_is_heard_however_little_is_logged() -> None:
    root = logging.getLogger()
    former = root.level
    root.setLevel(logging.CRITICAL + 1)  # as `make chaos` has it
    try:
        assert catch("troubles-unforeseen").law == Law.ALIVE.value
    finally:
        root.setLevel(former)


def test_a_law_by_which_nothing_was_noticed_is_told() -> None:
    laws = {law.value for law in Law}
    assert idle(laws) == []
    assert idle(laws - {Law.OWNER.value}) == [Law.OWNER]


def test_sabotages_are_undone() -> None:
    for sabotage in Sabotages.all.values():
        before = [vars(owner)[name] for owner, name, _ in sabotage.patches]
        with sabotage.at_work():
            changed = [vars(owner)[name] for owner, name, _ in sabotage.patches]
        assert all(a is not b for a, b in zip(before, changed, strict=True)), sabotage.name
        assert [vars(owner)[name] for owner, name, _ in sabotage.patches] == before


def test_settings_are_written_as_they_are_read() -> None:
    for seed in range(60):
        history = draw(seed)
        environ = environ_of(history.settings)
        assert read_settings(environ) == history.settings
        for roll in (0.1, 0.5, 0.9):
            wish = draw_wish(history, roll)
            layers = layers_of(Sources(environ, annotation=wish.annotation))
            if wish.settings is not None:
                assert resolve(layers).settings == wish.settings
            else:
                with pytest.raises(SettingsError):
                    resolve(layers)


def test_drawing_is_repeatable_and_knows_every_event() -> None:
    histories = [draw(seed) for seed in range(300)]
    assert histories[7] == draw(7)
    assert {event.what for history in histories for event in history.events} == set(What)
    assert {history.instance_type for history in histories} == set(TYPES)
    assert HAPPENS.keys() == set(What)
