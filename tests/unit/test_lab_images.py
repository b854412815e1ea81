"""Images of the lab, as the archive has them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from vpclab.images import Image, write_images

FILES = {"usr/lib/ld.so": b"\x7fELF...", "bin/run": b"#!/bin/sh\n", "bin/notes": b"not run\n"}
IMAGES = [Image("a.test/one:1", ["/bin/run"], ["on"]), Image("a.test/two:1")]


@pytest.fixture
def archive(tmp_path: Path) -> dict[str, bytes]:
    out = tmp_path / "images.tar"
    write_images(out, IMAGES, FILES, {"lib64": "usr/lib"})
    with tarfile.open(out) as tar:
        found = [(entry.name, tar.extractfile(entry)) for entry in tar]
        return {name: stream.read() for name, stream in found if stream}


def blob(archive: dict[str, bytes], described: dict[str, Any]) -> bytes:
    return archive[f"blobs/sha256/{described['digest'].removeprefix('sha256:')}"]


def manifests(archive: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    return {
        one["annotations"]["io.containerd.image.name"]: json.loads(blob(archive, one))
        for one in json.loads(archive["index.json"])["manifests"]
    }


def test_each_name_runs_its_own_and_all_have_the_one_layer(archive: dict[str, bytes]) -> None:
    found = manifests(archive)
    assert list(found) == ["a.test/one:1", "a.test/two:1"]
    settings = [json.loads(blob(archive, one["config"]))["config"] for one in found.values()]
    assert [(one["Entrypoint"], one["Cmd"]) for one in settings] == [
        (["/bin/run"], ["on"]),
        ([], []),
    ]
    assert len({one["layers"][0]["digest"] for one in found.values()}) == 1
    assert len(archive) == 2 + 1 + 2 * len(IMAGES)


def test_what_begins_like_a_program_may_be_run(archive: dict[str, bytes]) -> None:
    layer = blob(archive, manifests(archive)["a.test/one:1"]["layers"][0])
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        modes = {name: tar.getmember(name).mode for name in FILES}
        assert tar.getmember("lib64").linkname == "usr/lib"
    assert modes == {"usr/lib/ld.so": 0o755, "bin/run": 0o755, "bin/notes": 0o644}
