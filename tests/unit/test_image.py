"""tools/image.py: the daemon's part of the lock, and the same bytes for the same files."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from tests.tools.pure import ROOT
from tools import image

LOCK = """# made by a tool
boto3==1.2 \\
    --hash=sha256:aa
    # via enid (pyproject.toml)
botocore==1.2 \\
    --hash=sha256:bb
    # via
    #   boto3
    #   s3transfer
moto==5.0 \\
    --hash=sha256:cc
    # via enid (pyproject.toml)
urllib3==2.8 ; python_version > '3' \\
    --hash=sha256:dd
    # via
    #   botocore
    #   moto
werkzeug==3.1 \\
    --hash=sha256:ee
    # via moto
"""


def test_the_daemons_part_of_the_lock_is_what_its_dependencies_need() -> None:
    part = image.runtime_lock(LOCK, ["boto3>=1"])
    assert [line.split("==")[0] for line in part.splitlines() if "==" in line] == [
        "boto3",
        "botocore",
        "urllib3",
    ]


def test_a_part_keeps_its_hashes() -> None:
    assert "--hash=sha256:dd" in image.runtime_lock(LOCK, ["boto3>=1"])


def test_of_the_real_lock_no_laboratory_is_in_the_image() -> None:
    part = image.runtime_lock(
        (ROOT / "requirements.lock").read_text(), image.project()["dependencies"]
    )
    names = {line.split("==")[0] for line in part.splitlines() if "==" in line}
    assert {"boto3", "botocore", "kubernetes", "urllib3", "prometheus-client"} <= names
    assert not names & {"moto", "pytest", "pyroute2", "flask", "mypy", "grpcio"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "usr/bin/tool").write_text("#!/bin/sh\n")
    (tmp_path / "usr/bin/tool").chmod(0o700)
    (tmp_path / "usr/text").write_text("hello\n")
    (tmp_path / "usr/text").chmod(0o600)
    (tmp_path / "bin").symlink_to("usr/bin")
    return tmp_path


def unpacked(blob: image.Blob) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob.content))) as tar:
        return tar.getmembers()


def test_a_layers_files_are_roots_and_without_a_time(folder: Path) -> None:
    blob, _ = image.layer(folder)
    found = {entry.name: entry for entry in unpacked(blob)}
    assert {(entry.uid, entry.gid, entry.mtime) for entry in found.values()} == {(0, 0, 0)}
    assert {name: oct(entry.mode) for name, entry in found.items()} == {
        "bin": "0o777",
        "tmp": "0o1777",
        "usr": "0o755",
        "usr/bin": "0o755",
        "usr/bin/tool": "0o755",
        "usr/text": "0o644",
    }
    assert found["bin"].linkname == "usr/bin"


def test_the_same_files_are_the_same_layer_whoever_has_made_them(folder: Path) -> None:
    before = image.layer(folder)
    os.utime(folder / "usr/text", (1, 1))
    (folder / "usr/text").chmod(0o640)
    assert image.layer(folder) == before


def test_a_layer_that_was_packed_is_taken_as_it_is_and_another_is_not(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    packed = tmp_path_factory.mktemp("image") / "packed"
    before = image.layer(folder)
    assert image.layer(folder, packed) == before
    (file,) = packed.iterdir()
    file.write_bytes(b"as it was packed")
    assert image.layer(folder, packed)[0].content == b"as it was packed"
    (folder / "new").write_text("x")
    assert image.layer(folder, packed) == image.layer(folder)


def test_the_archive_names_the_image_and_every_blob_by_its_sum(folder: Path) -> None:
    made = image.archive("arm64", "1.2.3", [image.layer(folder), image.layer(folder / "usr")])
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        files = {
            entry.name: (tar.extractfile(entry) or io.BytesIO()).read()
            for entry in tar.getmembers()
        }
    for name, content in files.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(content).hexdigest()}"
    (manifest,) = json.loads(files["index.json"])["manifests"]
    assert manifest["annotations"]["io.containerd.image.name"] == "enid.dev/enid:1.2.3"
    assert manifest["platform"] == {"architecture": "arm64", "os": "linux"}

    def blob(descriptor: dict[str, str]) -> bytes:
        content = files[f"blobs/sha256/{descriptor['digest'].removeprefix('sha256:')}"]
        assert len(content) == int(descriptor["size"])
        return content

    said = json.loads(blob(manifest))
    config = json.loads(blob(said["config"]))
    assert config["rootfs"]["diff_ids"] == [
        f"sha256:{hashlib.sha256(gzip.decompress(blob(layer))).hexdigest()}"
        for layer in said["layers"]
    ]
    assert config["config"]["Entrypoint"] == ["/usr/bin/ipamd"]


SUMS = "aa  libc6_2.41-12_arm64.deb\nbb  netbase_1%3a6.5_all.deb\n"
LINKED = "amd64: dd  x_1_amd64.deb\narm64: cc  libpython3.13-dev_3.13.5_arm64.deb\narm64: gcc 12\nee  f\n"
METADATA = "Metadata-Version: 2.4\nName: Some_Thing\nVersion: 1.0\nLicense: MIT\n\nText: no field\n"


def test_the_bill_has_packages_libraries_and_what_is_linked_into_the_plugin() -> None:
    origins = image.Origins(
        debian=SUMS, python=(METADATA,), linked=LINKED, modules="stdlib 1.26.8\n"
    )
    said = image.bill("arm64", "1.2.3", b"image", origins)
    assert [(part["purl"], part.get("properties", [{}])[0].get("value")) for part in said["components"]] == [
        ("pkg:deb/debian/libc6@2.41-12?arch=arm64&distro=debian-13", "in the image"),
        (
            "pkg:deb/debian/libpython3.13-dev@3.13.5?arch=arm64&distro=debian-13",
            "linked into enid-cni",
        ),
        ("pkg:deb/debian/netbase@1:6.5?arch=arm64&distro=debian-13", "in the image"),
        ("pkg:golang/stdlib@1.26.8", None),
        ("pkg:pypi/some-thing@1.0", None),
    ]  # fmt: skip
    assert said["components"][-1]["licenses"] == [{"license": {"name": "MIT"}}]


NOTHING = image.Origins(debian="", python=(), linked="", modules="")


def test_the_bill_is_of_one_image() -> None:
    one, other = (image.bill("arm64", "1", content, NOTHING) for content in (b"a", b"b"))
    assert one["serialNumber"] != other["serialNumber"]
    assert one["metadata"]["component"]["hashes"][0]["content"] == hashlib.sha256(b"a").hexdigest()
