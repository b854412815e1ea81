"""What the engine works by: from settings, limits, notices and the cluster; and which mode that is."""

from __future__ import annotations

from typing import Any

import pytest

from eni import errors
from eni.limits import InstanceLimits
from eni.model import Kind, Notices
from ipamd.settings import Settings
from ipamd.targets import Fixed
from ipamd.terms import Mode, Standing, Told, modes_of, standing_of, terms_of

CALM = Notices()
CORDONED = Told(notices=CALM, unschedulable=True)


def limits(**changes: Any) -> InstanceLimits:
    """Return an m5.large's."""
    known: dict[str, Any] = {
        "instance_type": "m5.large", "enis": 3, "ipv4_per_eni": 10, "ipv6_per_eni": 10,
        "cards": ((0, 3),), "hypervisor": "nitro", "bare_metal": False, "vcpus": 2,
    }  # fmt: skip
    return InstanceLimits(**known | changes)


@pytest.mark.parametrize(
    ("told", "settings", "standing"),
    [
        pytest.param(Told(notices=CALM), Settings(), Standing.NORMAL, id="nothing-told"),
        pytest.param(CORDONED, Settings(), Standing.CORDONED, id="cordoned"),
        pytest.param(
            CORDONED, Settings(manage_enis_non_schedulable=True), Standing.NORMAL, id="managed"
        ),
        pytest.param(
            Told(notices=Notices(rebalance=True)), Settings(), Standing.CORDONED, id="rebalance"
        ),
        *(
            pytest.param(
                Told(notices=Notices(spot_action=action)), Settings(), Standing.LEAVING, id=action
            )
            for action in ("terminate", "stop", "hibernate")
        ),
        pytest.param(
            Told(notices=Notices(lifecycle="Terminated")), Settings(), Standing.LEAVING, id="asg"
        ),
        pytest.param(
            Told(notices=Notices(lifecycle="InService")), Settings(), Standing.NORMAL, id="in-asg"
        ),
    ],
)
def test_standing(told: Told, settings: Settings, standing: Standing) -> None:
    assert standing_of(told, settings) is standing


def test_demand_has_no_targets_and_what_is_set_has() -> None:
    told = Told(notices=CALM)
    assert terms_of(Settings(), limits(), told).targets is None
    fixed = Settings(demand=False, warm_ip_target=2, minimum_ip_target=5)
    assert terms_of(fixed, limits(), told).targets == Fixed(warm_ip=2, minimum_ip=5)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        pytest.param({}, Kind.PREFIX, id="nitro"),
        pytest.param({"hypervisor": "xen"}, Kind.SINGLE, id="xen"),
        pytest.param({"hypervisor": "", "bare_metal": True}, Kind.PREFIX, id="bare-metal"),
    ],
)
def test_prefixes_are_asked_where_the_type_takes_them(changes: dict[str, Any], kind: Kind) -> None:
    terms = terms_of(Settings(prefix_delegation=True), limits(**changes), Told(notices=CALM))
    assert terms.kind is kind


@pytest.mark.parametrize(
    ("setting", "told", "cap"),
    [
        pytest.param(None, None, None, id="nobody-knows"),
        pytest.param(None, 29, 29, id="kubelet"),
        pytest.param(20, None, 20, id="setting"),
        pytest.param(20, 29, 20, id="the-lower"),
        pytest.param(58, 29, 29, id="the-lower-again"),
    ],
)
def test_pods_are_capped_by_who_knows(
    setting: int | None, told: int | None, cap: int | None
) -> None:
    terms = terms_of(Settings(max_pods=setting), limits(), Told(notices=CALM, max_pods=told))
    assert terms.max_addresses == cap


@pytest.mark.parametrize(("setting", "enis"), [(None, 3), (2, 2), (9, 3)])
def test_max_eni_lowers_what_the_type_takes(setting: int | None, enis: int) -> None:
    terms = terms_of(Settings(max_eni=setting), limits(), Told(notices=CALM))
    assert (terms.max_enis, terms.slots) == (enis, 9)


def test_the_rest_is_handed_on() -> None:
    settings = Settings(provisioning=False, manage_untagged_eni=False, custom_networking=True)
    terms = terms_of(settings, limits(), Told(notices=CALM, bound=7))
    assert (terms.provisioning, terms.sweeping) == (False, False)
    assert (terms.manage_untagged, terms.primary_excluded, terms.bound) == (False, True, 7)
    kept = Settings(leaked_eni_cleanup=False)
    assert not terms_of(kept, limits(), Told(notices=CALM)).sweeping
    assert terms_of(Settings(), limits(), Told(notices=CALM)).sweeping


# Modes -----------------------------------------------------------------------------------
NORMAL = terms_of(Settings(), limits(), Told(notices=CALM))


@pytest.mark.parametrize(
    ("trouble", "mode"),
    [
        pytest.param(errors.UnreachableError, Mode.EC2_AWAY, id="unreachable"),
        pytest.param(errors.CredentialsError, Mode.EC2_AWAY, id="credentials"),
        pytest.param(errors.ThrottledError, Mode.THROTTLED, id="throttled"),
        pytest.param(errors.UnauthorizedError, Mode.DENIED, id="denied"),
        pytest.param(errors.SubnetExhaustedError, Mode.SUBNET_FULL, id="full"),
        pytest.param(errors.PrefixesExhaustedError, Mode.SUBNET_FULL, id="no-prefixes"),
        pytest.param(errors.NotFoundError, Mode.REFUSED, id="refused"),
        pytest.param(errors.QuotaExceededError, Mode.REFUSED, id="a-quota"),
        pytest.param(errors.NotYetError, Mode.NORMAL, id="no-mode-of-its-own"),
    ],
)
def test_a_trouble_is_a_mode(trouble: type[errors.EniError], mode: Mode) -> None:
    assert modes_of(NORMAL, [trouble("x", action="y")], ()) == (mode,)


def test_several_modes_hold_at_once_the_gravest_first() -> None:
    terms = terms_of(Settings(provisioning=False), limits(), CORDONED)
    found = modes_of(terms, [errors.ThrottledError("x", action="y")], {Mode.NO_JOURNAL})
    assert found == (Mode.NO_JOURNAL, Mode.THROTTLED, Mode.CORDONED, Mode.NO_PROVISIONING)


def test_without_any_the_mode_is_normal() -> None:
    assert modes_of(NORMAL, (), ()) == (Mode.NORMAL,)


def test_every_standing_but_the_normal_one_is_a_mode() -> None:
    assert {s.value for s in Standing} <= {m.value for m in Mode}
