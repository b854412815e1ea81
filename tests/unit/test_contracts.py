"""What pyproject.toml says of the modules is what they say of themselves."""

from __future__ import annotations

import tomllib
from collections import Counter

from tests.tools.pure import ROOT, pure_modules


def test_the_import_contract_of_pure_modules_names_all_of_them() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (named,) = (
        contract["source_modules"]
        for contract in contracts["contracts"]
        if contract["name"].startswith("Pure modules")
    )
    assert named == [".".join(path.with_suffix("").parts) for path in pure_modules()]


def test_a_tests_name_is_its_own() -> None:
    """pytest imports tests by their bare names, where a whole run meets all of them."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
