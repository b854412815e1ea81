"""Container images, made here without a registry. Shell.

One layer each; the layout is OCI's, in a tar, as `ctr images import` takes it. `make_image` is that
of busybox and its names, which serves as sandbox ("pause") and as container.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

APPLETS = (
    "sh", "ping", "nc", "wget", "httpd", "ip", "sleep", "cat", "echo", "id", "nslookup", "ls",
    "mkdir", "chmod", "printf", "timeout", "true", "hostname", "head", "grep", "test",
)  # fmt: skip
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MEDIA = "application/vnd.oci.image"
PROGRAMS = (b"\x7fELF", b"#!")
"""How a file begins that is run, or that the kernel starts a program by: they may be."""

FOLDERS = ("bin", "etc", "tmp", "www", "proc", "sys", "dev")


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _layer(files: Mapping[str, bytes], links: Mapping[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in FOLDERS:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name, content in files.items():
            _put(tar, name, content, 0o755 if content.startswith(PROGRAMS) else 0o644)
        for name, target in links.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
    return out.getvalue()


def _put(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


def _described(kind: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": f"{MEDIA}.{kind}", "digest": _digest(data), "size": len(data)}


def make_image(out: Path, busybox: Path, name: str) -> None:
    """Write busybox's image, by this *name*, to *out*."""
    files = {"bin/busybox": busybox.read_bytes(), "etc/passwd": b"root:x:0:0:root:/:/bin/sh\n"}
    links = {f"bin/{applet}": "busybox" for applet in APPLETS}
    write_image(out, name, ("/bin/busybox", "sleep", "2147483647"), files, links)


@dataclass(frozen=True, slots=True)
class Image:
    """One name for files: *entry* is what it runs, with *words* where a pod gives no others."""

    name: str
    entry: Sequence[str] = ()
    words: Sequence[str] = ()


def write_image(
    out: Path,
    name: str,
    entry: Sequence[str],
    files: Mapping[str, bytes],
    links: Mapping[str, str] | None = None,
) -> None:
    """Write an image of these *files*, by their names in it, to *out*; *entry* is what it runs."""
    write_images(out, [Image(name, entry)], files, links or {})


def write_images(
    out: Path, images: Sequence[Image], files: Mapping[str, bytes], links: Mapping[str, str]
) -> None:
    """Write images of the same *files*, by their names in them, to *out*: all share a layer."""
    layer = _layer(files, links)
    machine = {"os": "linux", "architecture": ARCHITECTURES[platform.machine()]}
    blobs, named = [layer], []
    for image in images:
        config, manifest = _configured(image, layer, machine)
        blobs += [config, manifest]
        annotations = {"annotations": {"io.containerd.image.name": image.name}, "platform": machine}
        named.append({**_described("manifest.v1+json", manifest), **annotations})
    index = {"schemaVersion": 2, "manifests": named}
    with tarfile.open(out, "w") as tar:
        _put(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _put(tar, "index.json", json.dumps(index).encode())
        for blob in dict.fromkeys(blobs):
            _put(tar, f"blobs/sha256/{_digest(blob)[7:]}", blob)


def _configured(image: Image, layer: bytes, machine: Mapping[str, str]) -> tuple[bytes, bytes]:
    """Return the image's configuration and manifest."""
    settings = {
        "Entrypoint": list(image.entry),
        "Cmd": list(image.words),
        "Env": ["PATH=/bin"],
    }
    rootfs = {"type": "layers", "diff_ids": [_digest(layer)]}
    config = json.dumps({**machine, "config": settings, "rootfs": rootfs}).encode()
    manifest = {
        "schemaVersion": 2, "mediaType": f"{MEDIA}.manifest.v1+json",
        "config": _described("config.v1+json", config),
        "layers": [_described("layer.v1.tar", layer)],
    }  # fmt: skip
    return config, json.dumps(manifest).encode()
