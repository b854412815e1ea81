"""What pyproject.toml says of the modules is what they say of themselves."""

from __future__ import annotations

import tomllib

from tests.tools.pure import ROOT, pure_modules


def test_the_import_contract_of_pure_modules_names_all_of_them() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (named,) = (
        contract["source_modules"]
        for contract in contracts["contracts"]
        if contract["name"].startswith("Pure modules")
    )
    assert named == [".".join(path.with_suffix("").parts) for path in pure_modules()]
