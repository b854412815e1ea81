"""`enid settings`: what a node's daemon says, and what a change would come to."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from cni.frame import FrameReader, answer
from eni.limits import shipped
from ipamd.cli import main
from ipamd.layers import Sources, layers_of, resolve
from ipamd.settings_report import SettingsReport, for_type, settings_report
from ipamd.settings_table import SETTINGS, Fate
from ipamd.show import show_settings
from ipamd.terms import without_prefixes


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of the table stays one, whatever this terminal is."""
    monkeypatch.setenv("COLUMNS", "250")


def run(*argv: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(["settings", *argv])
    return ended.value.code


def report(complaint: str | None = None, **environ: str) -> SettingsReport:
    return settings_report(resolve(layers_of(Sources(environ))), complaint)


def page(told: SettingsReport, *, everything: bool = False) -> str:
    out = io.StringIO()
    show_settings(told, Console(file=out, width=250, no_color=True), everything=everything)
    return out.getvalue()


def lines_of(text: str) -> dict[str, str]:
    return {line.split()[0]: line for line in text.splitlines() if line.split()}


# What a person reads -------------------------------------------------------------------
def test_each_line_has_value_origin_the_peers_default_and_effect() -> None:
    lines = lines_of(page(report(WARM_ENI_TARGET="3", WARM_IP_TARGET="2")))
    assert lines["pool"].startswith("pool fixed")
    assert lines["WARM_IP_TARGET"].split() == ["WARM_IP_TARGET", "2", "environment", "-"]
    assert lines["WARM_ENI_TARGET"].split()[:5] == [
        "WARM_ENI_TARGET",
        "3",
        "environment",
        "1",
        "none:",
    ]
    assert lines["ENID_POOL"].split() == ["ENID_POOL", "-", "default", "ours"]
    assert "has no effect" in lines["warning:"]


def test_what_has_no_effect_is_shown_if_it_is_set_or_asked_for() -> None:
    told = report(ENABLE_NFTABLES="true")
    short, full = lines_of(page(told)), lines_of(page(told, everything=True))
    assert "ENABLE_NFTABLES" in short
    assert {s.name for s in SETTINGS if s.fate in {Fate.HONOURED, Fate.DIFFERENT}} <= set(short)
    assert "ENABLE_POD_ENI" not in short
    assert full["ENABLE_POD_ENI"].split()[-2:] == ["refused", "otherwise"]
    assert {s.name for s in SETTINGS} <= set(full)


def test_a_refused_change_comes_first() -> None:
    first, second, *_ = page(report("MAX_ENI=0 is below 1 ENIs\nand more")).splitlines()
    assert "the last change was refused" in first
    assert second == "  MAX_ENI=0 is below 1 ENIs"


def test_what_waits_for_a_restart_is_shown() -> None:
    running = resolve(layers_of(Sources()))
    later = resolve(layers_of(Sources(files={"CLUSTER_NAME": "b"})), running)
    text = page(settings_report(later, None))
    assert "at the next start: ConfigMap: b" in lines_of(text)["CLUSTER_NAME"]


def test_markup_in_a_value_is_text() -> None:
    assert "[bold]:100:" in page(report(ENID_ACCOUNT_LIMITS="/[bold]:100:"))


def test_on_a_type_without_prefixes_the_effects_are_those_of_single_addresses() -> None:
    environ = {
        "ENABLE_PREFIX_DELEGATION": "true",
        "WARM_ENI_TARGET": "2",
        "WARM_PREFIX_TARGET": "3",
        "MAX_EN": "2",
    }
    resolved = resolve(layers_of(Sources(environ)))
    xen, nitro = shipped("m4.large"), shipped("m5.large")
    assert xen is not None
    assert nitro is not None
    assert for_type(resolved, nitro) is resolved
    told = settings_report(for_type(resolved, xen), None)
    why = without_prefixes(resolved.settings, xen)
    effects = {s["name"]: s["effect"] for s in told["settings"] if s["is_set"]}
    assert effects == {
        "ENABLE_PREFIX_DELEGATION": why, "WARM_PREFIX_TARGET": why, "WARM_ENI_TARGET": "",
    }  # fmt: skip
    assert told["warnings"] == [
        f"environment: WARM_PREFIX_TARGET=3 has no effect: {why}",
        f"environment: ENABLE_PREFIX_DELEGATION=true has no effect: {why}",
        "environment: MAX_EN is no setting; is MAX_ENI meant?",
    ]
    assert told["pool"] == "fixed"


# A daemon ------------------------------------------------------------------------------
def test_the_daemon_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, asked = tmp_path / "ipamd.sock", []
    told = report("no", MAX_ENI="2")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                frame = FrameReader().feed(client.recv(65536))
                assert frame is not None
                asked.append(dict(frame.env))
                client.sendall(answer(0, json.dumps(told).encode()))

        thread = threading.Thread(target=serve)
        thread.start()
        assert run("-o", "json", "--socket", str(path)) == 0
        thread.join(5)
    assert asked == [{"ENID_COMMAND": "SETTINGS"}]
    assert json.loads(capsys.readouterr().out) == told


def test_a_daemon_that_is_away(tmp_path: Path) -> None:
    assert "[DAEMON-AWAY]" in str(run("--socket", str(tmp_path / "none")))


# To try --------------------------------------------------------------------------------
def test_a_change_can_be_tried(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--set", "WARM_IP_TARGET=2", "--set", "WARM_ENI_TARGET=2", "-o", "json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["pool"], len(told["warnings"])) == ("fixed", 1)


def test_a_change_that_cannot_be_is_said_in_full() -> None:
    code = str(run("--set", "MAX_ENI=0", "--set", "ENABLE_POD_ENI=true", "--set", "MAX_EMI=2"))
    assert code.endswith("[SETTINGS-NOT-TAKEN]")
    assert [line.split("--set: ")[1].split()[0] for line in code.splitlines()] == [
        "ENABLE_POD_ENI=true", "MAX_EMI", "MAX_ENI=0",
    ]  # fmt: skip


def test_a_configmap_can_be_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "WARM_IP_TARGET").write_text("3\n")
    (tmp_path / "profile.gpu").write_text("WARM_IP_TARGET=9\n")
    assert run("--folder", str(tmp_path), "--profile", "gpu") == 0
    assert lines_of(capsys.readouterr().out)["WARM_IP_TARGET"].split()[:4] == [
        "WARM_IP_TARGET", "9", "profile", "gpu",
    ]  # fmt: skip
    (tmp_path / "MAX_ENI").write_bytes(b"\xff")
    assert "is not UTF-8 [SETTINGS-NOT-TAKEN]" in str(run("--folder", str(tmp_path)))


def test_the_environment_can_be_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAX_ENI", "7")
    assert run("--env", "--set", "WARM_IP_TARGET=1") == 0
    lines = lines_of(capsys.readouterr().out)
    assert lines["MAX_ENI"].split()[:3] == ["MAX_ENI", "7", "environment"]


def test_the_command_line_starts_light() -> None:
    """What takes long to import is for the commands that need it."""
    heavy = ("rich", "asyncio", "boto3", "importlib.metadata", "sqlite3", "ipamd.layers")
    code = f"import sys, ipamd.cli; print([m for m in {heavy} if m in sys.modules])"
    argv = [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "--set WARM_IP_TARGET=2" in capsys.readouterr().out
