"""What the engine works by: from settings, limits, notices and the cluster; and which mode that is."""

from __future__ import annotations

from typing import Any

import pytest

from eni import errors
from eni.limits import InstanceLimits
from eni.model import Kind, Notices
from ipamd.layers import read_settings
from ipamd.settings import Settings
from ipamd.targets import Fixed
from ipamd.terms import Mode, Standing, Told, modes_of, standing_of, terms_of, without_prefixes

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


XEN = limits(instance_type="m4.large", enis=2, hypervisor="xen")


def with_prefixes(**environ: str) -> Settings:
    return read_settings({"ENABLE_PREFIX_DELEGATION": "true", **environ})


@pytest.mark.parametrize(
    ("environ", "targets", "held"),
    [
        pytest.param({}, None, "demand", id="nothing-set-is-demand"),
        pytest.param({"WARM_ENI_TARGET": "2"}, Fixed(warm_eni=2), "WARM_ENI_TARGET=2", id="by-eni"),
        pytest.param({"WARM_PREFIX_TARGET": "2"}, None, "demand", id="prefixes-that-are-not-had"),
        pytest.param(
            {"WARM_PREFIX_TARGET": "2", "ENID_POOL": "fixed"}, Fixed(warm_eni=1),
            "WARM_ENI_TARGET=1", id="fixed",
        ),
        pytest.param(
            {"WARM_ENI_TARGET": "1", "WARM_PREFIX_TARGET": "1", "ENID_POOL": "demand"}, None,
            "demand", id="demand-and-the-manifest",
        ),
        pytest.param(
            {"WARM_ENI_TARGET": "2", "WARM_IP_TARGET": "3"}, Fixed(warm_ip=3),
            "WARM_IP_TARGET=3", id="by-address",
        ),
    ],
)  # fmt: skip
def test_a_type_without_prefixes_goes_by_the_targets_of_single_addresses(
    environ: dict[str, str], targets: Fixed | None, held: str
) -> None:
    settings = with_prefixes(**environ)
    terms = terms_of(settings, XEN, Told(notices=CALM))
    assert (terms.kind, terms.targets) == (Kind.SINGLE, targets)
    assert without_prefixes(settings, XEN) == (
        "ENIs of m4.large take no prefixes, which need a Nitro instance or bare metal: single"
        f" addresses serve, by {held}"
    )


def test_nothing_is_lost_where_prefixes_are_had_or_not_asked_for() -> None:
    asked = with_prefixes(WARM_ENI_TARGET="2", WARM_PREFIX_TARGET="3")
    assert without_prefixes(asked, limits()) == without_prefixes(Settings(), XEN) == ""
    assert terms_of(asked, limits(), Told(notices=CALM)).targets == Fixed(warm_prefix=3)


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


@pytest.mark.parametrize(("imds_only", "manages"), [(True, True), (False, False)])
def test_untagged_enis_are_left_alone_only_where_tags_are_told(
    *, imds_only: bool, manages: bool
) -> None:
    settings = Settings(imds_only=imds_only, provisioning=False, manage_untagged_eni=False)
    assert terms_of(settings, limits(), Told(notices=CALM)).manage_untagged is manages


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
