"""Layers of settings: which value holds, where it came from, and what is a mistake."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipamd.kinds import Boolean, Choice, Whole
from ipamd.layers import (
    PROFILE_LABEL,
    Layer,
    Origin,
    Resolved,
    Sources,
    layers_of,
    nearest,
    resolve,
    resolve_at_start,
    split_annotation,
    tried,
    waiting_max,
)
from ipamd.settings import InvalidSettingsError, RefusedSettingsError, Settings, SettingsError
from ipamd.settings_report import settings_report
from ipamd.settings_table import SETTINGS

GIB = 1 << 30


def resolved(sources: Sources, running: Resolved | None = None) -> Resolved:
    return resolve(layers_of(sources), running)


def refusal(sources: Sources, running: Resolved | None = None) -> list[str]:
    with pytest.raises(InvalidSettingsError) as refused:
        resolved(sources, running)
    return str(refused.value).splitlines()


# Who wins ------------------------------------------------------------------------------
ALL = Sources(
    environ={"WARM_IP_TARGET": "1", "MAX_ENI": "2", "IP_COOLDOWN_PERIOD": "31"},
    files={
        "WARM_IP_TARGET": "3", "MAX_ENI": "3\n", "CLUSTER_NAME": "c",
        "profile.small": "# for t3\n\nWARM_IP_TARGET = 4\nENID_NODES=7\n", "profile.gpu": "MAX_ENI=x",
    },
    profile="small",
    annotation="WARM_IP_TARGET=5",
    memory_bytes=2 * GIB,
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "origin", "where"),
    [
        ("WARM_IP_TARGET", 5, Origin.ANNOTATION, "annotation enid.dev/settings"),
        ("ENID_NODES", 7, Origin.PROFILE, "profile small"),
        ("MAX_ENI", 3, Origin.CONFIG_MAP, "ConfigMap"),
        ("IP_COOLDOWN_PERIOD", 31, Origin.ENVIRONMENT, "environment"),
        ("ADD_WAITING_MAX", 17, Origin.MACHINE, "this machine's memory"),
        ("HTTP_TIMEOUT", 10, Origin.DEFAULT, ""),
    ],
)  # fmt: skip
def test_the_highest_layer_that_speaks_wins(
    name: str, value: int, origin: Origin, where: str
) -> None:
    chosen = resolved(ALL).chosen[name]
    assert (chosen.value, chosen.origin, chosen.where) == (value, origin, where)


def test_a_profile_that_is_not_this_nodes_is_not_read() -> None:
    assert resolved(ALL).settings.max_eni == 3


@pytest.mark.parametrize(
    "sources",
    [
        pytest.param(Sources({"WARM_IP_TARGET": "3"}, {"WARM_IP_TARGET": ""}), id="a-configmap"),
        pytest.param(
            Sources({"WARM_IP_TARGET": "3"}, {"profile.a": "WARM_IP_TARGET="}, "a"), id="a-profile"
        ),
        pytest.param(
            Sources({"WARM_IP_TARGET": "3"}, annotation="WARM_IP_TARGET="), id="an-annotation"
        ),
    ],
)  # fmt: skip
def test_an_empty_value_puts_the_default_back(sources: Sources) -> None:
    told = resolved(sources)
    assert told.settings == Settings()
    assert told.chosen["WARM_IP_TARGET"].origin not in {Origin.DEFAULT, Origin.ENVIRONMENT}


def test_an_empty_value_in_the_environment_is_not_set() -> None:
    chosen = resolved(Sources({"WARM_ENI_TARGET": "  "})).chosen["WARM_ENI_TARGET"]
    assert chosen.origin is Origin.DEFAULT


def test_a_value_above_takes_back_what_would_be_refused_below() -> None:
    told = resolved(Sources({"ENABLE_POD_ENI": "true"}, {"ENABLE_POD_ENI": "false"}))
    assert told.chosen["ENABLE_POD_ENI"].value is False


@pytest.mark.parametrize(
    ("gib", "waiting"), [(0.25, 4), (1, 8), (4, 35), (8, 64), (768, 64)], ids=str
)
def test_so_many_may_wait(gib: float, waiting: int) -> None:
    assert waiting_max(int(gib * GIB)) == waiting


# The annotation's form -----------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        pytest.param("A=1,B=2", ["A=1", "B=2"], id="commas"),
        pytest.param("A=1\nB=2\n", ["A=1", "B=2", ""], id="lines"),
        pytest.param("A=1, B=2,", ["A=1", " B=2", ""], id="a-comma-at-the-end"),
        pytest.param("A=x,y,B=2", ["A=x,y", "B=2"], id="a-list-in-a-value"),
        pytest.param('A={"a":"1","b":"2"},B=2', ['A={"a":"1","b":"2"}', "B=2"], id="json-in-a-value"),
    ],
)  # fmt: skip
def test_an_annotation_is_split_where_a_name_follows(text: str, pieces: list[str]) -> None:
    assert split_annotation(text) == pieces


def test_an_annotation_carries_lists_and_tags() -> None:
    text = 'ENID_SUBNETS=subnet-0a1b2c3d,subnet-0a1b2c3e,ADDITIONAL_ENI_TAGS={"a":"1","b":"2"}'
    settings = resolved(Sources(annotation=text)).settings
    assert settings.subnets == ("subnet-0a1b2c3d", "subnet-0a1b2c3e")
    assert settings.additional_eni_tags == {"a": "1", "b": "2"}


NO_PROFILE = f"node label {PROFILE_LABEL}=c names a profile that the ConfigMap does not have"


# Mistakes ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("sources", "complaints"),
    [
        pytest.param(
            Sources(files={"WARM_IP_TARGETS": "3"}),
            ["ConfigMap: WARM_IP_TARGETS is no setting; is WARM_IP_TARGET meant?"], id="a-slip",
        ),
        pytest.param(
            Sources(annotation="ENABLE_IPV6=true"),
            ["annotation enid.dev/settings: ENABLE_IPV6 is no setting; is ENABLE_IPv6 meant?"],
            id="another-case",
        ),
        pytest.param(
            Sources(files={"colour": "red"}), ["ConfigMap: colour is no setting"], id="a-stranger"
        ),
        pytest.param(
            Sources(files={"MY_NODE_NAME": "a"}),
            ["ConfigMap: MY_NODE_NAME belongs to one node: only the environment may set it"],
            id="one-name-for-all-nodes",
        ),
        pytest.param(
            Sources(files={"profile.a": "", "profile.b": ""}, profile="c"),
            [f"{NO_PROFILE} (it has: a, b)"], id="no-such-profile",
        ),
        pytest.param(
            Sources(profile="c"),
            [f"{NO_PROFILE} (it has: none)"], id="no-profile-at-all",
        ),
        pytest.param(
            Sources(files={"profile.a": "MAX_ENI: 3\nMAX_ENI=2\nMAX_ENI=3"}, profile="a"),
            ["profile a: 'MAX_ENI: 3' is not NAME=VALUE", "profile a: MAX_ENI is set twice"],
            id="a-profile's-form",
        ),
        pytest.param(
            Sources({"MAX_ENI": "-1"}, {"MAX_ENI": "3"}),
            ["environment: MAX_ENI=-1 is below 1 ENIs"], id="also-where-it-is-hidden",
        ),
        pytest.param(
            Sources({"MAX_ENI": "-1"}, {"MAX_ENI": "x"}),
            ["environment: MAX_ENI=-1 is below 1 ENIs",
             "ConfigMap: MAX_ENI=x is not a whole number of ENIs"], id="every-layer-at-once",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_a_sentence(sources: Sources, complaints: list[str]) -> None:
    assert refusal(sources) == complaints


def test_an_environment_is_full_of_what_is_not_our_business() -> None:
    names = (
        "PATH", "HOME", "AWS_DEFAULT_REGION", "AWS_ROLE_ARN", "ENID_LAB_HOME", "NODE_NAME",
        "POD_NAME", "EKS_CLUSTER_NAME", "KUBERNETES_SERVICE_HOST", "HTTP_PROXY",
    )  # fmt: skip
    environ = dict.fromkeys(names, "a")
    assert resolved(Sources(environ)).warnings == ()


def test_a_slip_in_the_environment_is_a_warning() -> None:
    told = resolved(Sources({"WARM_IP_TARGTE": "3", "ENABLE_IPV6": "false"}))
    assert told.settings == Settings()
    assert told.warnings == (
        "environment: ENABLE_IPV6 is no setting; is ENABLE_IPv6 meant?",
        "environment: WARM_IP_TARGTE is no setting; is WARM_IP_TARGET meant?",
    )


def test_the_nearest_name() -> None:
    assert nearest("warm_ip_target") == "WARM_IP_TARGET"
    assert nearest("SOMETHING") is None


# While running -------------------------------------------------------------------------
def test_what_is_read_at_start_keeps_its_value_and_says_so() -> None:
    running = resolved(Sources(files={"CLUSTER_NAME": "a", "MAX_ENI": "2"}))
    told = resolved(Sources(files={"CLUSTER_NAME": "b", "MAX_ENI": "3"}), running)
    assert (told.settings.cluster_name, told.settings.max_eni) == ("a", 3)
    assert told.chosen["CLUSTER_NAME"].pending == "ConfigMap: b"
    assert told.warnings == (
        "CLUSTER_NAME is read at start only; waiting for a restart: ConfigMap: b",
    )


def test_what_waits_for_a_restart_may_be_taken_back() -> None:
    running = resolved(Sources(files={"CLUSTER_NAME": "a"}))
    waiting = resolved(Sources(files={}), running)
    assert waiting.chosen["CLUSTER_NAME"].pending == "default: not set"
    assert resolved(Sources(files={"CLUSTER_NAME": "a"}), waiting) == running


def test_what_waits_for_a_restart_must_be_able_to_hold_then() -> None:
    running = resolved(Sources({"MAX_ENI": "1"}))
    later = Sources({"MAX_ENI": "1"}, {"AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": "true"})
    (complaint,) = refusal(later, running)
    assert complaint.startswith("MAX_ENI=1 with AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true")


# At start ------------------------------------------------------------------------------
def test_a_good_start_has_no_complaint() -> None:
    told, complaint = resolve_at_start(layers_of(ALL))
    assert (told, complaint) == (resolved(ALL), None)


def test_a_start_leaves_out_what_cannot_be_from_the_highest_layer_down() -> None:
    sources = Sources(
        {"MAX_ENI": "2"}, {"WARM_IP_TARGET": "3", "profile.a": "MAX_ENI=x"}, "a", "MAX_ENI=3"
    )
    told, complaint = resolve_at_start(layers_of(sources))
    assert (told.settings.max_eni, told.settings.warm_ip_target) == (2, 3)
    assert complaint == "profile a: MAX_ENI=x is not a whole number of ENIs"


@pytest.mark.parametrize(
    "sources",
    [
        pytest.param(Sources({"MAX_ENI": "x"}), id="a-wrong-environment"),
        pytest.param(Sources({"MAX_ENI": "x"}, {"MAX_ENI": "3"}), id="a-wrong-environment-below"),
        pytest.param(Sources(files={"ENABLE_POD_ENI": "true"}), id="isolation-that-is-not-there"),
    ],
)  # fmt: skip
def test_a_start_that_cannot_be(sources: Sources) -> None:
    with pytest.raises(SettingsError):
        resolve_at_start(layers_of(sources))


def test_a_wrong_layer_of_nobody_is_no_endless_loop() -> None:
    with pytest.raises(InvalidSettingsError):
        resolve_at_start([Layer(Origin.MACHINE, "this machine", {}, ("broken",))])


# The report ----------------------------------------------------------------------------
def test_a_report_has_every_setting_and_is_json() -> None:
    report = settings_report(resolved(ALL), "MAX_ENI=x is not a whole number of ENIs")
    assert json.loads(json.dumps(report)) == report
    assert [s["name"] for s in report["settings"]] == [s.name for s in SETTINGS]
    assert report["complaint"] == "MAX_ENI=x is not a whole number of ENIs"
    (target,) = (s for s in report["settings"] if s["name"] == "WARM_IP_TARGET")
    assert target == {
        "name": "WARM_IP_TARGET", "section": "How much is held ready", "fate": "honoured",
        "value": "5", "origin": "annotation", "where": "annotation enid.dev/settings", "effect": "",
        "pending": "", "default": "", "peer_default": "", "is_set": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "pool"),
    [("", "demand"), ("WARM_IP_TARGET=1", "fixed"), ("ENABLE_IMDS_ONLY_MODE=true", "as it is")],
)
def test_a_report_says_how_the_pool_is_sized(text: str, pool: str) -> None:
    assert settings_report(resolved(Sources(annotation=text)), None)["pool"] == pool


def test_what_the_machine_says_is_nobodys_setting() -> None:
    report = settings_report(resolved(Sources(memory_bytes=GIB)), None)
    assert not any(setting["is_set"] for setting in report["settings"])


def test_pieces_can_be_tried() -> None:
    assert resolve([tried(["MAX_ENI=3"])]).chosen["MAX_ENI"].where == "--set"


# Laws ----------------------------------------------------------------------------------
names = st.sampled_from([setting.name for setting in SETTINGS])
texts = st.one_of(
    st.sampled_from(["true", "false", "demand", "fixed", "strict", "", "{}", "subnet-0a1b2c3d"]),
    st.integers(-2, 70).map(str),
    st.text(max_size=8),
)
wild = st.dictionaries(st.one_of(names, st.text(max_size=8)), texts, max_size=8)
lines = st.one_of(
    st.none(), st.text(max_size=40), wild.map(lambda w: "\n".join(f"{k}={v}" for k, v in w.items()))
)
wild_sources = st.builds(
    Sources,
    environ=wild,
    files=st.one_of(st.none(), st.dictionaries(st.one_of(names, st.just("profile.a")), texts)),
    profile=st.sampled_from([None, "a", "b"]),
    annotation=lines,
    memory_bytes=st.one_of(st.none(), st.integers(0, 1 << 44)),
)


@given(wild_sources, wild_sources)
def test_whatever_comes_is_taken_or_refused(first: Sources, second: Sources) -> None:
    running = None
    for sources in (first, second):
        try:
            running = resolved(sources, running)
        except SettingsError as error:
            assert str(error)  # noqa: PT017 - and nothing else is raised
    try:
        told, complaint = resolve_at_start(layers_of(first))
    except RefusedSettingsError:
        return
    except InvalidSettingsError:
        assert refusal(Sources(first.environ, memory_bytes=first.memory_bytes))
    else:
        assert complaint or told == resolved(first)


@st.composite
def valid_texts(draw: st.DrawFn) -> dict[str, str]:
    """Settings that can be, whatever stands beside them."""
    found = {}
    for setting in SETTINGS:
        if setting.name in {"WARM_PREFIX_TARGET", "MAX_ENI"} or not setting.field:
            continue
        match setting.kind:
            case Boolean():
                found[setting.name] = draw(st.sampled_from(["true", "false"]))
            case Whole(_, least, most):
                most = least + 50 if most is None else most
                found[setting.name] = str(draw(st.integers(least, most)))
            case Choice(words):
                found[setting.name] = draw(st.sampled_from(words))
    return found


@given(valid_texts(), valid_texts())
def test_a_valid_layer_below_a_complete_one_changes_nothing(
    below: dict[str, str], above: dict[str, str]
) -> None:
    under = Layer(Origin.CONFIG_MAP, "below", below)
    over = Layer(Origin.ANNOTATION, "above", above)
    assert resolve([under, over]) == resolve([over])


@given(valid_texts(), st.sets(names))
def test_an_empty_layer_above_is_as_if_the_names_were_not_set(
    texts: dict[str, str], cleared: set[str]
) -> None:
    left = {name: text for name, text in texts.items() if name not in cleared}
    empty = Layer(Origin.ANNOTATION, "above", dict.fromkeys(cleared - {"MY_NODE_NAME"}, ""))
    under = Layer(Origin.CONFIG_MAP, "below", texts)
    assert (
        resolve([under, empty]).settings == resolve([Layer(Origin.CONFIG_MAP, "", left)]).settings
    )


@given(valid_texts())
def test_resolving_twice_is_resolving_once(texts: dict[str, str]) -> None:
    layers = [Layer(Origin.CONFIG_MAP, "ConfigMap", texts)]
    once = resolve(layers)
    assert resolve(layers, once) == once


@given(valid_texts())
def test_a_target_that_holds_has_no_excuse(texts: dict[str, str]) -> None:
    """A target is a field or has a reason why it is none, and never both."""
    told = resolve([Layer(Origin.CONFIG_MAP, "ConfigMap", texts)])
    if not told.settings.provisioning:
        return
    for name in ("WARM_ENI_TARGET", "WARM_IP_TARGET", "MINIMUM_IP_TARGET"):
        field = getattr(told.settings, name.lower())
        assert (field is None) == bool(told.chosen[name].effect)
