"""Other builds of enid for the lab's cluster: the next one, and one of the past. Shell.

    python -m tests.e2e.builds        # makes both into .cache/builds; `make e2e` does it first

The next one is this checkout with what a later version may change: its numbers in the kernel, a
word in its plugin's frames, a column and a table in its files. The past one is of a commit of ours.
Each is made once for what it is made of, by the tools of its own tree.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vpclab.images import ARCHITECTURES

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "builds"
TREE = (
    "LICENSE",
    "README.md",
    "cni",
    "config",
    "eni",
    "ipamd",
    "pyproject.toml",
    "requirements.lock",
    "tools",
)
"""What an image and its chart are made of."""

FETCHED = (
    "requirements.lock",
    "tools/build-image",
    "tools/build-plugin",
    "tools/build-cni-plugins",
)
"""What says which packages a build is made of: where these differ, it has a cache of its own."""

KEPT = 3
"""Builds of a name that are kept: each is some 40 MB."""

PAST = "ded81dc0477ed31c75fa283fcb63c1c064db6521"
"""The oldest commit that has chart and image as the lab's cluster takes them. There is no release
yet: the first one's tag is to stand here."""

Patch = tuple[str, str, str]
"""A file, what is in it, and what is there instead."""

ARCHITECTURE = ARCHITECTURES[platform.machine()]

NEXT_VERSION, PAST_VERSION = "0.99.0", "0.0.1"

SCHEMA_STEP = "db.executescript(SCHEMA)"


def _grows(table: str, indent: int) -> str:
    """Return statements that give a table a column, and the file a table."""
    lines = (
        SCHEMA_STEP,
        'db.execute("CREATE TABLE IF NOT EXISTS later (word TEXT)")',
        f'columns = [row[1] for row in db.execute("PRAGMA table_info({table})")]',
        'if "later" not in columns:',
        f"""    db.execute("ALTER TABLE {table} ADD COLUMN later TEXT NOT NULL DEFAULT 'none'")""",
    )
    return f"\n{' ' * indent}".join(lines)


NEXT: tuple[Patch, ...] = (
    ("cni/plugin.py", 'b"enid1 %d %d %d %d%b"', 'b"enid1 %d %d %d %d next=1%b"'),
    ("cni/dataplane.py", "PODS_TABLE = 5120", "PODS_TABLE = 5000"),
    ("cni/dataplane.py", "POD_PREFERENCE = 512", "POD_PREFERENCE = 600"),
    ("cni/dataplane.py", "PRIMARY_PREFERENCE = 1024", "PRIMARY_PREFERENCE = 1100"),
    ("cni/dataplane.py", "ENI_PREFERENCE = 1536", "ENI_PREFERENCE = 1600"),
    ("cni/dataplane.py", "OWN_PREFERENCE = 32765", "OWN_PREFERENCE = 32000"),
    ("cni/dataplane.py", "GUARD_METRIC = 4278198272", "GUARD_METRIC = 4278198000"),
    ("cni/nft.py", '"dstnat + 10"', '"dstnat + 5"'),
    ("ipamd/journal.py", SCHEMA_STEP, _grows("blocks", 12)),
    ("ipamd/leases.py", SCHEMA_STEP, _grows("leases", 8)),
)
"""What the next build does otherwise. Link groups stay: no version may change them."""


class BuildError(Exception):
    """A build cannot be made; the text says why."""


@dataclass(frozen=True, slots=True)
class Build:
    """One build: its tree, with what its tools have made in it."""

    tree: Path
    version: str

    @property
    def image(self) -> Path:
        """Its image."""
        return self.tree / "build" / f"enid-{ARCHITECTURE}.oci.tar"

    @property
    def plugin(self) -> Path:
        """The plugin that is in it."""
        return self.tree / "build" / f"enid-cni-{ARCHITECTURE}"

    @property
    def chart(self) -> Path:
        """Its chart."""
        return self.tree / "config" / "chart"

    @property
    def plugin_sum(self) -> str:
        """What the plugin's bytes are known by."""
        return hashlib.sha256(self.plugin.read_bytes()).hexdigest()


def this() -> Build:
    """Return the checkout's own build."""
    return Build(ROOT, _version(ROOT))


def next_build(*, makes: bool = False) -> Build:
    """Return the next one. Raises BuildError if it is not there, and is not to be made."""
    return _build("next", NEXT_VERSION, copy, NEXT, makes=makes)


