"""STATUS: what containerd 2 asks at each look of kubelet's, and makes of the answer."""

from __future__ import annotations

import pytest

from tests.cri.client import CriError
from tests.cri.stage import Machine, Stage
from vpclab.containerd import poll

GRACE_SECONDS = 30
"""The setting allows 15; a busy machine's daemon may take as long to be back."""


def asks_status(machine: Machine) -> bool:
    """Have the conflist say 1.1.0; whether the runtime asks STATUS then."""
    machine.configure(lambda conflist: conflist.update(cniVersion="1.1.0"))
    assert machine.cri.network_ready() == (True, "")
    return "STATUS" in machine.verbs()


def left(machine: Machine) -> int:
    """Return how many addresses no pod has; those that cool are free soon."""
    return sum(eni["free"] + eni["cooling"] for eni in machine.status()["enis"])


@pytest.mark.cri("STATUS")
def test_status_is_asked_by_2_x_at_each_look_and_never_before(stage: Stage) -> None:
    asked = asks_status(stage.a)
    assert asked == (stage.release.line >= (2, 0))
    before = stage.a.verbs().count("STATUS")
    for _ in range(3):
        stage.a.cri.network_ready()
    assert stage.a.verbs().count("STATUS") == before + 3 * asked


@pytest.mark.cri("STATUS")
def test_a_node_is_ready_while_its_daemon_restarts_and_not_when_it_stays_away(stage: Stage) -> None:
    with stage.a.daemon(STATUS_GRACE_SECONDS=str(GRACE_SECONDS)):
        asked = asks_status(stage.a)
        stage.a.ipamd.kill()
        assert stage.a.cri.network_ready() == (True, "")
        stage.a.ipamd.start()
        assert stage.a.cri.network_ready() == (True, "")
        stage.a.ipamd.kill()
        if asked:
            poll(lambda: not stage.a.cri.network_ready()[0], "NotReady", 4 * GRACE_SECONDS)
            assert "ipamd" in stage.a.cri.network_ready()[1]
        stage.a.ipamd.start()
        poll(lambda: stage.a.cri.network_ready() == (True, ""), "Ready")


@pytest.mark.cri("STATUS")
@pytest.mark.parametrize("opts_in", [False, True])
def test_a_full_node_is_ready_unless_a_setting_says_otherwise(
    stage: Stage, *, opts_in: bool
) -> None:
    if stage.release.line < (2, 0):
        pytest.skip("1.6 and 1.7 never ask STATUS")
    with stage.a.daemon(MAX_ENI="1", ENID_STATUS_FAILS_WHEN_FULL=str(opts_in).lower()):
        assert asks_status(stage.a)
        while left(stage.a):
            stage.a.run(f"web-{left(stage.a)}")
        with pytest.raises(CriError, match="DEADLINE_EXCEEDED"):
            stage.a.run("one-more", deadline=2)
        poll(lambda: stage.a.cri.network_ready()[0] != opts_in, "what the setting says")
