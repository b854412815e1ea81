"""What a cluster is made of, and what of it is there. Shell.

`tools/build-kubernetes`, `tools/build-containerd` and `tools/fetch-helm` make the parts, once, into
`.cache`; what could not be made has a log there that ends with why.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vpclab.containerd import RELEASES, TOOLS, Release
from vpclab.images import ARCHITECTURES
from vpclab.running import LabError

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / ".cache" / "kubernetes"
HELM = ROOT / ".cache" / "helm"
MAKERS = ROOT / "tools"
NUMBER = re.compile(r"v?(\d+\.\d+\.\d+\S*)")
NEEDED = (
    "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy",
)  # fmt: skip
"""Without one of these there is no cluster."""

HOW: dict[str, Sequence[str]] = {
    "coredns": ("-version",),
    "helm": ("version", "--short"),
    "kubectl": ("version", "--client"),
}
"""How a program is asked for its version, where that is not --version."""


class PartsMissingError(LabError):
    """A program that a cluster needs is not there: its text says which, and why."""

    id = "LAB-PARTS"


@dataclass(frozen=True, slots=True)
class Part:
    """One program: where it is, which it is, or why it is not there."""

    name: str
    file: Path
    version: str = ""
    lacks: str = ""
    took: str = ""
    """How long it took to be made, where that is known."""

    @property
    def line(self) -> str:
        """What there is to say of it."""
        made = f", made in {self.took}" if self.took else ""
        return f"NOT BUILT: {self.lacks}" if self.lacks else f"{self.version}{made}"


def programs(cache: Path = KUBERNETES) -> Path:
    """Return the folder of the newest Kubernetes; one that is not there, where there is none."""
    found = sorted(cache.glob("*/kube-apiserver"))
    return found[-1].parent if found else cache / "none"


def newest() -> Release:
    """Return the newest containerd that is there; the newest of all, where there is none."""
    return next((one for one in reversed(RELEASES) if not one.missing), RELEASES[-1])


def parts(cache: Path = KUBERNETES) -> list[Part]:
    """Return all, in the order that they are made in."""
    folder, release = programs(cache), newest()
    kubernetes = [_part(name, folder / name) for name in (*NEEDED, "coredns")]
    runtime = [_part("containerd", release.folder / "containerd"), _part("runc", TOOLS / "runc")]
    tools = [_part(name, _tool(name)) for name in ("kubectl", "helm")]
    return [*kubernetes, *runtime, *tools]


def missing(cache: Path = KUBERNETES) -> str:
    """Say why there can be no cluster, nothing if there can be one."""
    folder = programs(cache)
    for name in NEEDED:
        if not (folder / name).exists():
            return f"{name} is not built ({why(folder / name)}): tools/build-kubernetes"
    if not _tool("helm").exists():
        return "helm, which installs the chart, is not there: tools/fetch-helm"
    if not image().exists():
        return f"build/{image().name} is not built: tools/build-image --native"
    return newest().missing


def image() -> Path:
    """Return where tools/build-image puts enid's image for this machine."""
    return ROOT / "build" / f"enid-{ARCHITECTURES[platform.machine()]}.oci.tar"


def make() -> None:
    """Make what is missing, with progress on stderr. Raises PartsMissingError.

    A part without which there can be a cluster all the same is told of by who makes it.
    """
    if os.geteuid():
        raise PartsMissingError("a cluster needs root: kubelets make cgroups and mount")
    if not MAKERS.is_dir():
        raise PartsMissingError("a cluster's parts are built by a checkout's tools: make e2e")
    tools = [["build-containerd"], ["build-kubernetes"], ["fetch-helm"]]
    if not image().exists():
        tools += [["build-plugin", "--native"], ["build-image", "--native"]]
    for tool, *arguments in tools:
        subprocess.run([MAKERS / tool, *arguments], stdout=subprocess.DEVNULL, check=False)
    if why := missing():
        raise PartsMissingError(why)


def kubectl() -> Path | None:
    """Return kubectl: the one of the cache, else this machine's; None where there is none."""
    file = _tool("kubectl")
    return file if file.exists() else None


def helm() -> Path:
    """Return helm: the one of the cache, else this machine's."""
    return _tool("helm")


def _tool(name: str) -> Path:
    file = HELM / name
    found = shutil.which(name)
    return file if file.exists() or not found else Path(found)


def _part(name: str, file: Path) -> Part:
    if not file.exists():
        return Part(name, file, lacks=why(file))
    noted = file.with_name(f"{name}.took")
    took = noted.read_text().strip() if noted.exists() else ""
    return Part(name, file, _version(name, file), took=took)


def why(file: Path) -> str:
    """Return the last line of what was said when it was made."""
    log = file.with_name(f"{file.name}.log")
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    said = [line.strip() for line in lines if line.strip()]
    return said[-1] if said else "not tried yet"


def _version(name: str, file: Path) -> str:
    done = subprocess.run(
        [str(file), *HOW.get(name, ("--version",))],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    found = NUMBER.search(done.stdout) or NUMBER.search(done.stderr)
    return found[1] if found else (done.stdout or done.stderr).strip().split("\n")[0]
