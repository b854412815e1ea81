"""What `enid plan` cannot do, in one sentence each. Pure."""

from __future__ import annotations

from typing import ClassVar


class PlanError(Exception):
    """A plan cannot be made from what was given; the text says what and where."""

    id: ClassVar[str] = "PLAN"


class UnknownTypeError(PlanError):
    """The table has no instance type of that name: take one of those named, or a newer release."""

    id = "PLAN-UNKNOWN-TYPE"


class PlanSettingsError(PlanError):
    """The settings that were to be planned with cannot be: each line of the text says why."""

    id = "PLAN-SETTINGS"


class PlanInputError(PlanError):
    """An option or a file cannot be read as what it should be: the text names line and form."""

    id = "PLAN-INPUT"


class PlanOutputError(PlanError):
    """The picture cannot be drawn or written: the text says what is in the way."""

    id = "PLAN-OUTPUT"
