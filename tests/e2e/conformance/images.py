"""The images that upstream's tests ask for, without their registry. Shell.

Upstream's are made of Alpine's programs and of Go programs; here the Go programs are upstream's own,
built from the same source as the tests, and Debian's programs stand for Alpine's. All images have the
same files, and differ in what they run.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from vpclab.cluster.credentials import Authority
from vpclab.cluster.parts import ROOT, programs, why
from vpclab.containerd import TOOLS
from vpclab.images import Image, make_image, write_images

USERLAND = ROOT / ".cache" / "userland" / "trixie" / "root"
"""What tools/fetch-userland fetches."""

MADE: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "agnhost": (("/agnhost",), ("pause",)),
    "distroless-iptables": ((), ("/bin/bash",)),
    "jessie-dnsutils": ((), ("/bin/bash",)),
    "nginx": (("nginx", "-g", "daemon off;"), ()),
    "pause": (("/agnhost", "pause"), ()),
    "regression-issue-74839": (("/regression-issue-74839",), ()),
}
"""What each runs, with which words if a pod gives none. `busybox` is an image of its own."""

BUSYBOX = "busybox"
REGISTRY = "registry.k8s.io/"

PLACES = ("uploads", "run", "var/log/nginx", "var/lib/nginx", "var/cache/nginx", "results")
"""Folders that programs write in."""

PASSWD = b"root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
GROUP = b"root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n"


NEEDED = ("e2e.test", "ginkgo", "agnhost", "agnhost-coredns", "regression-issue-74839")
"""What tools/build-kubernetes builds for the tests and their images."""


def missing() -> str:
    """Say why the tests cannot be run, nothing if they can."""
    for name in NEEDED:
        if not (file := programs() / name).exists():
            return f"{name} is not built ({why(file)}): tools/build-kubernetes conformance"
    return "" if USERLAND.is_dir() else "Debian's programs are not fetched: tools/fetch-userland"


def asked() -> dict[str, list[str]]:
    """Return the names of the images that the tests know, by what comes last in them."""
    done = subprocess.run(
        [programs() / "e2e.test", "--list-images"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    found: dict[str, list[str]] = {}
    for name in sorted(set(done.stdout.split())):
        if not name.startswith(REGISTRY):
            continue  # those that nobody may pull: tests look at the refusal
        found.setdefault(name.rpartition("/")[2].partition(":")[0], []).append(name)
    return found


def make(folder: Path) -> list[Path]:
    """Write the images to *folder*, by the names that the tests ask for; return the archives."""
    names = asked()
    images = [Image(name, *MADE[short]) for short in MADE for name in names.get(short, ())]
    made = [folder / "upstream.tar"]
    write_images(made[0], images, files(), links())
    for number, name in enumerate(names[BUSYBOX]):
        made.append(folder / f"busybox-{number}.tar")
        make_image(made[-1], TOOLS / "busybox", name)
    return made


def files() -> dict[str, bytes]:
    """Return what is in the images, by name."""
    found = {
        str(path.relative_to(USERLAND)): path.read_bytes()
        for path in sorted(USERLAND.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
    for name, part in (
        ("agnhost", "agnhost"),
        ("coredns", "agnhost-coredns"),
        ("regression-issue-74839", "regression-issue-74839"),
    ):
        found[name] = (programs() / part).read_bytes()
    found |= {f"{place}/.here": b"" for place in PLACES}
    pair = Authority("enid-lab").issue("localhost", hosts=["localhost"])
    served = {"localhost.crt": pair.certificate, "localhost.key": pair.key}  # by agnhost's porter
    return {**found, **served, "etc/passwd": PASSWD, "etc/group": GROUP}


def links() -> dict[str, str]:
    """Return the links in the images: Debian's own, and every program in /bin."""
    found = {
        str(path.relative_to(USERLAND)): str(path.readlink())
        for path in sorted(USERLAND.rglob("*"))
        if path.is_symlink()
    }
    found.pop("bin", None)  # a folder here, which images of the lab have
    for name in _applets():  # as in Alpine: what no package has is busybox'
        found[f"bin/{name}"] = "../usr/bin/busybox"
    for place in ("usr/sbin", "usr/bin"):
        for path in (USERLAND / place).iterdir():
            found[f"bin/{path.name}"] = f"../{place}/{path.name}"
    site = "etc/nginx/sites-enabled/default"
    return found | {"agnhost-2": "agnhost", site: "/etc/nginx/sites-available/default"}


def _applets() -> list[str]:
    """Return what busybox can be called by."""
    program = USERLAND / "usr/bin/busybox"
    done = subprocess.run(
        [program, "--list"], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.split()
