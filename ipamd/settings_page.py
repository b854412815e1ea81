"""`docs/settings.md` and the daemon's help, made from the table of settings. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ipamd.kinds import shown
from ipamd.layers import PROFILE_LABEL, SETTINGS_ANNOTATION
from ipamd.settings_table import SETTINGS, Fate, Setting

INTRO = """\
# Settings

The names are the AWS VPC CNI's ("the peer" here), so that a DaemonSet's environment can be kept;
settings of our own begin with `ENID_`; `ADD_WAITING_MAX` and `STATUS_GRACE_SECONDS` are ours, too.
Every variable of the peer is here, with what becomes of it. This page is made from
`ipamd/settings_table.py` by `python -m tests.tools.references`.

`enid settings`, as root on a node, shows each value that holds, where it came from, and why it has
no effect if it has none. `enid settings --set NAME=VALUE` tells what a change would come to,
without a daemon.

## Where a value comes from"""

LAYERS = (
    ("default", "this page", "with a release"),
    ("this machine", "its memory, for `ADD_WAITING_MAX`", "never"),
    ("environment", "of `ipamd`", "with a restart"),
    ("ConfigMap", "mounted on `/etc/enid/settings`, a file per variable", "with the files"),
    (
        "profile",
        (
            "the ConfigMap's key `profile.<name>`, which holds lines of NAME=VALUE; the node's"
            f" label `{PROFILE_LABEL}=<name>` chooses it"
        ),
        "with the files and the label",
    ),
    (
        "annotation",
        f"`{SETTINGS_ANNOTATION}` on the node: NAME=VALUE, with commas or line ends between",
        "with the annotation",
    ),
)

RULES = """\
A lower line of this table beats those above it. An empty value in the environment counts as not
set; in the layers below it puts the default back. All layers are checked as a whole: a change that
cannot be, or needs what the node's kernel lacks, is not made, the former settings stay, and log and
`enid settings` say why. At start, layers from the ConfigMap on that cannot be are left out, the
highest first; an environment that cannot be, a value that is refused wherever it stands, and one
that needs what the kernel lacks end the daemon with status 78.

What is marked *at start* keeps its value until the daemon is restarted, and says so.

## What becomes of a variable"""

FATES = (
    (Fate.HONOURED, "it means what it means in the peer"),
    (Fate.DIFFERENT, "likewise; the difference stands beside it"),
    (
        Fate.NO_EFFECT,
        "one warning says why, if it is set to something other than its default",
    ),
    (
        Fate.REFUSED,
        (
            "anything but its default would weaken isolation, or break traffic without a word, if"
            " it were ignored ([why](adr/0012-what-cannot-be-ignored-is-refused.md))"
        ),
    ),
)


def render_settings() -> Iterator[str]:
    """Yield the lines of `docs/settings.md`."""
    yield from INTRO.splitlines()
    yield ""
    yield from _table(("layer", "where", "it changes"), LAYERS)
    yield ""
    yield from RULES.splitlines()
    yield ""
    yield from _table(("fate", "what it means"), FATES)
    for section in dict.fromkeys(setting.section for setting in SETTINGS):
        yield ""
        yield f"## {section}"
        yield ""
        yield from _table(
            ("variable", "fate", "default", "the peer's", "range", "meaning", "no effect when"),
            (_cells(setting) for setting in SETTINGS if setting.section == section),
        )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for cells in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(cells)} |"


def _cells(setting: Setting) -> Sequence[str]:
    default = _default(shown(setting.default))
    if setting.adr:
        default += f" ([why](adr/{setting.adr}.md))"
    return (
        f"`{setting.name}`",
        setting.fate.value,
        default,
        "ours" if setting.peer is None else _default(setting.peer),
        setting.kind.range,
        _meaning(setting),
        "; ".join(condition.when for condition in setting.idle),
    )


def _default(text: str) -> str:
    return text or "not set"


def _meaning(setting: Setting) -> str:
    sentences = [setting.meaning]
    if setting.why:
        lead = {Fate.DIFFERENT: "Difference", Fate.NO_EFFECT: "No effect", Fate.REFUSED: "Refused"}
        sentences.append(f"{lead[setting.fate]}: {setting.why}.")
    if setting.restart:
        sentences.append("*At start.*")
    return " ".join(sentences)


def render_help() -> Iterator[str]:
    """Yield a line for each setting that has an effect, for `ipamd --help`."""
    for setting in SETTINGS:
        if setting.fate in {Fate.HONOURED, Fate.DIFFERENT}:
            sentence = setting.meaning.partition(". ")[0].rstrip(".")
            yield f"  {setting.name:38} {sentence}"
