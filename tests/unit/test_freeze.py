"""What goes into the plugin's file: what it imports, and what those import."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FREEZE = ROOT / "cni" / "static" / "freeze.py"


def freeze(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", "-S", str(FREEZE), *arguments]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)


def tables(c: str) -> tuple[dict[str, bool], list[str]]:
    """Return the frozen modules, each with whether it is a package; and the modules in C."""
    frozen = re.findall(r'^\{"([\w.]+)", code_\d+, sizeof code_\d+, ([01])\},$', c, re.MULTILINE)
    in_c = re.findall(r'^\{"(\w+)", (?:PyInit|part)_\1\},$', c, re.MULTILINE)
    return {name: package == "1" for name, package in frozen}, in_c


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "wire").mkdir()
    (tmp_path / "wire" / "__init__.py").write_text("")
    (tmp_path / "wire" / "frame.py").write_text("import math\nimport main\n")
    (tmp_path / "wire" / "words.py").write_text("")
    (tmp_path / "other.py").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "frozen", "in_c"),
    [
        pytest.param("import posix, sys", {}, ["_imp", "posix"], id="in-c"),
        pytest.param("from _socket import socket", {}, ["_imp", "_socket"], id="from-in-c"),
        pytest.param(
            "import wire.frame",
            {"wire": True, "wire.frame": False},
            ["_imp", "math"],
            id="a-module-with-its-package-and-what-it-imports",
        ),
        pytest.param(
            "from wire import words",
            {"wire": True, "wire.words": False},
            ["_imp"],
            id="a-module-from-its-package",
        ),
        pytest.param("from wire import __doc__", {"wire": True}, ["_imp"], id="no-module"),
        pytest.param("if 1:\n  import other", {"other": False}, ["_imp"], id="conditional"),
        pytest.param("class A:\n  import other", {"other": False}, ["_imp"], id="in-a-class"),
        pytest.param("def f():\n  import other", {}, ["_imp"], id="not-of-a-function"),
        pytest.param(
            "TYPE_CHECKING = False\nif TYPE_CHECKING:\n  import typing\nelse:\n  import other",
            {"other": False},
            ["_imp"],
            id="not-for-types",
        ),
    ],
)
def test_what_a_module_imports_goes_with_it(
    tree: Path, text: str, frozen: dict[str, bool], in_c: list[str]
) -> None:
    (tree / "main.py").write_text(text)
    done = freeze(tree, "main=main.py")
    assert done.stderr == ""
    assert tables(done.stdout) == ({"main": False} | frozen, in_c)


def test_of_some_modules_only_what_is_used_goes_with_it(tree: Path) -> None:
    (tree / "main.py").write_text(
        "import posix, time\nfrom posix import write\n"
        "def f(path):\n  posix.open(path, posix.O_RDONLY)\n  path.close()\n"
    )
    c = freeze(tree, "main=main.py").stdout
    posix, _, time = c.partition("PART(posix)")
    names, _, constants = posix.partition("constants_posix")
    assert re.findall(r'^"(\w+)",$', names, re.MULTILINE) == ["open", "write"]
    assert re.findall(r'^\{"(\w+)", \1\},$', constants, re.MULTILINE) == ["O_RDONLY"]
    assert re.search(r"names_time\[\] = \{\s*NULL\};", time)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import wire.none", "freeze: there is no file for the module wire.none\n"),
        ("\nfrom . import other", "freeze: relative imports are not followed (line 2)\n"),
    ],
)
def test_what_cannot_go_with_it_is_named(tree: Path, text: str, said: str) -> None:
    (tree / "main.py").write_text(text)
    done = freeze(tree, "main=main.py")
    assert (done.returncode, done.stderr) == (1, said)


def test_the_plugin_is_one_module_and_needs_three_of_pythons() -> None:
    done = freeze(ROOT, "__main__=cni/plugin.py")
    assert tables(done.stdout) == ({"__main__": False}, ["_imp", "_socket", "posix", "time"])
