"""EC2's codes and our words."""

import pytest

from eni import errors
from eni.errors import (
    CredentialsError,
    EniError,
    InvalidStateError,
    LimitExceededError,
    NotFoundError,
    NotYetError,
    RefusedError,
    SubnetExhaustedError,
    ThrottledError,
    UnauthorizedError,
    UnknownOutcomeError,
    meaning,
    sentence,
)

PARAMETER = "InvalidParameterValue"


@pytest.mark.parametrize(
    ("code", "text", "status", "family"),
    [
        pytest.param("RequestLimitExceeded", "", 503, ThrottledError, id="throttled-though-a-503"),
        pytest.param("InsufficientFreeAddressesInSubnet", "", 400, SubnetExhaustedError, id="full"),
        pytest.param("InsufficientCidrBlocks", "", 400, SubnetExhaustedError, id="fragmented"),
        pytest.param(
            PARAMETER,
            "There aren't sufficient free Ipv4 addresses or prefixes",
            400,
            SubnetExhaustedError,
            id="full-said-in-words",
        ),
        pytest.param("ExpiredToken", "", 400, CredentialsError, id="credentials-to-be-renewed"),
        pytest.param("UnauthorizedOperation", "", 403, UnauthorizedError, id="not-in-the-policy"),
        pytest.param("AccessDenied", "", 403, UnauthorizedError, id="denied-by-sts"),
        pytest.param(
            "PrivateIpAddressLimitExceeded", "", 400, LimitExceededError, id="too-many-addresses"
        ),
        pytest.param("AttachmentLimitExceeded", "", 400, LimitExceededError, id="too-many-enis"),
        pytest.param("InvalidNetworkInterfaceID.NotFound", "", 400, NotFoundError, id="no-eni"),
        pytest.param("InvalidAttachmentID.NotFound", "", 400, NotFoundError, id="no-attachment"),
        pytest.param("InvalidInstanceType", "", 400, NotFoundError, id="no-such-type"),
        pytest.param(
            PARAMETER,
            "Some of the specified addresses are not assigned to interface eni-1",
            400,
            NotFoundError,
            id="address-already-gone",
        ),
        pytest.param(
            PARAMETER,
            "Network interface 'eni-1' is currently in use.",
            400,
            InvalidStateError,
            id="attached",
        ),
        pytest.param(
            PARAMETER,
            "Instance 'i-1' already has an interface attached at device index '2'.",
            400,
            InvalidStateError,
            id="index-taken",
        ),
        pytest.param("OperationNotPermitted", "", 400, InvalidStateError, id="the-primary-stays"),
        pytest.param(PARAMETER, "Invalid value", 400, RefusedError, id="a-bad-parameter"),
        pytest.param("IdempotentParameterMismatch", "", 400, RefusedError, id="another-wish"),
        pytest.param("SomethingNew", "", 400, RefusedError, id="an-unknown-refusal"),
        pytest.param("InternalError", "", 500, UnknownOutcomeError, id="ec2-failed"),
        pytest.param("Unavailable", "", 503, UnknownOutcomeError, id="ec2-is-away"),
        pytest.param("", "", 200, UnknownOutcomeError, id="no-code-at-all"),
    ],
)
def test_meaning_of_ec2s_answer(code: str, text: str, status: int, family: type[EniError]) -> None:
    assert meaning(code, text, status) is family


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (SubnetExhaustedError, "EC2 cannot create an ENI in subnet-1 yet: full"),
        (LimitExceededError, "EC2 refuses to create an ENI in subnet-1: full"),
        (
            UnknownOutcomeError,
            "EC2 was told to create an ENI in subnet-1, and may have done it: full",
        ),
    ],
)
def test_a_message_names_the_wish_and_the_reason(family: type[EniError], message: str) -> None:
    assert sentence(family, "create an ENI in subnet-1", "full") == message


def leaves() -> list[type[EniError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type)]


def test_every_error_has_an_id_of_its_own() -> None:
    ids = [kind.id for kind in leaves() if issubclass(kind, EniError)]
    assert len(set(ids)) == len(ids)


def test_every_error_is_of_one_family() -> None:
    families = (NotYetError, RefusedError, UnknownOutcomeError)
    kinds = [kind for kind in leaves() if issubclass(kind, EniError) and kind is not EniError]
    assert all(sum(issubclass(kind, family) for family in families) == 1 for kind in kinds)


def test_an_error_remembers_the_action_and_ec2s_code() -> None:
    error = ThrottledError("no", action="DetachNetworkInterface", code="RequestLimitExceeded")
    assert (str(error), error.action, error.code) == (
        "no",
        "DetachNetworkInterface",
        "RequestLimitExceeded",
    )
