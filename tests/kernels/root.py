"""The small root that a guest runs on: Debian's packages, the lock's wheels, a kernel's modules,
this checkout. Shell.

Each part is an archive of its own in .cache/kernels, named after what it was made from. Bytecode
is made here, once: an emulated processor would take a minute over it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kernels import cpio
from tests.kernels.debian import Release, run, unpack
from tests.tools.pure import ROOT

CACHE = ROOT / ".cache" / "kernels"
PACKAGES = (
    "python3-minimal", "libpython3-stdlib", "nftables", "iproute2", "iptables", "util-linux",
    "mount", "kmod", "dash", "coreutils", "procps", "grep", "sed",
)  # fmt: skip
"""The Debian packages of a guest."""

WHEELS = (
    "blinker", "boto3", "botocore", "cachetools", "certifi", "cffi", "charset-normalizer", "click",
    "cryptography", "flask", "flask-cors", "hypothesis", "idna", "iniconfig", "itsdangerous",
    "jinja2", "jmespath", "markdown-it-py", "markupsafe", "mdurl", "moto", "packaging", "pluggy",
    "prometheus-client", "pycparser", "pygments", "pyroute2", "pytest", "python-dateutil",
    "pyyaml", "requests", "responses", "rich", "s3transfer", "six", "sortedcontainers",
    "typing-extensions", "urllib3", "werkzeug", "xmltodict",
)  # fmt: skip
"""The Python packages of a guest, in the lock's versions."""

SERVICES = {
    "ec2", "sts", "iam", "autoscaling", "cloudwatch", "core", "elb", "elbv2", "events", "moto_api",
    "moto_server", "s3", "utilities",
}  # fmt: skip
"""Of the 400 services that botocore and moto know: those that the embedded VPC answers for, what
moto's of them import, and whom they ask of an instance's end."""

MODULES = (
    "kernel/net", "kernel/lib", "kernel/crypto", "kernel/arch", "kernel/drivers/net/veth*",
    "kernel/drivers/net/dummy*", "kernel/drivers/net/ifb*", "kernel/drivers/net/tun*",
    "kernel/drivers/net/bonding", "kernel/drivers/char/hw_random",
)  # fmt: skip
"""What a guest may load of a kernel's modules; it has no disk and no network card."""

CODE = ("cni", "eni", "ipamd", "vpclab", "tests", "config")
PLUGINS = "enid-cni*"
"""In build/, what `make plugin` has made; a guest is asked about those of its processor."""

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that can be booted: its version, its image, its modules' archive."""

    version: str
    image: Path
    modules: Path


@dataclass(frozen=True, slots=True)
class Userland:
    """A release's programs and the lock's wheels, and where they lie unpacked."""

    tree: Path
    archive: Path


def release(name: str, processor: str) -> Release:
    """Return a release, with its package lists read if they have never been."""
    found = Release(name, processor, CACHE / f"apt-{name}-{processor}")
    if not (found.folder / "sources.list").exists():
        found.refresh()
    return found


def kernel(of: Release) -> Kernel:
    """Return the release's newest cloud kernel, unpacked."""
    deb = of.kernel()
    folder = CACHE / "kernel" / f"{deb.stem}-{_hash(*MODULES)}"
    with _made(folder) as draft:
        if draft is not None:
            _unpack_kernel(deb, draft)
    (image,) = (folder / "boot").glob("vmlinu*")
    return Kernel(image.name.partition("-")[2], image, folder / "modules.cpio")


def _unpack_kernel(deb: Path, folder: Path) -> None:
    unpack([deb], folder)
    (modules,) = (*folder.glob("lib/modules/*"), *folder.glob("usr/lib/modules/*"))
    kept = folder / "kept" / "usr" / "lib" / "modules" / modules.name
    for pattern in MODULES:
        for path in modules.glob(pattern):
            to = kept / path.relative_to(modules)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(path, to) if path.is_dir() else shutil.copy(path, to)
    for path in modules.glob("modules.*"):
        shutil.copy(path, kept)
    (folder / "kept" / "lib").symlink_to("usr/lib")  # as in a Debian, where depmod looks
    run(["depmod", "-b", str(folder / "kept"), modules.name])
    (folder / "kept" / "lib").unlink()
    cpio.pack(folder / "kept", folder / "modules.cpio")
    for name in ("kept", "lib", "usr"):
        shutil.rmtree(folder / name, ignore_errors=True)


def userland(of: Release) -> Userland:
    """Return the release's programs and Python's packages for them."""
    lock = _locked(WHEELS)
    key = _hash(*PACKAGES, lock, Path(__file__).read_text())
    folder = CACHE / "userland" / f"{of.name}-{of.processor}-{key}"
    with _made(folder) as draft:
        if draft is not None:
            tree = draft / "tree"
            _unpack_userland(of, tree)
            _install_wheels(tree, of.processor, lock)
            _compile(tree, of.name, ["usr/lib/python3", _library(tree), "site"])
            cpio.pack(tree, draft / "root.cpio")
    return Userland(folder / "tree", folder / "root.cpio")


