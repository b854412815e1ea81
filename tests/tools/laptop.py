"""What `docs/vpc-on-a-laptop.md` tells its reader to run. Shell (reads the page)."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "vpc-on-a-laptop.md"


def scripts() -> dict[str, str]:
    """Return the page's files by name: blocks whose first line is a comment that begins with it."""
    blocks = re.findall(
        r"^```(?:python|sh)\n(# (\S+).*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    return {name: text for text, name in blocks}


def commands() -> list[list[str]]:
    """Return the page's `enid` commands as words, without the first and without pipes."""
    lines = re.findall(r"^\$ (?:export \w+=\$\()?enid ([^|)\n]+)", PAGE.read_text(), re.MULTILINE)
    return [line.split() for line in lines]
