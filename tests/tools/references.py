"""Write the references that are made from code: settings, metrics, errors, fidelity, checks. Shell.

python -m tests.tools.references          # writes docs/*.md
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cni.kernel import NodeError, WireError
from cni.spec import Code
from ipamd.account_limits import AccountLimitsError
from ipamd.cli import CommandError
from ipamd.cluster import ClusterError
from ipamd.installation import InstallError
from ipamd.journal import JournalError
from ipamd.leases import LeasesError
from ipamd.metrics import render_metrics
from ipamd.plan.errors import PlanError
from ipamd.reactions import CONSEQUENCES, NODE_EVENTS, REFUSALS
from ipamd.settings import SettingsError
from ipamd.settings_page import render_settings
from ipamd.start import StartError
from tests.tools import fidelity
from vpclab.box import BoxError
from vpclab.checks.choice import UnknownCheckError
from vpclab.checks.page import render_checks
from vpclab.checks.verify import VerifyError
from vpclab.cluster import parts, program  # noqa: F401 - each has errors of the lab
from vpclab.iam import PolicyError
from vpclab.running import LabError

DOCS = Path(__file__).parents[2] / "docs"

FAMILIES: tuple[type[Exception], ...] = (
    SettingsError, AccountLimitsError, PlanError, StartError, CommandError, JournalError, LeasesError,
    WireError, NodeError, ClusterError, InstallError, BoxError, LabError, PolicyError,
    UnknownCheckError, VerifyError,
)  # fmt: skip


def leaves(family: type[Exception]) -> Iterator[type[Exception]]:
    """Yield the classes of *family* that are raised: those nobody derives from."""
    if not family.__subclasses__():
        yield family
    for child in family.__subclasses__():
        yield from leaves(child)


def render_errors() -> Iterator[str]:
    """Yield the lines of `docs/errors.md`."""
    yield "# Errors"
    yield ""
    yield "Every error has an id that stays over releases; metrics are labelled with it. This page"
    yield "is made from the code by `python -m tests.tools.references`."
    yield ""
    yield "| id | what it means | what to do |"
    yield "| --- | --- | --- |"
    for family in FAMILIES:
        for leaf in sorted(set(leaves(family)), key=lambda c: c.__name__):
            meaning, _, advice = (leaf.__doc__ or "").strip().splitlines()[0].partition(": ")
            name = getattr(leaf, "id", leaf.__name__)
            yield f"| `{name}` | {meaning.rstrip('.')} | {advice.rstrip('.') or 'see its text'} |"
    yield ""
    yield "## Errors of EC2 and IMDS"
    yield ""
    yield "None of them ends the daemon or touches a running pod. What enid then does concerns the"
    yield "call that met the error; the event is the reason on the pod that waits and on the node."
    yield ""
    yield "| id | what it means | what to do | what enid does | event | CNI code |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for kind, told in CONSEQUENCES.items():
        meaning = " ".join((kind.__doc__ or "").split("\n\n")[0].split()).rstrip(".")
        yield (
            f"| `{kind.id}` | {meaning} | {told.advice} | {told.reaction}"
            f" | `{told.event}` | {told.code.value} |"
        )
    yield ""
    yield "## Other reasons why an ADD is refused"
    yield ""
    yield "What the pod that is refused has as its event, where there is a cluster."
    yield ""
    yield "| event | what it means | what to do | CNI code |"
    yield "| --- | --- | --- | --- |"
    for row in REFUSALS:
        yield f"| `{row.event}` | {row.meaning} | {row.advice} | {row.code.value} |"
    yield ""
    yield "## Other events of the Node"
    yield ""
    yield "| event | what it means | what to do |"
    yield "| --- | --- | --- |"
    for row in NODE_EVENTS:
        yield f"| `{row.event}` | {row.meaning} | {row.advice} |"
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
    "checks.md": render_checks,
}


def main() -> None:
    """Write every page."""
    for name, render in PAGES.items():
        (DOCS / name).write_text("\n".join(render()) + "\n")


if __name__ == "__main__":
    main()
