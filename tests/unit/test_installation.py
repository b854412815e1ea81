"""What is put on a node and taken off it, and in which order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipamd.installation import (
    ASIDE,
    CHAINED,
    CONFLIST,
    DROP_INS,
    ChainError,
    Copy,
    Former,
    Found,
    Note,
    PodsLeftError,
    Remove,
    Rename,
    Say,
    SetSysctl,
    Step,
    Wish,
    Write,
    before_ours,
    cni_version,
    conflist,
    install,
    read_chained,
    uninstall,
)
from tests.tools.pure import ROOT

SHIPPED = json.loads((ROOT / "config" / CONFLIST).read_text())
WISH = Wish(shipped=SHIPPED, sysctls={"net.ipv4.ip_forward": "1"})
PORTMAP = (CHAINED["portmap"],)
BOTH = frozenset({"1.0.0", "1.1.0"})
OLD = frozenset({"0.4.0", "1.0.0"})


@pytest.mark.parametrize(
    ("runtime", "version"),
    [
        pytest.param("containerd://1.6.20~ds1", "1.0.0", id="containerd-1-takes-no-1.1.0"),
        pytest.param("containerd://1.7.24", "1.0.0", id="nor-1.7"),
        pytest.param("containerd://2.0.0", "1.1.0", id="2.0-is-the-first-that-does"),
        pytest.param("containerd://v2.2.9-k3s1", "1.1.0", id="a-version-with-letters"),
        pytest.param("containerd://10.0.0", "1.1.0", id="versions-are-numbers"),
        pytest.param("cri-o://1.34.0", "1.0.0", id="another-runtime-has-what-all-take"),
        pytest.param("containerd://Unknown", "1.0.0", id="a-version-that-is-none"),
        pytest.param("", "1.0.0", id="nobody-knows"),
    ],
)
def test_the_conflists_version_is_what_the_runtime_takes(runtime: str, version: str) -> None:
    assert cni_version(Found(runtime=runtime), WISH) == version


@pytest.mark.parametrize(
    ("former", "version"),
    [
        pytest.param('{"cniVersion": "1.1.0"}', "1.1.0", id="what-it-was"),
        pytest.param('{"cniVersion": "0.4.0"}', "1.0.0", id="not-what-is-none-of-ours"),
        pytest.param("{", "1.0.0", id="not-what-is-torn"),
        pytest.param("[]", "1.0.0", id="not-what-is-no-object"),
        pytest.param("{}", "1.0.0", id="not-what-has-none"),
    ],
)
def test_while_nobody_says_the_runtimes_version_it_stays(former: str, version: str) -> None:
    assert cni_version(Found(conflist=former), WISH) == version


@pytest.mark.parametrize(
    ("speaks", "version"),
    [
        pytest.param({"portmap": BOTH}, "1.1.0", id="it-speaks-both"),
        pytest.param({"portmap": OLD}, "1.0.0", id="it-speaks-the-old-only"),
        pytest.param({"portmap": frozenset()}, "1.0.0", id="it-does-not-say"),
        pytest.param({}, "1.1.0", id="it-is-not-there-and-left-out"),
    ],
)
def test_a_plugin_behind_ours_must_take_the_version_too(
    speaks: Mapping[str, frozenset[str]], version: str
) -> None:
    found = Found(runtime="containerd://2.1.0", speaks=speaks)
    assert cni_version(found, replace(WISH, chained=PORTMAP)) == version


def test_a_version_that_is_asked_for_is_taken() -> None:
    assert (
        cni_version(Found(runtime="containerd://1.7.0"), replace(WISH, version="1.1.0")) == "1.1.0"
    )


def test_the_conflist_is_the_shipped_one_with_a_version() -> None:
    assert json.loads(conflist(Found(), WISH)) == SHIPPED


def test_plugins_follow_ours_as_they_are_asked_for() -> None:
    found = Found(speaks={"portmap": BOTH, "bandwidth": BOTH})
    wish = replace(WISH, chained=(CHAINED["portmap"], CHAINED["bandwidth"]))
    types = [plugin["type"] for plugin in json.loads(conflist(found, wish))["plugins"]]
    assert types == ["enid-cni", "portmap", "bandwidth"]


def test_a_plugin_that_is_not_there_is_left_out_and_said() -> None:
    steps = list(install(Found(), replace(WISH, chained=PORTMAP)))
    (write,) = (step for step in steps if isinstance(step, Write))
    assert "portmap" not in write.text
    (said,) = (step for step in steps if isinstance(step, Say))
    assert said.fields["plugin"] == "portmap"


@pytest.mark.parametrize("word", ["portmap", "bandwidth", '{"type": "tuning", "mtu": 9000}'])
def test_a_word_names_a_plugin_or_is_one(word: str) -> None:
    (plugin,) = read_chained([word])
    assert plugin["type"] in {"portmap", "bandwidth", "tuning"}


@pytest.mark.parametrize("word", ["portmapper", "{", "[]", "{}", '{"type": 1}', '{"type": ""}', ""])
def test_a_word_that_names_none_is_refused(word: str) -> None:
    with pytest.raises(ChainError, match="portmap or bandwidth"):
        read_chained([word])


# The order ------------------------------------------------------------------------------
FRESH = Found(
    names=frozenset({"10-aws.conflist", "README"}),
    folders=frozenset({"etc/systemd", "etc/systemd/network", "etc/NetworkManager"}),
    sysctls={"net.ipv4.ip_forward": "0"},
)


def test_a_fresh_node_gets_all_of_it_and_the_peers_conflist_goes_last() -> None:
    steps = list(install(FRESH, WISH))
    assert steps == [
        Note(Former({"net.ipv4.ip_forward": "0"})),
        SetSysctl("net.ipv4.ip_forward", "1"),
        Copy("enid-cni", "opt/cni/bin/enid-cni"),
        *(Copy(file, to, without=True) for file, (_, to) in DROP_INS.items()),
        Write(f"etc/cni/net.d/{CONFLIST}", conflist(FRESH, WISH)),
        Rename("etc/cni/net.d/10-aws.conflist", "10-aws.conflist" + ASIDE),
    ]


def test_the_second_time_only_the_plugin_is_compared() -> None:
    done = Found(
        names=frozenset({CONFLIST, "10-aws.conflist" + ASIDE}),
        conflist=conflist(FRESH, WISH),
        folders=FRESH.folders,
        same=frozenset(to for _, to in DROP_INS.values()),
        sysctls=WISH.sysctls,
        former=Former({"net.ipv4.ip_forward": "0"}),
    )
    assert list(install(done, WISH)) == [Copy("enid-cni", "opt/cni/bin/enid-cni")]


def test_a_sysctl_that_was_noted_keeps_its_note() -> None:
    """After a reboot it is the image's again; what was before enid is known already."""
    found = Found(sysctls={"net.ipv4.ip_forward": "0"}, former=Former({"net.ipv4.ip_forward": "0"}))
    assert not [step for step in install(found, WISH) if isinstance(step, Note)]