def past_build(*, makes: bool = False) -> Build:
    """Return the one of the past. Raises BuildError, also where the checkout has no history."""
    return _build("past", PAST_VERSION, _archive, (), makes=makes)


def copy(tree: Path) -> None:
    """Put what this checkout has of an image and its chart into a folder."""
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree / name)


def _archive(tree: Path) -> None:
    command = ["git", "-C", str(ROOT), "archive", PAST, *TREE]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except FileNotFoundError:
        raise BuildError("there is no git here, so no past build") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        raise BuildError(f"this checkout has no commit {PAST[:7]}: {said[-1]}") from None
    subprocess.run(["tar", "-x", "-C", str(tree)], input=done.stdout, check=True)


def _build(
    name: str,
    version: str,
    fill: Callable[[Path], None],
    patches: tuple[Patch, ...],
    *,
    makes: bool,
) -> Build:
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        tree = Path(scratch) / "tree"
        tree.mkdir()
        fill(tree)
        for patch in (*patches, *named(tree, version)):
            apply(tree, patch)
        build = Build(CACHE / f"{name}-{digest(tree)}", version)
        if build.image.exists():
            return build
        if not makes:
            raise BuildError(f"the {name} build is not made: python -m tests.e2e.builds")
        shutil.rmtree(build.tree, ignore_errors=True)
        tree.rename(build.tree)
    _make(build)
    for former in sorted(CACHE.glob(f"{name}-*"), key=lambda one: one.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(former)
    return build


def named(tree: Path, version: str) -> tuple[Patch, ...]:
    """Return what gives a tree another version, for its image and its chart."""
    former = _version(tree)
    return (
        ("pyproject.toml", f'version = "{former}"', f'version = "{version}"'),
        ("config/chart/Chart.yaml", f"appVersion: {former}", f"appVersion: {version}"),
    )


def _version(tree: Path) -> str:
    lines = (tree / "pyproject.toml").read_text().splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("version = "))


def apply(tree: Path, patch: Patch) -> None:
    """Change a file. Raises BuildError where there is not just one place to."""
    name, former, new = patch
    text = (tree / name).read_text()
    if text.count(former) != 1:
        raise BuildError(f"{name} has {former!r} {text.count(former)} times: mend {__name__}")
    (tree / name).write_text(text.replace(former, new))


def digest(tree: Path) -> str:
    """Return what a folder's files are known by."""
    found = hashlib.sha256()
    for path in sorted(path for path in tree.rglob("*") if path.is_file()):
        found.update(str(path.relative_to(tree)).encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def _make(build: Build) -> None:
    """Make plugin and image. Raises BuildError with what was said last."""
    (build.tree / ".venv").symlink_to(ROOT / ".venv")
    is_fetched = all(_same(build.tree, name) for name in FETCHED)
    cache = ROOT / ".cache" if is_fetched else CACHE / "others-cache"
    cache.mkdir(exist_ok=True)
    (build.tree / ".cache").symlink_to(cache)
    for tool in ("build-plugin", "build-image"):
        done = subprocess.run(
            [build.tree / "tools" / tool, "--native"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise BuildError(f"{build.version}: tools/{tool}: {said[-1] if said else 'nothing'}")


def _same(tree: Path, name: str) -> bool:
    there = tree / name
    return there.exists() and _fetches(there) == _fetches(ROOT / name)


def _fetches(file: Path) -> list[str]:
    """Return the lines of a file that say what is fetched."""
    lines = file.read_text().splitlines()
    words = ("suite=", "python=", "packages=", "version=", "==", "    lib")
    return [line for line in lines if any(word in line for word in words)]


def main() -> int:
    """Make what is missing; one that cannot be made is said, and its checks are skipped."""
    for name, make in (("next", next_build), ("past", past_build)):
        began = time.monotonic()
        try:
            build = make(makes=True)
        except BuildError as error:
            print(f"enid: no {name} build: {error}", file=sys.stderr)  # noqa: T201 - its answer
        else:
            took = time.monotonic() - began
            print(f"enid: {name} build {build.version}, {took:.0f} s", file=sys.stderr)  # noqa: T201 - its answer
    return 0


if __name__ == "__main__":
    sys.exit(main())
