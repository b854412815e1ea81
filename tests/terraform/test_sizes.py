"""modules/sizes says of instance types what `enid plan` says.

One type is asked for each row of the table that differs in what a formula can look at; a module
for each of all 1,000 takes Terraform minutes.
"""

from __future__ import annotations

import json
from pathlib import Path

from eni.limits import TABLE, max_pods, shipped
from tests.terraform.terraform import Terraform

MODES = {
    f"{prefixes}-{custom}": (prefixes, custom) for prefixes in (False, True) for custom in (False, True)
}

ASKED = """
module "sizes" {
  source   = "../modules/sizes"
  for_each = toset(jsondecode(file("types.json")))

  instance_type     = each.key
  zones             = ["a", "b"]
  most_nodes        = 1
  prefix_delegation = %s
  custom_networking = %s
}

output "found" {
  value = { for type, sizes in module.sizes : type => [sizes.formula, sizes.max_pods] }
}
"""


def one_of_each() -> list[str]:
    """Return a type for each row that is different."""
    found: dict[tuple[object, ...], str] = {}
    for kind in json.loads(TABLE.read_text()):
        limits = shipped(kind)
        assert limits is not None
        row = (limits.enis, limits.ipv4_per_eni, limits.prefixes_allowed, limits.vcpus > 30)
        found.setdefault(row, kind)
    return sorted(found.values())


def test_max_pods_is_what_enid_plan_says(scratch: Terraform) -> None:
    types = one_of_each()
    assert len(types) > 50
    for name, (prefixes, custom) in MODES.items():
        folder = scratch.files / name
        folder.mkdir()
        (folder / "types.json").write_text(json.dumps(types))
        (folder / "main.tf").write_text(ASKED % (str(prefixes).lower(), str(custom).lower()))
        scratch.begin(name)
        applied = scratch(name, "apply", "-auto-approve")
        assert applied.status == 0, applied.said
        state = json.loads((Path(folder) / "terraform.tfstate").read_text())
        found = state["outputs"]["found"]["value"]
        assert len(found) == len(types)
        for kind in types:
            limits = shipped(kind)
            assert limits is not None
            formula, cap = max_pods(limits, prefixes=prefixes, custom_networking=custom)
            assert found[kind] == [formula, min(formula, cap)], kind
