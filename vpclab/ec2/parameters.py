"""What is wrong with a call's parameters, by botocore's model of EC2. Shell: it reads that model.

A client of boto3's never sends such a call, its own check is the same; others do, and a test may.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from moto.ec2.exceptions import EC2ClientError

from vpclab.ec2.errors import error


def malformed(values: Mapping[str, str], wrong: ValueError) -> EC2ClientError:
    """Return EC2's error for the parameter that *wrong* is about, of these *values*.

    Python's own text names the value only. EC2's words are remembered.
    """
    text = str(wrong)
    found = ((name, value) for name, value in values.items() if repr(value) in text)
    name, value = next(found, ("unknown", text))
    return error("InvalidParameterValue", f"Value ({value}) for parameter {name} is invalid.")


def check(shape: Any, values: Any, above: str = "") -> None:
    """Raise EC2ClientError for the first of *values* that *shape* says is missing or too large.

    The texts are seen: of what is missing in floci-io/floci#2094, of a number in
    aws/aws-sdk-ruby#2575 and aws/aws-sdk-kotlin#1016.
    """
    for name in shape.required_members:
        if values.get(name) in ({}, [], "", None):
            raise error("MissingParameter", f"The request must contain the parameter {above}{name}")
    for name, value in values.items():
        member = shape.members.get(name)
        if member is None:
            continue
        if isinstance(value, int) and not isinstance(value, bool):
            _check_range(f"{above}{name}", value, member.metadata)
        for below in _below(member, value):
            check(*below, f"{above}{name}.")


def _check_range(name: str, value: int, limits: Mapping[str, int]) -> None:
    begin = f"Value ( {value} ) for parameter {name[0].lower()}{name[1:]} is invalid. Expecting a"
    if value < limits.get("min", value):
        raise error(
            "InvalidParameterValue", f"{begin} value greater than or equal to {limits['min']}."
        )
    if value > limits.get("max", value):
        raise error(
            "InvalidParameterValue", f"{begin} value less than or equal to {limits['max']}."
        )


def _below(member: Any, value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the structures of a value, with their shapes."""
    if member.type_name == "structure" and isinstance(value, dict):
        yield member, value
    elif member.type_name == "list" and member.member.type_name == "structure":
        for item in value or ():
            if isinstance(item, dict):
                yield member.member, item
