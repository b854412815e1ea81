"""A Terraform provider that knows AWS' schema and can do nothing. Shell.

    python provider.py SCHEMA.json

Terraform asks a provider for its schema, and checks every block, attribute and type against it by
itself. A test's `mock_provider` asks for no more. Everything else is answered UNIMPLEMENTED, so that
nothing can be planned or made with it by mistake. It runs in an environment of its own: PyPI's `tf`
speaks Terraform's protocol.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import grpc
import tf.provider
import tf.runner
from tf.gen import tfplugin_pb2 as wire

NESTING = wire.Schema.NestedBlock
MODES = {"list": NESTING.LIST, "set": NESTING.SET, "map": NESTING.MAP}
SINGLE = NESTING.SINGLE
"""Of a `simple` or `struct` block: there is one, as of timeouts."""


def block(body: dict[str, Any]) -> Any:
    """Return a block as the protocol has it."""
    made = wire.Schema.Block()
    for name, attribute in body["attributes"].items():
        required, told = attribute.get("required", False), attribute.get("computed", False)
        made.attributes.append(
            wire.Schema.Attribute(
                name=name,
                type=json.dumps(attribute["type"]).encode(),
                required=required,
                optional=not required and not told,
                computed=not required,
            )
        )
    for name, inner in body["blocks"].items():
        mode = MODES.get(inner["mode"], SINGLE)
        least = int(inner["required"] and mode in {NESTING.LIST, NESTING.SET})
        made.block_types.append(
            NESTING(type_name=name, nesting=mode, block=block(inner), min_items=least)
        )
    return made


class Schema:
    """What the protocol's server calls; the names are the protocol's."""

    known: dict[str, Any]

    def __init__(self, _provider: object) -> None:
        pass

    def GetProviderSchema(self, _request: Any, _context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Tell everything at once."""
        region = wire.Schema.Attribute(name="region", type=b'"string"', optional=True)
        return wire.GetProviderSchema.Response(
            provider=wire.Schema(block=wire.Schema.Block(attributes=[region])),
            resource_schemas=dict(self._of("resource")),
            data_source_schemas=dict(self._of("data")),
            server_capabilities=wire.ServerCapabilities(get_provider_schema_optional=True),
        )

    def _of(self, word: str) -> Any:
        for name, body in self.known.items():
            kind, _, what = name.partition(" ")
            if kind == word:
                yield what, wire.Schema(version=0, block=block(body))

    def ValidateProviderConfig(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        """Find nothing wrong: the schema is all that is known."""
        return wire.ValidateProviderConfig.Response()

    def ValidateResourceConfig(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        """Find nothing wrong."""
        return wire.ValidateResourceConfig.Response()

    def ValidateDataResourceConfig(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        """Find nothing wrong."""
        return wire.ValidateDataResourceConfig.Response()

    def ConfigureProvider(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        """Need no credentials."""
        return wire.ConfigureProvider.Response()

    def StopProvider(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        """Have nothing to stop."""
        return wire.StopProvider.Response()

    def __getattr__(self, name: str) -> Any:
        """Refuse the rest of the protocol."""

        def refuse(_request: Any, context: Any) -> None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"this provider has a schema only: {name}")

        return refuse


class Named:
    """Who the provider says that it is."""

    def full_name(self) -> str:
        """Return its address."""
        return "registry.terraform.io/hashicorp/aws"


if __name__ == "__main__":
    Schema.known = json.loads(Path(sys.argv[1]).read_text())
    tf.provider.ProviderServicer = Schema
    tf.runner.run_provider(Named(), sys.argv[:1])