def test_a_sysctl_that_cannot_be_read_is_set_all_the_same() -> None:
    assert SetSysctl("net.ipv4.ip_forward", "1") in list(install(Found(), WISH))


def test_a_daemon_that_is_not_there_gets_no_drop_in() -> None:
    steps = install(Found(folders=frozenset({"etc/NetworkManager"})), WISH)
    copied = [step.to for step in steps if isinstance(step, Copy)]
    assert copied == ["opt/cni/bin/enid-cni", "etc/NetworkManager/conf.d/10-enid.conf"]


def test_no_drop_in_is_put_where_nobody_wants_one() -> None:
    steps = install(FRESH, replace(WISH, drop_ins=False))
    assert [step.to for step in steps if isinstance(step, Copy)] == ["opt/cni/bin/enid-cni"]


@pytest.mark.parametrize(
    ("names", "before"),
    [
        pytest.param({"00-calico.conflist"}, ["00-calico.conflist"], id="one-that-sorts-first"),
        pytest.param({"05-cilium.conflist"}, ["05-cilium.conflist"], id="also-with-our-number"),
        pytest.param({"04-a.conf", "03-b.json"}, ["03-b.json", "04-a.conf"], id="of-any-ending"),
        pytest.param({"10-aws.conflist", "99-loopback.conf"}, [], id="those-behind-are-no-matter"),
        pytest.param({"00-old.conflist.bak", ".00.conflist.draft"}, [], id="nor-what-nobody-reads"),
        pytest.param({CONFLIST}, [], id="nor-ours"),
    ],
)
def test_a_conflist_that_comes_first_is_found(names: set[str], before: list[str]) -> None:
    assert before_ours(names) == before


def test_a_conflist_that_comes_first_is_said_once_and_left_alone() -> None:
    steps = list(install(Found(names=frozenset({"00-calico.conflist"})), WISH))
    (said,) = (step for step in steps if isinstance(step, Say))
    assert said.fields["file"] == "/etc/cni/net.d/00-calico.conflist"
    assert "give it a later name" in said.fields["reason"]


BROUGHT = frozenset({"loopback", "portmap", "bandwidth"})


@pytest.mark.parametrize(
    ("there", "chained", "copied"),
    [
        pytest.param(set(), (), ["loopback"], id="what-every-pod-needs"),
        pytest.param(set(), PORTMAP, ["loopback", "portmap"], id="and-what-follows-ours"),
        pytest.param(
            {"loopback", "portmap"}, PORTMAP, [], id="nothing-in-the-place-of-a-nodes-own"
        ),
        pytest.param(set(), ({"type": "tuning"},), ["loopback"], id="nor-what-the-image-has-not"),
    ],
)
def test_others_plugins_come_where_there_are_none(
    there: set[str], chained: tuple[Mapping[str, str], ...], copied: list[str]
) -> None:
    wish = replace(WISH, sysctls={}, chained=chained, brought=BROUGHT)
    steps = list(install(Found(plugins=frozenset(there)), wish))
    assert [s.file for s in steps if isinstance(s, Copy) and s.file != "enid-cni"] == [
        f"plugins/{name}" for name in copied
    ]
    assert [s for s in steps if isinstance(s, Note)] == (
        [Note(Former({}, tuple(copied)))] if copied else []
    )


