"""Find the modules that call themselves pure. Shell.

    python -m tests.tools.pure

prints their paths with commas between, as `coverage --include` takes them.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("eni", "cni", "ipamd", "vpclab")


def pure_modules() -> list[Path]:
    """Return the modules whose docstring's first line ends in "Pure.", relative to the checkout."""
    sources = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return [path.relative_to(ROOT) for path in sources if _first_line(path).endswith("Pure.")]


def _first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


if __name__ == "__main__":
    print(",".join(map(str, pure_modules())))  # noqa: T201 - a command's answer
