"""The image that `make image` has built, unpacked as a runtime would, and programs run in it."""

from __future__ import annotations

import json
import platform
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.patience import PATIENCE
from tests.tools.pure import ROOT

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
NATIVE = ARCHITECTURES[platform.machine()]

ENTER = """
mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" && exec /usr/sbin/chroot "$@"
"""


@dataclass(frozen=True, slots=True)
class Image:
    """An image's files below *root*, and what is said of them."""

    architecture: str
    root: Path

    @property
    def bill(self) -> dict[str, object]:
        """The SBOM."""
        path = ROOT / "build" / f"enid-{self.architecture}.sbom.json"
        said: dict[str, object] = json.loads(path.read_text())
        return said

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the image, with nothing of this machine's but /dev and /proc."""
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", ENTER, "sh", str(self.root), *argv],
            env={"PATH": "/usr/sbin:/usr/bin"},
            capture_output=True,
            text=True,
            timeout=60 * PATIENCE,
            check=False,
        )

    def python(self, code: str, *arguments: str) -> str:
        """Return what the image's Python prints."""
        done = self.run("/usr/bin/python3.13", "-I", "-c", code, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def programs(self) -> list[Path]:
        """Return every ELF file."""
        files = (path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink())
        return [path for path in files if path.read_bytes()[:4] == b"\x7fELF"]


def unpack(architecture: str, root: Path) -> Image:
    archive = ROOT / "build" / f"enid-{architecture}.oci.tar"
    if not archive.exists():
        pytest.skip(f"{archive} is not built: `make image`")
    with tarfile.open(archive) as tar:

        def read(name: str) -> bytes:
            member = tar.extractfile(name)
            assert member is not None
            return member.read()

        def blob(digest: str) -> bytes:
            return read(f"blobs/{digest.replace(':', '/')}")

        manifest = json.loads(blob(json.loads(read("index.json"))["manifests"][0]["digest"]))
        layers: Sequence[bytes] = [blob(layer["digest"]) for layer in manifest["layers"]]
    for layer in layers:
        subprocess.run(["tar", "-xz", "-C", str(root)], input=layer, check=True)
    return Image(architecture, root)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image for this machine."""
    return unpack(NATIVE, tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="session", params=sorted(ARCHITECTURES.values()))
def each(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image for each architecture that is built; its programs may not run here."""
    return unpack(request.param, tmp_path_factory.mktemp(request.param))
