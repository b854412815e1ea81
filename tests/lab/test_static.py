"""What is true of the plugin's files alone: nothing of the machine goes with them or into them."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.lab.patience import PATIENCE
from tests.lab.starts import FILES, Start

PT_DYNAMIC, PT_INTERP = 2, 3
CHROOT = "/usr/sbin/chroot"
E_MACHINE = {"amd64": 62, "arm64": 183}


@pytest.fixture(params=FILES, ids=lambda start: start.name)
def start(request: pytest.FixtureRequest) -> Start:
    start: Start = request.param
    return start


@pytest.fixture
def root(start: Start, tmp_path: Path) -> Path:
    """A folder with the file and nothing else, but for qemu where the file is for another machine."""
    for file in (start.file, *map(Path, start.before)):
        shutil.copy(file, tmp_path / file.name)
    return tmp_path


def run(
    root: Path, start: Start, stdin: bytes = b"", **env: str
) -> subprocess.CompletedProcess[bytes]:
    argv = [f"/{Path(word).name}" for word in start.argv]
    return subprocess.run(
        [CHROOT, str(root), *argv],
        env=env,
        input=stdin,
        capture_output=True,
        timeout=20 * PATIENCE,
        check=False,
    )


def program_headers(file: Path) -> tuple[int, set[int]]:
    """Return an ELF file's machine, and the types of its program headers."""
    data = file.read_bytes()
    (machine,) = struct.unpack_from("<H", data, 18)
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    return machine, {struct.unpack_from("<I", data, table + n * size)[0] for n in range(count)}


def test_it_is_static_and_for_its_architecture(start: Start) -> None:
    machine, headers = program_headers(start.file)
    assert machine == E_MACHINE[start.name.rpartition("-")[2]]
    assert not headers & {PT_DYNAMIC, PT_INTERP}


def test_it_runs_where_there_is_no_other_file(start: Start, root: Path) -> None:
    done = run(root, start, CNI_COMMAND="VERSION")
    assert (done.returncode, done.stderr) == (0, b"")
    assert "1.1.0" in json.loads(done.stdout)["supportedVersions"]


def test_it_fails_in_the_specifications_words_where_there_is_no_other_file(
    start: Start, root: Path
) -> None:
    env = {"CNI_CONTAINERID": "a", "CNI_IFNAME": "eth0", "CNI_NETNS": "/run/netns/none"}
    done = run(root, start, b'{"cniVersion":"0.4.0"}', CNI_COMMAND="ADD", **env)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["code"], answer["cniVersion"]) == (1, 4, "0.4.0")
    assert "No such file or directory" in answer["msg"]


def test_pythons_environment_does_not_reach_it(start: Start, root: Path) -> None:
    """A PYTHONHOME or PYTHONPATH of the runtime's would be code that runs as root."""
    (root / "posix.py").write_text("raise SystemExit(7)")
    (root / "zipimport.py").write_text("raise SystemExit(7)")
    python = {"PYTHONHOME": "/none", "PYTHONPATH": "/", "PYTHONINSPECT": "1", "PYTHONVERBOSE": "1"}
    done = run(root, start, b"", CNI_COMMAND="VERSION", **python)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)


def test_when_python_does_not_start_the_answer_is_still_json(start: Start) -> None:
    """It refuses a folder as its stdin. Its first half does not look, and the plugin says it."""
    folder = os.open("/", os.O_RDONLY)
    done = subprocess.run(
        start.argv, env={"CNI_COMMAND": "ADD"}, stdin=folder, capture_output=True, check=False
    )
    os.close(folder)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["code"]) == (1, 5 if "core" in start.name else 999)
    assert "directory" in answer["msg"]


def test_when_the_plugin_itself_fails_the_answer_is_still_json(start: Start) -> None:
    """Here by memory that is enough to start with and not for 1 MB of stdin, several times."""
    if start.is_emulated:
        pytest.skip("the limit would be the emulator's")
    few = start.file.stat().st_size + (4 << 20)
    done = subprocess.run(
        ["prlimit", f"--as={few}", *start.argv],
        env={"CNI_COMMAND": "ADD", "PATH": os.environ["PATH"]},
        input=b"{" + b" " * 1000000, capture_output=True,
        timeout=20 * PATIENCE, check=False,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["code"], answer["cniVersion"]) == (1, 999, "1.0.0")
    assert answer["msg"] == "enid-cni: no answer: MemoryError"
    assert done.stderr.startswith(b"Traceback (most recent call last):")
