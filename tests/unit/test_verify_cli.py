"""`enid verify`'s command line: what is wrong is one sentence and exit status 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipamd.cli import main
from vpclab.checks.network import NETWORK, QUICK

KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {}}]
contexts: [{name: here, context: {cluster: c, user: u}}]
"""
"""Port 1 is nobody's."""


@pytest.fixture(autouse=True)
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A cluster that is not there."""
    file = tmp_path / "kubeconfig"
    file.write_text(KUBECONFIG)
    monkeypatch.setenv("COLUMNS", "250")
    return str(file)


def verify(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(["verify", *words])
    return ended.value.code


def test_the_list_has_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify("--list") == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [check.name for check in NETWORK]
    assert sum(" quick " in line for line in lines) == len(QUICK)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["dsn"], "[VERIFY-CHECK]", id="a-check-that-is-not-there"),
        pytest.param(["--quick"], "[VERIFY-API]", id="a-cluster-that-is-not-there"),
        pytest.param(["--context", "there"], "[VERIFY-KUBECONFIG]", id="a-context-that-is-not-there"),
        pytest.param(["--kubeconfig", "/nonexistent"], "[VERIFY-KUBECONFIG]", id="a-kubeconfig-that-is-not-there"),
        pytest.param(["--report", "json", "--output", "/nonexistent/x"], "[VERIFY-OUTPUT]", id="a-folder-that-is-not-there"),
        pytest.param(["--nodes", "0"], "no node is too few", id="no-nodes"),
        pytest.param(["--cidr", "10.0.0.1/8"], "has host bits set", id="an-impossible-cidr"),
        pytest.param(["--output", "x"], "--report", id="an-output-of-nothing"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told(
    words: list[str], said: str, kubeconfig: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify("--kubeconfig", kubeconfig, *words) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""
