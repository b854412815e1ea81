"""EC2's errors, as moto raises and writes them. Shell."""

from __future__ import annotations

from moto.ec2.exceptions import EC2ClientError


def error(code: str, text: str) -> EC2ClientError:
    """Return EC2's error."""
    return EC2ClientError(code, text)
