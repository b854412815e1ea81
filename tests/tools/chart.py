"""Write what of the chart is made: the names in its schema, and the manifests. Shell.

python -m tests.tools.chart          # config/chart/values.schema.json, config/manifests
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from ipamd.settings_table import SETTINGS

ROOT = Path(__file__).parents[2]
CHART = ROOT / "config" / "chart"
SCHEMA = CHART / "values.schema.json"
MANIFESTS = ROOT / "config" / "manifests"
HELM = ROOT / ".cache" / "helm" / "helm"

OWN_VALUES = ("CLUSTER_NAME", "ENID_POOL", "MY_NODE_NAME")
"""What a value of its own, or the chart itself, puts into the environment."""

HEADER = """\
# Made from config/chart with its default values, by `python -m tests.tools.chart`; change it there.
# Set CLUSTER_NAME in the DaemonSet, then: kubectl apply -f config/manifests
"""


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm in the repository, with nothing of the user's own."""
    return subprocess.run(
        [HELM, *arguments],
        cwd=ROOT,
        env={"HOME": "/nonexistent", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def template(*arguments: str) -> str:
    """Return what `helm template` makes of the chart. Raises CalledProcessError."""
    done = helm("template", "enid", "config/chart", "--namespace", "kube-system", *arguments)
    done.check_returncode()
    return done.stdout


def manifests() -> dict[str, str]:
    """Return the manifests by file name."""
    lines = template().splitlines()
    # helm's own words mean nothing to kubectl.
    helms = ("app.kubernetes.io/managed-by:", "helm.sh/chart:")
    text = "\n".join(line for line in lines if not line.strip().startswith(helms))
    return {
        **{path.name: path.read_text() for path in (CHART / "crds").glob("*.yaml")},
        "enid.yaml": f"{HEADER}{text}\n",
    }


def schema() -> dict[str, Any]:
    """Return the chart's schema with the names of today's settings in it."""
    said: dict[str, Any] = json.loads(SCHEMA.read_text())
    names = sorted(setting.name for setting in SETTINGS if not setting.pinned)
    said["$defs"]["settings"]["propertyNames"]["enum"] = names
    return said


def text_of(said: dict[str, Any]) -> str:
    """Return the schema as it is written."""
    return json.dumps(said, indent=2) + "\n"


def main() -> None:
    """Write both."""
    SCHEMA.write_text(text_of(schema()))
    MANIFESTS.mkdir(exist_ok=True)
    for name, text in manifests().items():
        (MANIFESTS / name).write_text(text)


if __name__ == "__main__":
    main()
