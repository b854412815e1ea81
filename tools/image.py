"""An OCI image from folders, without a registry, a daemon or root: layers, archive, SBOM. Shell.

    python tools/image.py lock                          the daemon's part of the lock
    python tools/image.py write ... OUT ARCHITECTURE LAYER...    folders, the lowest first

`tools/build-image` fills the folders. The rule to keep: the same files give the same bytes, whoever
made them and when. So owner, times and order are ours, not the disk's, and of a mode only what
differs between a program and a text. Why this is no buildah's work: docs/adr/0034.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import sys
import tarfile
import tomllib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "enid.dev/enid"

TMP = ("tmp", "var/tmp")
"""Folders that everybody may write in, where somebody mounts a disk there."""

MEDIA = "application/vnd.oci.image"

ENV = ("PATH=/usr/sbin:/usr/bin", "LANG=C.UTF-8")

UNUSED = {"pygments", "markdown-it-py", "mdurl"}
"""Of rich's: it shows code and Markdown with them, and we show tables."""

REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")

SPACE = uuid.UUID("3f7a1c1e-8f0b-5d5e-9f52-6c1d3b7f0a11")
"""In which SBOMs are numbered, by what they are of: the same image, the same number."""


# The lock --------------------------------------------------------------------------------
def runtime_lock(lock: str, roots: Iterable[str]) -> str:
    """Return the paragraphs of *lock* that *roots* need, by its own remarks of what needs what."""
    paragraphs = {
        canonical(text): text for text in re.split(r"\n(?=[a-zA-Z])", lock) if "==" in text
    }
    wanted = {canonical(root) for root in roots}
    while more := {
        name
        for name, text in paragraphs.items()
        if name not in wanted | UNUSED and wanted & set(_needed_by(text))
    }:
        wanted |= more
    return "\n".join(text.rstrip() for name, text in paragraphs.items() if name in wanted) + "\n"


def canonical(requirement: str) -> str:
    """Return the name that *requirement* begins with, as one and not as its author spells it."""
    return re.sub(r"[-_.]+", "-", REQUIREMENT.findall(requirement)[0]).lower()


def _needed_by(paragraph: str) -> Iterator[str]:
    _, _, remarks = paragraph.partition("# via")
    for line in remarks.splitlines():
        if words := line.strip(" #"):
            yield canonical(words)


# Layers ----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes of the image, and of what kind they are."""

    media: str
    content: bytes

    @property
    def digest(self) -> str:
        """What it is called."""
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"

    @property
    def descriptor(self) -> dict[str, Any]:
        """How another blob names it."""
        return {"mediaType": self.media, "digest": self.digest, "size": len(self.content)}


def layer(folder: Path, packed: Path | None = None) -> tuple[Blob, str]:
    """Return *folder* as a layer, and the digest that it has unpacked.

    Packing is most of what an image takes: what is in the folder *packed* is not packed again.
    """
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            _add(archive, path, path.relative_to(folder).as_posix())
    raw = tar.getvalue()
    digest = hashlib.sha256(raw).hexdigest()
    return Blob(f"{MEDIA}.layer.v1.tar+gzip", _packed(raw, digest, packed)), f"sha256:{digest}"


def _packed(raw: bytes, digest: str, folder: Path | None) -> bytes:
    if folder is None:
        return gzip.compress(raw, 9, mtime=0)
    file = folder / f"{digest}.gz"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(f".{os.getpid()}")
        draft.write_bytes(gzip.compress(raw, 9, mtime=0))
        draft.replace(file)
    return file.read_bytes()


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    entry = tarfile.TarInfo(name)
    if path.is_symlink():
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
        archive.addfile(entry)
    elif path.is_dir():
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name in TMP else 0o755
        archive.addfile(entry)
    else:
        content = path.read_bytes()
        entry.size, entry.mode = len(content), 0o755 if path.stat().st_mode & 0o100 else 0o644
        archive.addfile(entry, io.BytesIO(content))


# The image -------------------------------------------------------------------------------
def archive(architecture: str, version: str, layers: Sequence[tuple[Blob, str]]) -> bytes:
    """Return the image as the tar that `ctr images import`, `skopeo` and `podman load` read."""
    config = _json(
        f"{MEDIA}.config.v1+json",
        {
            "created": "1970-01-01T00:00:00Z",
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Env": list(ENV),
                "Entrypoint": ["/usr/bin/ipamd"],
                "WorkingDir": "/",
                "Labels": {
                    "org.opencontainers.image.title": "enid",
                    "org.opencontainers.image.version": version,
                    "org.opencontainers.image.licenses": "Apache-2.0",
                },
            },
            "rootfs": {"type": "layers", "diff_ids": [unpacked for _, unpacked in layers]},
        },
    )
    manifest = _json(
        f"{MEDIA}.manifest.v1+json",
        {
            "schemaVersion": 2,
            "mediaType": f"{MEDIA}.manifest.v1+json",
            "config": config.descriptor,
            "layers": [blob.descriptor for blob, _ in layers],
        },
    )
    index = {
        "schemaVersion": 2,
        "mediaType": f"{MEDIA}.index.v1+json",
        "manifests": [
            {
                **manifest.descriptor,
                "platform": {"architecture": architecture, "os": "linux"},
                # containerd takes the first as the image's name, others the second as its tag.
                "annotations": {
                    "io.containerd.image.name": f"{NAME}:{version}",
                    "org.opencontainers.image.ref.name": version,
                },
            }
        ],
    }
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": _bytes(index)}
    for blob in (manifest, config, *(blob for blob, _ in layers)):
        files[f"blobs/sha256/{blob.digest.removeprefix('sha256:')}"] = blob.content
    return _tar(files)


