"""A real containerd on a node of the lab, as a node's image has it: production's paths. Shell.

`tools/build-containerd` fetches and builds what is run. It has the node's namespaces and folders,
so two nodes' containerds never meet. What would meet is the kernel's: cgroups have one tree, in
which each node's pods have a folder of their own that `close` empties and removes; a pod whose
runtime was killed is found there, and nowhere else.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpclab import cgroups
from vpclab.node import Node
from vpclab.runtime import BIN_DIR, CONF_DIR, SEARCH

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "containerd"
TOOLS = CACHE / "tools"

RUNC = CACHE / "runc-1.3.3"
"""For containerd 2, whose pods with a user namespace need more of it than Debian's has."""

PLUGINS = CACHE / "cni-1.9.1"
"""The CNI project's, for containerd 2: Debian's do not speak 1.1.0."""

NAMES = ("1.6-debian12", "1.7-debian13", "2.2.9")
"""What tools/build-containerd fetches or builds, and the folders it does so in; the newest last."""

SOCKET = "/run/containerd/containerd.sock"
CONFIG = "/run/containerd.toml"
NETNS = "/run/containerd/io.containerd.grpc.v1.cri/netns"
RESULTS = "/var/lib/cni/results"
LINKED = ("loopback", "tuning", "portmap", "bandwidth", "ptp", "host-local")
"""The CNI project's plugins that a node has."""

METRICS = "127.0.0.1:1338"
"""Where it tells of itself, on its own node; the port of its documentation."""

SETTINGS = """\
version = 2
disabled_plugins = ["io.containerd.internal.v1.tracing", "io.containerd.nri.v1.nri"]
[metrics]
  address = "{metrics}"
[plugins."io.containerd.internal.v1.opt"]
  path = "/run/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{bin_dir}"
    conf_dir = "{conf_dir}"
"""
"""The rest is containerd's default. Pods may not lower their oom_score_adj where root has no
CAP_SYS_RESOURCE, as in a container; a pod's namespace is bound below the state's folder, apart
from those of `ip netns`."""

START_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Release:
    """One containerd, by the name that its folder has."""

    name: str

    @property
    def line(self) -> tuple[int, int]:
        """Its major and minor version."""
        major, minor = self.name.split("-")[0].split(".")[:2]
        return int(major), int(minor)

    @property
    def folder(self) -> Path:
        """Where its programs are."""
        return CACHE / self.name

    @property
    def runc(self) -> Path:
        """The runc that it starts."""
        return (RUNC if self.line >= (2, 0) else TOOLS) / "runc"

    @property
    def plugins(self) -> Path:
        """The CNI project's plugins that are beside ours."""
        return PLUGINS if self.line >= (2, 0) else TOOLS / "cni"

    @property
    def missing(self) -> str:
        """Say why it cannot be run, nothing if it can."""
        needed = (
            *(self.folder / name for name in ("containerd", "containerd-shim-runc-v2", "ctr")),
            self.runc,
            self.plugins / "loopback",
            TOOLS / "busybox",
        )
        lacking = [str(path.relative_to(ROOT)) for path in needed if not path.exists()]
        return f"{lacking[0]} is missing: `tools/build-containerd`" if lacking else ""


RELEASES = tuple(Release(name) for name in NAMES)


def poll(question: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait until *question* is answered with yes. Raises AssertionError if it is not."""
    end = time.monotonic() + seconds
    while not question():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        time.sleep(0.01)


class Containerd:
    """The containerd of one node, whose pods' sandboxes are of the image *pause*.

    *is_up* tells whether it serves; without it that is when it says so, as it does to a service
    manager: it accepts connections before, and refuses what a kubelet asks on them. *cgroup* is
    what the name of its pods' cgroup begins with, *runc* another than the release's.
    """

    def __init__(
        self,
        node: Node,
        release: Release,
        log: Path,
        pause: str,
        *,
        is_up: Callable[[], bool] | None = None,
        cgroup: str = "enid-cri",
        runc: Path | None = None,
    ) -> None:
        self.node, self.release, self.log = node, release, log
        self._runc = runc or release.runc
        self._is_up = is_up or self._has_booted
        self.cgroup = f"/{cgroup}-{secrets.token_hex(4)}-{node.name}"
        self.process: subprocess.Popen[Any] | None = None
        self._pause, self.metrics = pause, METRICS
        self._log_began = 0
        self.configure()
        self.link_tools()

    def configure(self) -> None:
        """Write its settings, which go with /run."""
        text = SETTINGS.format(
            pause=self._pause, bin_dir=BIN_DIR, conf_dir=CONF_DIR, metrics=self.metrics
        )
        self.node.path(CONFIG).write_text(text)

    def link_tools(self) -> None:
        """Have the CNI project's plugins beside ours; twice is once."""
        for name in LINKED:
            link = self.node.path(BIN_DIR) / name
            link.unlink(missing_ok=True)
            link.symlink_to(self.release.plugins / name)

    def copy_tools(self) -> None:
        """Have them as files, as a node's image has: a pod that mounts the folder sees no more."""
        for name in LINKED:
            link = self.node.path(BIN_DIR) / name
            link.unlink()
            shutil.copy(self.release.plugins / name, link)

    # Life --------------------------------------------------------------------------------
    def start(self) -> None:
        """Start it, with a service manager's environment, and wait until it serves."""
        path = f"{self.release.folder}:{self._runc.parent}:{SEARCH}"
        program = self.release.folder / "containerd"
        with self.log.open("ab") as log:
            self._log_began = log.tell()
            self.process = self.node.popen(
                ["env", "-i", f"PATH={path}", str(program), "--config", CONFIG],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        poll(self._answers, f"containerd {self.release.name}", START_SECONDS)

    def _answers(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(f"containerd has ended:\n{self.said()}")
        return self._is_up()

    def _has_booted(self) -> bool:
        with self.log.open("rb") as log:
            log.seek(self._log_began)
            return b"containerd successfully booted" in log.read()

    def ctr(self, *words: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
        """Run containerd's own client on the node."""
        ctr = [str(self.release.folder / "ctr"), "--namespace", "k8s.io"]
        return self.node.run([*ctr, *words], timeout=120, **keywords)

    def said(self) -> str:
        """Return the end of its log."""
        return self.log.read_text()[-3000:]

    def load_image(self, image: Path) -> None:
        """Import an image from a tar, which may be where the node does not see it."""
        with image.open("rb") as tar:
            self.ctr("images", "import", "-", stdin=tar)

    def kill(self) -> None:
        """End it at once: shims and pods go on."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def restart(self) -> None:
        """Stop it as a service manager does, and start it again."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
        self.start()

    # What is left ------------------------------------------------------------------------
    def namespaces(self) -> list[str]:
        """Return the pods' network namespaces that are there."""
        folder = self.node.path(NETNS, inside=True)
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def results(self) -> list[Path]:
        """Return what libcni has kept, of every network but `lo`'s."""
        folder = self.node.path(RESULTS)
        return sorted(p for p in folder.glob("*") if not p.name.startswith("cni-loopback"))

    def processes(self) -> list[int]:
        """Return the processes of its pods: pauses, and what runs beside them."""
        return cgroups.processes(self.cgroup)

    def close(self) -> None:
        """End it, its pods and their cgroups."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        cgroups.remove(self.cgroup)
