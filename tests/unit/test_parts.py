"""What is said of a cluster's parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpclab.checks.show import part_lines
from vpclab.cluster import parts
from vpclab.cluster.parts import Part

SCRIPT = "#!/bin/sh\necho 'Kubernetes v1.34.4'\n"


@pytest.fixture
def kubernetes(tmp_path: Path) -> Path:
    """A cache in which the API server is built, kubelet was tried in vain, and no more."""
    folder = tmp_path / "1.34.4"
    folder.mkdir()
    built = folder / "kube-apiserver"
    built.write_text(SCRIPT)
    built.chmod(0o755)
    (folder / "kube-apiserver.took").write_text("74 s\n")
    (folder / "kubelet.log").write_text("k8s.io/a\nlink: no space left on device\n\n")
    return folder


@pytest.mark.parametrize(
    ("name", "line"),
    [
        pytest.param("kube-apiserver", "1.34.4, made in 74 s", id="built"),
        pytest.param("kubelet", "NOT BUILT: link: no space left on device", id="tried-in-vain"),
        pytest.param("kube-proxy", "NOT BUILT: not tried yet", id="not-tried"),
    ],
)
def test_a_part_has_its_version_or_the_error(kubernetes: Path, name: str, line: str) -> None:
    found = {part.name: part for part in parts.parts(kubernetes.parent)}
    assert found[name].line == line


def test_without_a_part_there_is_no_cluster_and_its_maker_is_named(kubernetes: Path) -> None:
    (kubernetes / "etcd").touch()
    said = parts.missing(kubernetes.parent)
    assert said.startswith("kube-controller-manager is not built (not tried yet)")
    assert said.endswith("tools/build-kubernetes")


def test_where_nothing_is_built_that_is_said(tmp_path: Path) -> None:
    assert parts.missing(tmp_path) == "etcd is not built (not tried yet): tools/build-kubernetes"


def test_each_part_is_a_line() -> None:
    told = [Part("etcd", Path("x"), "3.4.23"), Part("kubelet", Path("y"), lacks="no Go")]
    assert [line.split(maxsplit=1) for line in part_lines(told)] == [
        ["etcd", "3.4.23"],
        ["kubelet", "NOT BUILT: no Go"],
    ]