def test_others_plugins_that_came_with_us_are_renewed_with_us() -> None:
    found = Found(plugins=frozenset({"loopback"}), former=Former({}, ("loopback",)))
    steps = list(install(found, replace(WISH, brought=BROUGHT)))
    assert Copy("plugins/loopback", "opt/cni/bin/loopback") in steps


def test_others_plugins_that_came_with_us_go_with_us_unless_somebody_has_put_another() -> None:
    came = Former({}, ("loopback", "portmap"))
    found = Found(
        former=came,
        same=frozenset({"opt/cni/bin/loopback", "opt/cni/bin/bandwidth"}),
        other=frozenset({"opt/cni/bin/portmap"}),
    )
    steps = list(uninstall(found))
    removed = [step.path for step in steps if isinstance(step, Remove)]
    assert removed == [f"etc/cni/net.d/{CONFLIST}", "opt/cni/bin/enid-cni", "opt/cni/bin/loopback"]
    (said,) = (step for step in steps if isinstance(step, Say))
    assert said.about == "/opt/cni/bin/portmap"


# Away -----------------------------------------------------------------------------------
INSTALLED = Found(
    names=frozenset({CONFLIST, "10-aws.conflist" + ASIDE}),
    conflist="{}",
    same=frozenset({"etc/systemd/network/05-enid-pods.network"}),
    other=frozenset({"etc/NetworkManager/conf.d/10-enid.conf"}),
    former=Former({"net.ipv4.ip_forward": "0"}),
)


def test_the_peers_conflist_is_back_before_ours_goes() -> None:
    assert list(uninstall(INSTALLED)) == [
        Rename(f"etc/cni/net.d/10-aws.conflist{ASIDE}", "10-aws.conflist"),
        Remove(f"etc/cni/net.d/{CONFLIST}"),
        Remove("opt/cni/bin/enid-cni"),
        Remove("etc/systemd/network/05-enid-pods.network"),
        Say(
            "a file stays",
            "FileStays",
            {"file": "/etc/NetworkManager/conf.d/10-enid.conf", "reason": "somebody has changed it"},
        ),
        SetSysctl("net.ipv4.ip_forward", "0"),
    ]  # fmt: skip


def test_a_conflist_that_the_peer_has_written_since_is_not_overwritten() -> None:
    found = replace(INSTALLED, names=INSTALLED.names | {"10-aws.conflist"})
    steps = list(uninstall(found))
    assert Remove(f"etc/cni/net.d/10-aws.conflist{ASIDE}") in steps
    assert not [step for step in steps if isinstance(step, Rename)]


def test_where_nothing_was_set_aside_nothing_comes_back() -> None:
    assert not [step for step in uninstall(Found()) if isinstance(step, Rename)]


def test_a_node_with_pods_keeps_everything() -> None:
    with pytest.raises(PodsLeftError, match="drain it first"):
        list(uninstall(replace(INSTALLED, pods=3)))


def test_who_says_force_loses_them() -> None:
    assert list(uninstall(replace(INSTALLED, pods=3), force=True)) == list(uninstall(INSTALLED))


# The law --------------------------------------------------------------------------------
FILES = st.frozensets(
    st.sampled_from(
        ["00-x.conflist", CONFLIST, "10-aws.conflist", "10-aws.conflist" + ASIDE, "87-y.conf"]
    )
)


def played(names: frozenset[str], steps: list[Step]) -> list[frozenset[str]]:
    """Return the runtime's folder after each of *steps*."""
    seen = [names]
    for step in steps:
        match step:
            case Write(to, _):
                names |= {to.rpartition("/")[2]}
            case Rename(path, name):
                assert path.rpartition("/")[2] in names
                names = names - {path.rpartition("/")[2]} | {name}
            case Remove(path):
                names -= {path.rpartition("/")[2]}
        seen.append(names)
    return seen


@given(FILES, st.booleans())
def test_a_folder_with_a_conflist_never_has_none(names: frozenset[str], speaks: bool) -> None:  # noqa: FBT001 - drawn
    found = Found(
        names=names,
        conflist=conflist(Found(), WISH) if CONFLIST in names else None,
        speaks={"portmap": BOTH} if speaks else {},
    )
    wish = replace(WISH, chained=PORTMAP)

    def is_served(names: frozenset[str]) -> bool:
        return any(name.endswith((".conflist", ".conf")) for name in names)

    seen = played(names, list(install(found, wish)))
    if is_served(names):
        assert all(map(is_served, seen))
    assert CONFLIST in seen[-1]
    assert "10-aws.conflist" not in seen[-1]
    gone = played(seen[-1], list(uninstall(replace(found, names=seen[-1]))))
    assert CONFLIST not in gone[-1]
    assert ("10-aws.conflist" in gone[-1]) == bool(
        names & {"10-aws.conflist", "10-aws.conflist" + ASIDE}
    )
    if "10-aws.conflist" in gone[-1]:
        assert all(map(is_served, gone))