def _json(media: str, what: Mapping[str, Any]) -> Blob:
    return Blob(media, _bytes(what))


def _bytes(what: Mapping[str, Any]) -> bytes:
    return json.dumps(what, separators=(",", ":"), sort_keys=True).encode()


def _tar(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


# What is in it ---------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """What an image was made from, as others have written it down."""

    debian: str
    """Packages in the image, as sha256sum prints them."""
    python: tuple[str, ...]
    """Each Python package's METADATA."""
    linked: str
    """`build/enid-cni.from`: a libc and a Python are linked into the plugin."""
    modules: str
    """Go modules in others' plugins, each with its version."""


def bill(architecture: str, version: str, image: bytes, origins: Origins) -> dict[str, Any]:
    """Return the SBOM, as CycloneDX."""
    digest = hashlib.sha256(image).hexdigest()
    linked = _linked(origins.linked, architecture)
    parts = [
        *_debian(origins.debian, architecture, "in the image"),
        *map(_python, origins.python),
        *_debian(linked, architecture, "linked into enid-cni"),
        *map(_module, origins.modules.splitlines()),
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(SPACE, digest)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "name": NAME,
                "version": version,
                "bom-ref": "image",
                "hashes": [{"alg": "SHA-256", "content": digest}],
                "licenses": [{"license": {"id": "Apache-2.0"}}],
                "properties": [{"name": "architecture", "value": architecture}],
            }
        },
        "components": sorted(parts, key=lambda part: str(part["bom-ref"])),
    }


def _linked(text: str, architecture: str) -> str:
    """Return the lines of *text* about packages of *architecture*, without that word."""
    lines = (line.partition(": ") for line in text.splitlines())
    return "\n".join(rest for word, _, rest in lines if word == architecture and ".deb" in rest)


def _debian(sums: str, architecture: str, where: str) -> Iterator[dict[str, Any]]:
    for line in sums.splitlines():
        digest, file = line.split()
        name, version, _ = file.rsplit("_", 2)
        version = version.replace("%3a", ":")
        url = f"pkg:deb/debian/{name}@{version}?arch={architecture}&distro=debian-13"
        yield {
            "type": "library",
            "bom-ref": f"{url}#{where.replace(' ', '-')}",
            "name": name,
            "version": version,
            "purl": url,
            "hashes": [{"alg": "SHA-256", "content": digest}],
            "properties": [{"name": "where", "value": where}],
        }


def _module(line: str) -> dict[str, Any]:
    name, version = line.split()
    url = f"pkg:golang/{name}@{version}"
    return {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url}


def _python(metadata: str) -> dict[str, Any]:
    fields = dict(
        line.split(": ", 1) for line in metadata.partition("\n\n")[0].splitlines() if ": " in line
    )
    name, version = fields["Name"], fields["Version"]
    url = f"pkg:pypi/{canonical(name)}@{version}"
    said = fields.get("License-Expression") or fields.get("License", "").strip()
    return {
        "type": "library",
        "bom-ref": url,
        "name": name,
        "version": version,
        "purl": url,
        **({"licenses": [{"license": {"name": said[:80]}}]} if said else {}),
    }


# The command -----------------------------------------------------------------------------
PACKED = Path(".cache/image/packed")
"""Layers as they were packed, by what is in them: Debian's and the libraries change seldom."""


def project() -> Mapping[str, Any]:
    """Return what pyproject.toml says of the project."""
    said: Mapping[str, Any] = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    return said


def _write(out: Path, architecture: str, folders: Sequence[Path], texts: Sequence[Path]) -> None:
    version = project()["version"]
    image = archive(architecture, version, [layer(folder, PACKED) for folder in folders])
    found = (path for folder in folders for path in folder.rglob("*.dist-info/METADATA"))
    sums, modules = texts
    origins = Origins(
        debian=sums.read_text(),
        python=tuple(path.read_text() for path in found),
        linked=Path("build/enid-cni.from").read_text(),
        modules=modules.read_text(),
    )
    said = bill(architecture, version, image, origins)
    out.write_bytes(image)
    name = out.name.removesuffix(".oci.tar")
    out.with_name(f"{name}.sbom.json").write_text(json.dumps(said, indent=1) + "\n")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="An OCI image from folders.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("lock")
    write = commands.add_parser("write")
    write.add_argument("--sums", type=Path, required=True, help="Debian's packages, by sha256sum")
    write.add_argument("--modules", type=Path, required=True, help="Go's, in others' plugins")
    write.add_argument("out", type=Path)
    write.add_argument("architecture")
    write.add_argument("layers", type=Path, nargs="+")
    arguments = parser.parse_args()
    if arguments.command == "lock":
        lock = Path("requirements.lock").read_text()
        sys.stdout.write(runtime_lock(lock, project()["dependencies"]))
    else:
        texts = (arguments.sums, arguments.modules)
        _write(arguments.out, arguments.architecture, arguments.layers, texts)


if __name__ == "__main__":
    main()
