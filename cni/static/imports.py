"""Frozen as `_frozen_importlib`: `import`, for a program that has all its modules in it. Shell.

CPython's importlib finds modules in files, archives and folders, and is a quarter of a start. This
is what its import.c asks for, and no more: a module is in C and linked in, or frozen, or there is
none. No file on the node can become code that root runs.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    modules: dict[str, Any]
    called: Any
    c: Any

BuiltinImporter = None
"""What `__main__.__loader__` is."""


def _install(sys: "Any", imp: "Any") -> None:
    """Be the one that imports: called once, before there is anything to import with."""
    global modules, called, c
    modules, called, c = sys.modules, type(sys.implementation), imp


def _install_external_importers() -> None:
    """Look into no file."""


def _find_and_load(name: str, again: "Any") -> "Any":
    """Return the module *name*, which nobody has imported yet."""
    package, _, last = name.rpartition(".")
    if package:
        again(package)
    if c.is_builtin(name):
        module = modules[name] = c.create_builtin(called(name=name))
        c.exec_builtin(module)
    else:
        module = c.init_frozen(name)
    if module is None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)
    if package:
        setattr(modules[package], last, module)
    return module


def _handle_fromlist(package: "Any", names: tuple[str, ...], again: "Any") -> "Any":
    """Return *package* with those of *names* imported that are modules in it."""
    for name in names:
        if not hasattr(package, name):
            again(package.__name__ + "." + name)
    return package
