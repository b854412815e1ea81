"""Write the references that are made from code: settings, metrics, errors, fidelity. Shell.

python -m tests.tools.references          # writes docs/*.md
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cni.kernel import NodeError, WireError
from cni.spec import Code
from cni.wire import WireError
from eni.errors import RAISED, EniError
from ipamd.cli import CommandError
from ipamd.journal import JournalError
from ipamd.leases import LeasesError
from ipamd.metrics import render_metrics
from ipamd.replies import ADVICE
from ipamd.settings import SettingsError, render_settings
from ipamd.start import StartError
from tests.tools import fidelity
from vpclab.box import BoxError
from vpclab.iam import PolicyError
from vpclab.running import LabError

DOCS = Path(__file__).parents[2] / "docs"

FAMILIES: tuple[type[Exception], ...] = (
    SettingsError, StartError, CommandError, JournalError, LeasesError, WireError, NodeError,
    BoxError, LabError, PolicyError, EniError,
)  # fmt: skip


def leaves(family: type[Exception]) -> Iterator[type[Exception]]:
    """Yield the classes of *family* that are raised: EC2's, and those nobody derives from."""
    if family in RAISED or not family.__subclasses__():
        yield family
    for child in family.__subclasses__():
        yield from leaves(child)


def render_errors() -> Iterator[str]:
    """Yield the lines of `docs/errors.md`."""
    yield "# Errors"
    yield ""
    yield "Every error has an id that stays over releases. This page is made from the code by"
    yield "`python -m tests.tools.references`."
    yield ""
    yield "| id | what it means | what to do |"
    yield "| --- | --- | --- |"
    for family in FAMILIES:
        for leaf in sorted(set(leaves(family)), key=lambda c: c.__name__):
            meaning, _, advice = (leaf.__doc__ or "").strip().splitlines()[0].partition(": ")
            if issubclass(leaf, EniError):
                meaning, advice = " ".join((leaf.__doc__ or "").split()), ADVICE[leaf]
            name = getattr(leaf, "id", leaf.__name__)
            yield f"| `{name}` | {meaning.rstrip('.')} | {advice.rstrip('.') or 'see its text'} |"
    yield ""
    yield "## Codes of the plugin's answers"
    yield ""
    yield "| code | name |"
    yield "| --- | --- |"
    for code in Code:
        yield f"| {code.value} | {code.name.lower().replace('_', ' ')} |"


PAGES = {
    "settings.md": render_settings,
    "metrics.md": render_metrics,
    "errors.md": render_errors,
    "fidelity.md": fidelity.render,
}


def main() -> None:
    """Write every page."""
    for name, render in PAGES.items():
        (DOCS / name).write_text("\n".join(render()) + "\n")


if __name__ == "__main__":
    main()
