"""Find the modules that call themselves pure. Shell."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("eni", "cni", "ipamd", "vpclab")


def pure_modules() -> list[Path]:
    """Return the modules whose docstring's first line says "Pure", relative to the checkout."""
    sources = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("[!_]*.py"))
    return [path.relative_to(ROOT) for path in sources if is_pure(path.read_text())]


def is_pure(source: str) -> bool:
    """Return whether a module's text calls itself pure."""
    first_line = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    return re.search(r"\bPure\b", first_line) is not None
