"""Debian's packages of any release and processor, beside this machine's own. Shell (apt, dpkg).

apt is given folders of its own: nothing is installed, and what this machine has is not looked at.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
DEFAULT = "http://deb.debian.org"
ARCHIVE = "http://archive.debian.org"
"""Where releases go some time after their support has ended."""

LEFT_OUT = (
    "./usr/share/doc", "./usr/share/man", "./usr/share/locale", "./usr/share/info",
    "./usr/share/perl*", "./usr/lib/*/perl*", "./usr/bin/perl*", "./usr/share/bash-completion",
    "./usr/share/lintian", "./usr/share/zoneinfo", "./usr/lib/*/gconv", "./var/cache",
    "./usr/lib/*/libperl*", "./usr/lib/python3*/pydoc_data", "./usr/lib/systemd", "./usr/lib/udev",
)  # fmt: skip
"""What nothing in a guest opens."""

Progress = Callable[[str], None]


class PackageError(Exception):
    """apt or dpkg could not: what was tried, and what it said last."""


@dataclass(frozen=True, slots=True)
class Release:
    """One Debian release for one processor, with apt's files about it in *folder*."""

    name: str
    processor: str
    folder: Path

    def kernel(self) -> Path:
        """Return the package of the newest cloud kernel."""
        return self._fetch([f"linux-image-cloud-{self.processor}"], r"/linux-image-\d")[0]

    def packages(self, names: Iterable[str]) -> list[Path]:
        """Return the packages *names* and all that they depend on."""
        return self._fetch(list(names), "")

    def _fetch(self, names: list[str], only: str) -> list[Path]:
        wanted = [line for line in self._links(names) if re.search(only, line[0])]
        if not wanted:
            raise PackageError(f"Debian {self.name} has no package that {' '.join(names)} needs")
        debs = [self.folder / "archives" / name for _, name in wanted]
        if not all(deb.exists() for deb in debs):
            # A package is fetched by the name and version that its file has.
            exact = ["=".join(name.split("_")[:2]).replace("%3a", ":") for _, name in wanted]
            self._apt("get", "download", *exact, cwd=self.folder / "archives")
        missing = [deb.name for deb in debs if not deb.exists()]
        if missing:
            raise PackageError(f"apt-get download did not leave {', '.join(missing)}")
        return debs

    def _links(self, names: list[str]) -> Iterator[tuple[str, str]]:
        """Yield address and file name of each package that installing *names* would fetch."""
        words = ["install", "--print-uris", "-qq", "-y", "--no-install-recommends", *names]
        for line in self._apt("get", *words).splitlines():
            match = re.match(r"'(\S+)' (\S+\.deb) ", line)
            if match:
                yield match[1], match[2]

    def refresh(self) -> None:
        """Read the release's package lists; of an archived release from the archive."""
        for part in ("lists/partial", "none/partial", "archives"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        first, said = mirror(), ""
        for site in dict.fromkeys((first, ARCHIVE)):
            (self.folder / "sources.list").write_text(
                f"deb [signed-by={KEYS}] {site}/debian {self.name} main\n"
                f"deb [signed-by={KEYS}] {site}/debian-security {self.name}-security main\n"
            )
            try:
                self._apt("get", "update", "-q", "--error-on=any")
            except PackageError as error:
                said = said or str(error)
            else:
                return
        raise PackageError(said)

    def _apt(self, program: str, *words: str, cwd: Path | None = None) -> str:
        here = self.folder
        options = {
            "Dir::Etc::SourceList": here / "sources.list",
            "Dir::Etc::SourceParts": "-",
            "Dir::State::Lists": here / "lists",
            "Dir::State::Status": here / "status",
            "Dir::Cache": here,
            "Dir::Cache::Archives": here / "none",  # what is there is not named by --print-uris
            "APT::Architecture": self.processor,
            "APT::Architectures": self.processor,
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Check-Valid-Until": "false",  # an archived release is signed no more
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        }
        given = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return run([f"apt-{program}", *given, *words], cwd=cwd)


def mirror() -> str:
    """Return the site that this machine's apt uses for Debian."""
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    found = re.search(r"^(\S+)/debian/$", run(words), re.MULTILINE)
    return found[1] if found else DEFAULT


def unpack(debs: Iterable[Path], root: Path) -> None:
    """Unpack packages into *root* without running anything of theirs."""
    left_out = [f"--exclude={pattern}" for pattern in LEFT_OUT]
    for deb in debs:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as tar:
            words = ["tar", "-x", "--keep-directory-symlink", "-C", str(root), *left_out]
            done = subprocess.run(words, stdin=tar.stdout, capture_output=True, check=False)
        if done.returncode or tar.returncode:
            raise PackageError(f"{deb.name} cannot be unpacked: {done.stderr.decode()[-200:]}")


def run(words: list[str], cwd: Path | None = None) -> str:
    """Return what a program prints. Raises PackageError with what it said last."""
    try:
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise PackageError(f"{words[0]} is not installed here") from None
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise PackageError(f"{words[0]}: {said[-1] if said else f'status {done.returncode}'}")
    return done.stdout