def _unpack_userland(of: Release, tree: Path) -> None:
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    for name in ("proc", "sys", "dev", "run", "tmp", "root", "etc", "var/lib", "var/log", "opt"):
        (tree / name).mkdir(parents=True)
    unpack(of.packages(PACKAGES), tree)
    # What packages leave to scripts that are not run here.
    for name in ("iptables", "iptables-restore", "iptables-save"):
        link = tree / "usr" / "sbin" / name
        if not link.is_symlink():
            link.symlink_to("xtables-nft-multi")
    shell = tree / "usr" / "bin" / "sh"
    if not shell.is_symlink():
        shell.symlink_to("dash")
    (tree / "etc" / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
    )
    (tree / "etc" / "group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (tree / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (tree / "etc" / "resolv.conf").touch()
    found = tree / "usr" / "lib" / "python3" / "dist-packages" / "enid.pth"
    found.parent.mkdir(parents=True, exist_ok=True)
    found.write_text("/site\n/enid\n")


def _locked(names: Sequence[str]) -> str:
    """Return the lock's lines for *names*."""
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text())
    found = {entry.partition("==")[0]: entry for entry in entries if "==" in entry}
    return "\n".join(found[name] for name in names) + "\n"


def _library(tree: Path) -> str:
    (found,) = tree.glob("usr/lib/python3.[0-9]*")
    return str(found.relative_to(tree))


def _install_wheels(tree: Path, processor: str, lock: str) -> None:
    version = _library(tree).rpartition("python")[2]
    machine = MACHINES[processor]
    wish = tree.parent / "requirements.txt"
    wish.write_text(lock)
    tags = ("manylinux2014", "manylinux_2_17", "manylinux_2_28", "manylinux_2_34")
    platforms = [word for tag in tags for word in ("--platform", f"{tag}_{machine}")]
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input",
           "--no-deps", "--no-compile", "--require-hashes", "--only-binary=:all:", *platforms,
           "--python-version", version, "--target", str(tree / "site"), "-r", str(wish)]  # fmt: skip
    run(pip)
    _thin(tree / "site")


def _thin(site: Path) -> None:
    """Leave out the services that nobody calls, and the packages' own tests."""
    for folder in (site / "botocore" / "data", site / "moto"):
        for path in folder.iterdir():
            if path.is_dir() and path.name not in SERVICES:
                shutil.rmtree(path)
    for path in [p for p in site.rglob("tests") if p.is_dir()]:
        shutil.rmtree(path, ignore_errors=True)


def _compile(tree: Path, name: str, folders: Sequence[str]) -> None:
    """Make bytecode with the release's own Python, which never looks at the source again."""
    python = _python(name)
    there = [str(tree / folder) for folder in folders if (tree / folder).is_dir()]
    words = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    words += ["-s", str(tree), "-p", "/"]  # where a traceback says that it was
    run([*python, *words, *there])


def _python(name: str) -> list[str]:
    """Return how the Python of the release *name* is run here, for this machine's processor."""
    own = run(["dpkg", "--print-architecture"]).strip()
    tree = CACHE / "python" / name
    with _made(tree) as draft:
        if draft is not None:
            packages = release(name, own).packages(("python3-minimal", "libpython3-stdlib"))
            for folder in ("lib", "lib64", "bin"):
                (draft / "usr" / folder).mkdir(parents=True)
                (draft / folder).symlink_to(f"usr/{folder}")
            unpack(packages, draft)
    libraries = [str(path) for path in tree.glob("usr/lib/*-linux-gnu")]
    (loader,) = (*tree.glob("usr/lib*/ld-linux-*.so.*"),)
    (program,) = tree.glob("usr/bin/python3.[0-9]*[0-9]")
    return [
        "env", f"PYTHONHOME={tree}/usr", str(loader), "--library-path", ":".join(libraries),
        str(program),
    ]  # fmt: skip


def code(name: str, guest: str) -> Path:
    """Return this checkout's archive for one guest, with bytecode of the release's Python."""
    folder = CACHE / "code" / guest
    shutil.rmtree(folder, ignore_errors=True)
    tree = folder / "tree" / "enid"
    tree.mkdir(parents=True)
    for part in CODE:
        shutil.copytree(
            ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis")
        )
    shutil.copy(ROOT / "pyproject.toml", tree)
    _describe(tree)
    (tree / "build").mkdir()
    for file in (ROOT / "build").glob(PLUGINS):
        if not file.is_symlink():
            shutil.copy(file, tree / "build")
    _compile(folder / "tree", name, ["enid"])
    first = folder / "tree" / "init"
    shutil.copy(ROOT / "tests" / "kernels" / "inside.py", first)
    first.chmod(0o755)
    cpio.pack(folder / "tree", folder / "code.cpio")
    return folder / "code.cpio"


def _describe(tree: Path) -> None:
    """Say which version this is, as an installation does."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folder = tree / f"{project['name']}-{project['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )


@contextmanager
def _made(folder: Path) -> Iterator[Path | None]:
    """Give a draft of *folder* to fill, or None if it is there; a draft that failed goes."""
    if folder.exists():
        yield None
        return
    draft = folder.with_name(f"{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    draft.rename(folder)


def _hash(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]
