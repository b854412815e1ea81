"""`import` in the plugin's file: from two tables, and from nowhere else."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from cni.static.imports import (
    _find_and_load,
    _handle_fromlist,
    _install,
    _install_external_importers,
)


class Tables:
    """What CPython's `_imp` knows, and how it was asked."""

    def __init__(self, modules: dict[str, ModuleType]) -> None:
        self.modules, self.executed = modules, list[str]()

    def is_builtin(self, name: str) -> int:
        return int(name == "clock")

    def create_builtin(self, spec: SimpleNamespace) -> ModuleType:
        return ModuleType(spec.name)

    def exec_builtin(self, module: ModuleType) -> None:
        assert self.modules[module.__name__] is module
        self.executed.append(module.__name__)

    def init_frozen(self, name: str) -> ModuleType | None:
        if name not in {"wire", "wire.frame"}:
            return None
        module = self.modules[name] = ModuleType(name)
        return module


@pytest.fixture
def modules() -> dict[str, ModuleType]:
    return {}


@pytest.fixture
def tables(modules: dict[str, ModuleType]) -> Tables:
    tables = Tables(modules)
    _install(SimpleNamespace(modules=modules, implementation=SimpleNamespace()), tables)
    _install_external_importers()
    return tables


def load(modules: dict[str, ModuleType], name: str) -> Any:
    """Import as import.c does."""

    def again(name: str) -> Any:
        return modules.get(name) or _find_and_load(name, again)

    return again(name)


def test_a_module_in_c_is_there_before_it_is_executed(
    modules: dict[str, ModuleType], tables: Tables
) -> None:
    assert load(modules, "clock") is modules["clock"]
    assert tables.executed == ["clock"]


def test_a_frozen_module_is_an_attribute_of_its_package(
    modules: dict[str, ModuleType], tables: Tables
) -> None:
    frame = load(modules, "wire.frame")
    assert modules["wire"].frame is frame
    assert tables.executed == []


@pytest.mark.parametrize("name", ["json", "wire.none"])
def test_a_module_that_is_in_no_table_is_not_found(
    modules: dict[str, ModuleType], tables: Tables, name: str
) -> None:
    del tables
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{name}'") as caught:
        load(modules, name)
    assert caught.value.name == name
    assert name not in modules


def test_names_of_a_package_are_imported_unless_it_has_them(
    modules: dict[str, ModuleType], tables: Tables
) -> None:
    del tables
    package = load(modules, "wire")
    package.word = "there"
    asked: list[str] = []
    assert _handle_fromlist(package, ("word", "frame"), asked.append) is package
    assert asked == ["wire.frame"]
