"""Compile Python modules and all that they import into one C source, on stdout. Shell.

    freeze freeze.py NAME=FILE...

Run by freeze.c, on a Python without a library. What is imported is a file below this folder, and
is frozen, too; or else one of libpython's modules in C, and goes into the table of those, of some
only as much as is used. A module that is neither is not found by the linker. What a function
imports for itself is not followed: the plugin does so for Pythons that it is not frozen with.
"""

import _ast
import marshal
import posix
import sys

ONLY_AST = 0x400
"""`ast.PyCF_ONLY_AST`."""

WITHOUT_DOCSTRINGS = 2
MADE_BY_ITSELF = ("builtins", "sys")
"""Modules of the interpreter's own."""

IN_PART = ("_codecs", "posix", "time")
"""Modules of which only what is used goes into the file (part.h)."""

HEAD = """\
/* Made by freeze.py with Python {version}. */
#include "part.h"

struct _module_alias {{ const char *name, *original; }};
"""
TAIL = """\
static const struct _frozen none[] = {{0}};
static const struct _module_alias aliases[] = {{0}};
const struct _frozen *_PyImport_FrozenBootstrap = frozen, *PyImport_FrozenModules = frozen;
const struct _frozen *_PyImport_FrozenStdlib = none, *_PyImport_FrozenTest = none;
const struct _module_alias *_PyImport_FrozenAliases = aliases;
"""
"""In place of CPython's own tables (frozen.o): importlib is looked for in the first one."""


def main(arguments: list[str]) -> None:
    """Freeze the modules that are named, and those that they import."""
    files: dict[str, str] = dict([argument.split("=") for argument in arguments])
    waiting, frozen, in_c = list(files), {}, {"_imp"}  # which import.c makes before all others
    while waiting:
        name = waiting.pop(0)
        file = files.get(name) or file_of(name)
        if name in frozen or name in MADE_BY_ITSELF:
            continue
        if file:
            tree = compile(read(file), f"<frozen {name}>", "exec", ONLY_AST, dont_inherit=True)
            frozen[name] = (file, tree)
            waiting += imported(tree)
        elif "." in name:
            raise SystemExit(f"freeze: there is no file for the module {name}")
        else:
            in_c.add(name)
    write(source(frozen, sorted(in_c)).encode())


def file_of(name: str) -> str:
    """Return a module's file, or nothing if it has none."""
    path = name.replace(".", "/")
    for file in (path + ".py", path + "/__init__.py"):
        try:
            posix.stat(file)
        except FileNotFoundError:
            continue
        return file
    return ""


def read(file: str) -> bytes:
    """Return a file's bytes."""
    fd, pieces = posix.open(file, posix.O_RDONLY), []
    while piece := posix.read(fd, 1 << 16):
        pieces.append(piece)
    posix.close(fd)
    return b"".join(pieces)


def imported(node: _ast.AST) -> list[str]:
    """Return the modules that *node* imports when it is executed, with their packages."""
    if isinstance(node, (_ast.FunctionDef, _ast.AsyncFunctionDef, _ast.Lambda)):
        return []
    if isinstance(node, _ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
        return [name for child in node.orelse for name in imported(child)]
    if isinstance(node, _ast.Import):
        return [name for alias in node.names for name in with_packages(alias.name)]
    if isinstance(node, _ast.ImportFrom):
        if node.level:
            raise SystemExit(f"freeze: relative imports are not followed (line {node.lineno})")
        package = node.module or ""
        inner = [package + "." + alias.name for alias in node.names]
        return with_packages(package) + [name for name in inner if file_of(name)]
    return [name for child in children(node) for name in imported(child)]


def with_packages(name: str) -> list[str]:
    """Return *name* behind the packages that it is in."""
    parts = name.split(".")
    return [".".join(parts[: n + 1]) for n in range(len(parts))]


def children(node: _ast.AST) -> list[_ast.AST]:
    """Return what a node consists of."""
    found: list[object] = []
    for field in node._fields:
        value = getattr(node, field, None)
        found += value if isinstance(value, list) else [value]
    return [child for child in found if isinstance(child, _ast.AST)]


def source(frozen: dict[str, tuple[str, _ast.AST]], in_c: list[str]) -> str:
    """Return the C source: the code, and the tables that CPython looks into."""
    lines, rows = [HEAD.format(version=sys.version.split()[0])], []
    for number, (name, (file, tree)) in enumerate(frozen.items()):
        code = compile(
            tree, f"<frozen {name}>", "exec", dont_inherit=True, optimize=WITHOUT_DOCSTRINGS
        )  # type: ignore[call-overload]  # any tree
        data = marshal.dumps(code)
        lines.append(f"/* from {file} */")
        lines.append(f"static const unsigned char code_{number}[] = {{")
        lines += [
            "".join([f"{byte}," for byte in data[at : at + 24]]) for at in range(0, len(data), 24)
        ]
        lines.append("};")
        is_package = file.endswith("/__init__.py")
        rows.append(f'{{"{name}", code_{number}, sizeof code_{number}, {is_package:d}}},')
    lines += ["static const struct _frozen frozen[] = {", *rows, "{0}", "};", TAIL]
    for name in in_c:
        trees = [tree for _, tree in frozen.values()]
        lines += part(name, trees) if name in IN_PART else [f"PyObject *PyInit_{name}(void);"]
    lines += ["struct _inittab _PyImport_Inittab[] = {"]
    for name in in_c:
        lines.append(f'{{"{name}", {"part" if name in IN_PART else "PyInit"}_{name}}},')
    return "\n".join([*lines, '{"builtins", NULL}, {"sys", NULL}, {0}', "};", ""])


def part(module: str, trees: list[_ast.AST]) -> list[str]:
    """Return the C that makes a module of what *trees* use of it: capitals are constants."""
    names = sorted({name for tree in trees for name in used(tree, module)})
    rows = [f'{{"{name}", {name}}},' for name in names if name.isupper()]
    return [
        f"static const char *const names_{module}[] = {{",
        *[f'"{name}",' for name in names if not name.isupper()],
        "NULL};",
        f"static const struct constant constants_{module}[] = {{",
        *rows,
        "{NULL, 0}};",
        f"PART({module})",
    ]


def used(node: _ast.AST, module: str) -> list[str]:
    """Return the names that *node* uses of a module."""
    if isinstance(node, _ast.ImportFrom) and node.module == module:
        return [alias.name for alias in node.names]
    if isinstance(node, _ast.Attribute) and getattr(node.value, "id", "") == module:
        return [node.attr]
    return [name for child in children(node) for name in used(child, module)]


def write(data: bytes) -> None:
    """Write all of *data* to stdout."""
    while data:
        data = data[posix.write(1, data) :]


if __name__ == "__main__":
    main(sys.argv[1:])
