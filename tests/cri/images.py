"""One container image, made here without a registry: busybox, and its names. Shell.

It serves as sandbox ("pause") and as container. The layout is OCI's, in a tar, as `ctr images
import` takes it.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path
from typing import Any

from tests.cri.client import IMAGE

APPLETS = ("sh", "ping", "nc", "wget", "httpd", "ip", "sleep", "cat", "echo", "id")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MEDIA = "application/vnd.oci.image"


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _layer(busybox: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("bin", "etc", "tmp", "www", "proc", "sys", "dev"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        _put(tar, "bin/busybox", busybox, 0o755)
        _put(tar, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return out.getvalue()


def _put(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


def _described(kind: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": f"{MEDIA}.{kind}", "digest": _digest(data), "size": len(data)}


def make_image(out: Path, busybox: Path) -> None:
    """Write the image to *out*."""
    layer = _layer(busybox.read_bytes())
    machine = {"os": "linux", "architecture": ARCHITECTURES[platform.machine()]}
    entry = {"Entrypoint": ["/bin/busybox", "sleep", "2147483647"], "Env": ["PATH=/bin"]}
    rootfs = {"type": "layers", "diff_ids": [_digest(layer)]}
    config = json.dumps({**machine, "config": entry, "rootfs": rootfs}).encode()
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": f"{MEDIA}.manifest.v1+json",
        "config": _described("config.v1+json", config),
        "layers": [_described("layer.v1.tar", layer)],
    }).encode()  # fmt: skip
    named = {"annotations": {"io.containerd.image.name": IMAGE}, "platform": machine}
    index = {
        "schemaVersion": 2,
        "manifests": [{**_described("manifest.v1+json", manifest), **named}],
    }
    with tarfile.open(out, "w") as tar:
        _put(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _put(tar, "index.json", json.dumps(index).encode())
        for blob in (manifest, config, layer):
            _put(tar, f"blobs/sha256/{_digest(blob)[7:]}", blob)
