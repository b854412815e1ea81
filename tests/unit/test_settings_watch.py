"""A configuration that is watched: files as kubelet brings them, labels, mistakes, silence."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipamd import configuration
from ipamd.configuration import Configuration, Folder, FolderUnreadableError
from ipamd.layers import PROFILE_LABEL, SETTINGS_ANNOTATION, Resolved
from ipamd.settings import InvalidSettingsError


class ConfigMap:
    """A ConfigMap's volume: every file is a link by way of `..data`, which a rename swaps."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation = 0
        path.mkdir()

    def write(self, **texts: str) -> None:
        self.generation += 1
        folder = self.path / f"..{self.generation}"
        folder.mkdir()
        for name, text in texts.items():
            (folder / name).write_text(text)
        draft = self.path / "..data_tmp"
        draft.symlink_to(folder.name)
        draft.rename(self.path / "..data")
        there = {path.name for path in self.path.iterdir() if not path.name.startswith("..")}
        for name in there - set(texts):
            (self.path / name).unlink()
        for name in set(texts) - there:
            (self.path / name).symlink_to(f"..data/{name}")


@pytest.fixture
def config_map(tmp_path: Path) -> ConfigMap:
    return ConfigMap(tmp_path / "settings")


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    """The level is the process's: put back what was there."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


class Watched:
    """A configuration, and the changes that it told of."""

    def __init__(self, config_map: ConfigMap, **environ: str) -> None:
        self.configuration = Configuration(environ, folder=config_map.path)
        self.changes: list[tuple[Resolved, Resolved]] = []
        self.configuration.on_change = lambda old, new: self.changes.append((old, new))

    def look(self) -> int | None:
        self.configuration.look()
        return self.configuration.settings.warm_ip_target


def test_a_change_of_the_configmap_is_taken_up(config_map: ConfigMap) -> None:
    config_map.write(WARM_IP_TARGET="3")
    watched = Watched(config_map)
    assert watched.configuration.settings.warm_ip_target == 3
    config_map.write(WARM_IP_TARGET="4", MAX_ENI="2")
    assert watched.look() == 4
    config_map.write(MAX_ENI="2")
    assert watched.look() is None
    (first, second) = watched.changes
    assert (first[0].settings.warm_ip_target, first[1].settings.warm_ip_target) == (3, 4)
    assert first[1] is second[0]


def test_without_a_change_nothing_is_told(config_map: ConfigMap) -> None:
    config_map.write(WARM_IP_TARGET="3")
    watched = Watched(config_map)
    watched.look()
    config_map.write(WARM_IP_TARGET="3")
    watched.look()
    watched.configuration.node_changed({"zone": "a"}, {"note": "b"})
    assert watched.changes == []


def test_a_folder_that_comes_later(tmp_path: Path) -> None:
    configured = Configuration({}, folder=tmp_path / "settings")
    ConfigMap(tmp_path / "settings").write(MAX_ENI="2")
    configured.look()
    assert configured.settings.max_eni == 2


def test_without_a_folder_the_environment_is_all_there_is() -> None:
    configured = Configuration({"MAX_ENI": "2"})
    configured.look()
    assert configured.settings.max_eni == 2
    assert configured.report()["complaint"] is None


def test_a_label_chooses_a_profile_and_an_annotation_has_the_last_word(
    config_map: ConfigMap,
) -> None:
    config_map.write(**{"WARM_IP_TARGET": "3", "profile.gpu": "WARM_IP_TARGET=8\nMAX_ENI=2"})
    watched = Watched(config_map)
    watched.configuration.node_changed({PROFILE_LABEL: "gpu"}, {})
    assert watched.look() == 8
    watched.configuration.node_changed(
        {PROFILE_LABEL: "gpu"}, {SETTINGS_ANNOTATION: "WARM_IP_TARGET=9"}
    )
    assert (watched.look(), watched.configuration.settings.max_eni) == (9, 2)
    watched.configuration.node_changed({}, {})
    assert watched.look() == 3
    assert len(watched.changes) == 3


def test_what_a_former_life_noted_of_the_node_holds_from_the_start(config_map: ConfigMap) -> None:
    config_map.write(**{"profile.gpu": "CLUSTER_NAME=a"})
    configured = Configuration(
        {}, folder=config_map.path, labels={PROFILE_LABEL: "gpu"},
        annotations={SETTINGS_ANNOTATION: "MAX_ENI=2"}, memory_bytes=1 << 30,
    )  # fmt: skip
    settings = configured.settings
    assert (settings.cluster_name, settings.max_eni, settings.add_waiting_max) == ("a", 2, 8)


def test_a_mistake_changes_nothing_is_said_once_and_goes(
    config_map: ConfigMap, caplog: pytest.LogCaptureFixture
) -> None:
    config_map.write(WARM_IP_TARGET="3")
    watched = Watched(config_map)
    caplog.clear()
    config_map.write(WARM_IP_TARGET="many")
    assert [watched.look(), watched.look()] == [3, 3]
    why = "ConfigMap: WARM_IP_TARGET=many is not a whole number of addresses"
    assert watched.configuration.complaint == why
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    config_map.write(WARM_IP_TARGET="3")
    with caplog.at_level(logging.INFO):
        assert watched.look() == 3
    assert watched.configuration.complaint is None
    assert caplog.messages[-1] == "settings are valid again"
    assert watched.changes == []


def test_what_this_node_cannot_live_by_changes_nothing_and_is_said(
    config_map: ConfigMap, caplog: pytest.LogCaptureFixture
) -> None:
    config_map.write(WARM_IP_TARGET="3")
    watched = Watched(config_map)
    watched.configuration.unfit = lambda s: "no clamp here" if s.mss_clamp else ""
    config_map.write(WARM_IP_TARGET="4", ENID_MSS_CLAMP="true")
    assert [watched.look(), watched.look()] == [3, 3]
    assert (watched.configuration.complaint, watched.changes) == ("no clamp here", [])
    assert [vars(r)["reason"] for r in caplog.records if r.levelname == "ERROR"] == [
        "no clamp here"
    ]
    config_map.write(WARM_IP_TARGET="4")
    assert (watched.look(), watched.configuration.complaint) == (4, None)


def test_a_mistake_at_start_does_not_keep_the_node_from_starting(config_map: ConfigMap) -> None:
    config_map.write(WARM_IP_TARGET="many")
    configured = Configuration({"MAX_ENI": "2"}, folder=config_map.path)
    assert configured.settings.max_eni == 2
    assert configured.report()["complaint"] == configured.complaint
    assert "many" in (configured.complaint or "")


def test_a_wrong_environment_does() -> None:
    with pytest.raises(InvalidSettingsError):
        Configuration({"MAX_ENI": "x"})


def test_the_log_level_follows(config_map: ConfigMap) -> None:
    watched = Watched(config_map)
    assert logging.getLogger().level == logging.INFO
    config_map.write(AWS_VPC_K8S_CNI_LOGLEVEL="debug")
    watched.look()
    assert logging.getLogger().level == logging.DEBUG


def test_what_is_set_is_logged_with_its_origin_and_warnings_once(
    config_map: ConfigMap, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    config_map.write(ENABLE_NFTABLES="true")
    watched = Watched(config_map, MAX_ENI="2")
    assert {(vars(r)["variable"], vars(r)["origin"]) for r in caplog.records if r.msg == "setting"} == {
        ("MAX_ENI", "environment"), ("ENABLE_NFTABLES", "ConfigMap"),
    }  # fmt: skip
    assert [r.levelname for r in caplog.records if r.msg == "settings"] == ["WARNING"]
    caplog.clear()
    config_map.write(ENABLE_NFTABLES="true", MAX_ENI="3")
    watched.look()
    (record,) = caplog.records
    assert (vars(record)["variable"], vars(record)["value"]) == ("MAX_ENI", "3")


# Folders that cannot be read -----------------------------------------------------------
@pytest.mark.parametrize("how", ["large", "latin", "a-folder"])
def test_unreadable_is_not_empty(config_map: ConfigMap, how: str) -> None:
    config_map.write(WARM_IP_TARGET="3")
    watched = Watched(config_map)
    spoiled = config_map.path / "..data" / "MAX_ENI"
    if how == "a-folder":
        spoiled.mkdir()
    else:
        spoiled.write_bytes(
            b"\xff" if how == "latin" else b"1" * (configuration.MAX_FILE_BYTES + 1)
        )
    assert watched.look() == 3
    assert str(config_map.path / "MAX_ENI") in (watched.configuration.complaint or "")
    watched.configuration.node_changed({}, {SETTINGS_ANNOTATION: "WARM_IP_TARGET=4"})
    assert watched.configuration.settings.warm_ip_target == 4
    assert watched.configuration.complaint is not None
    if how == "a-folder":
        spoiled.rmdir()
    else:
        spoiled.unlink()
    watched.look()
    assert watched.configuration.complaint is None


def test_a_folder_is_seen_whole_while_kubelet_tidies_up(config_map: ConfigMap) -> None:
    """Links of single files dangle, or are not there yet, for a moment after the swap."""
    config_map.write(WARM_IP_TARGET="3")
    watched = Watched(config_map)
    (config_map.path / "GONE").symlink_to("..data/GONE")
    (config_map.path / "WARM_IP_TARGET").unlink()
    assert watched.look() == 3
    assert watched.configuration.complaint is None


def test_a_plain_folder_will_do(tmp_path: Path) -> None:
    (tmp_path / "MAX_ENI").write_text("2\n")
    assert Folder(str(tmp_path)).look() == {"MAX_ENI": "2\n"}
    (tmp_path / "GONE").symlink_to("nowhere")
    with pytest.raises(FolderUnreadableError, match="No such file"):
        Folder(tmp_path).look()


def test_a_path_that_is_no_folder_is_said(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(FolderUnreadableError, match="cannot be read: Not a directory"):
        Folder(path).look()


def test_a_folder_that_changes_while_it_is_read_is_read_again(config_map: ConfigMap) -> None:
    config_map.write(MAX_ENI="1")
    changes = iter("23")

    def read(path: Path) -> str:
        text = path.read_text()
        for number in changes:
            config_map.write(MAX_ENI=number)
            break
        return text

    folder = Folder(config_map.path, read)
    assert folder.look() == {"MAX_ENI": "3"}
    changes = iter("4567")
    os.utime(config_map.path / "MAX_ENI", ns=(1, 1))
    assert folder.look() == {"MAX_ENI": "3"}, "after three spoiled readings, what was there before"


def test_watching_looks_again_and_again(config_map: ConfigMap) -> None:
    configured = Configuration({}, folder=config_map.path)
    config_map.write(MAX_ENI="2")

    async def watch_until_changed() -> None:
        changed = asyncio.Event()
        configured.on_change = lambda _old, _new: changed.set()
        watching = asyncio.create_task(configured.watch(0.0))
        await asyncio.wait_for(changed.wait(), 5)
        watching.cancel()

    asyncio.run(watch_until_changed())
    assert configured.settings.max_eni == 2
