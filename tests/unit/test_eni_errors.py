"""EC2's codes and our words."""

import pytest

from eni import errors
from eni.errors import (
    CapacityError,
    CredentialsError,
    EniError,
    InstanceLimitError,
    InvalidStateError,
    LimitExceededError,
    NotFoundError,
    NotYetError,
    PrefixesExhaustedError,
    QuotaExceededError,
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
        pytest.param("InsufficientCidrBlocks", "", 400, PrefixesExhaustedError, id="fragmented"),
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
            "PrivateIpAddressLimitExceeded", "", 400, InstanceLimitError, id="too-many-addresses"
        ),
        pytest.param("AttachmentLimitExceeded", "", 400, InstanceLimitError, id="too-many-enis"),
        pytest.param(
            PARAMETER,
            "eni-1: Number of private addresses will exceed limit.",
            400,
            InstanceLimitError,
            id="too-many-addresses-said-in-words",
        ),
        pytest.param(
            PARAMETER,
            "Interface count 4 exceeds the limit for t3.small",
            400,
            InstanceLimitError,
            id="too-many-enis-said-in-words",
        ),
        pytest.param(
            "NetworkInterfaceLimitExceeded", "", 400, QuotaExceededError, id="the-regions-enis"
        ),
        pytest.param("ResourceLimitExceeded", "", 400, QuotaExceededError, id="an-accounts-quota"),
        pytest.param("ServiceQuotaExceeded", "", 400, QuotaExceededError, id="a-new-quota"),
        pytest.param("SomethingLimitExceeded", "", 400, LimitExceededError, id="a-limit-of-whom"),
        pytest.param("RequestExpired", "", 400, CredentialsError, id="the-clock-jumped"),
        pytest.param("PendingVerification", "", 403, UnauthorizedError, id="a-new-account"),
        pytest.param("ApiThrottled", "", 400, ThrottledError, id="throttled-by-a-new-name"),
        pytest.param("InsufficientHostCapacity", "", 500, CapacityError, id="short-though-a-500"),
        pytest.param("InsufficientSomething", "", 400, CapacityError, id="short-of-the-unknown"),
        pytest.param("SubnetCapacityExceeded", "", 400, CapacityError, id="short-by-its-ending"),
        pytest.param(
            "SomethingNew", "There is not enough of it", 400, CapacityError, id="short-in-words"
        ),
        pytest.param(
            PARAMETER, "Insufficient somethings", 400, CapacityError, id="short-in-one-word"
        ),
        pytest.param(PARAMETER, "No free something", 400, CapacityError, id="none-free"),
        pytest.param(
            "UnauthorizedOperation",
            "Insufficient permissions",
            403,
            UnauthorizedError,
            id="short-of-rights-is-no-shortage",
        ),
        pytest.param("InvalidNetworkInterfaceID.NotFound", "", 400, NotFoundError, id="no-eni"),
        pytest.param("InvalidAttachmentID.NotFound", "", 400, NotFoundError, id="no-attachment"),
        pytest.param("InvalidSubnetID.NotFound", "", 400, NotFoundError, id="no-subnet"),
        pytest.param("InvalidGroup.NotFound", "", 400, NotFoundError, id="no-security-group"),
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
        pytest.param(
            PARAMETER, "instance 'i-1' is not 'running'", 400, InvalidStateError, id="stopped"
        ),
        pytest.param(PARAMETER, "Invalid value", 400, RefusedError, id="a-bad-parameter"),
        pytest.param("IdempotentParameterMismatch", "", 400, RefusedError, id="another-wish"),
        pytest.param("SomethingNew", "", 400, RefusedError, id="an-unknown-refusal"),
        pytest.param("InternalError", "", 500, UnknownOutcomeError, id="ec2-failed"),
        pytest.param("InternalError", "", 400, UnknownOutcomeError, id="ec2-failed-and-says-400"),
        pytest.param("ServiceUnavailable", "", 503, UnknownOutcomeError, id="ec2-is-down"),
        pytest.param(
            "Odd",
            "not enough free addresses",
            500,
            UnknownOutcomeError,
            id="words-of-a-500-are-none",
        ),
        pytest.param("Unavailable", "", 503, UnknownOutcomeError, id="ec2-is-away"),
        pytest.param("", "", 200, UnknownOutcomeError, id="no-code-at-all"),
    ],
)
def test_meaning_of_ec2s_answer(code: str, text: str, status: int, family: type[EniError]) -> None:
    assert meaning(code, text, status) is family


FREE_TEXTS = [
    "There aren't sufficient free Ipv4 addresses or prefixes",
    "There are no sufficient free addresses or prefixes",
    "The specified subnet does not have enough free addresses to satisfy the request",
    "The subnet doesn't have enough available IP addresses",
    "There are not enough free cidr blocks",
    "insufficient free addresses in subnet-1",
    "No free addresses in subnet-1",
]
"""As logs and issues have them, under InvalidParameterValue."""


@pytest.mark.parametrize("text", FREE_TEXTS)
def test_a_subnet_that_is_full_says_so_in_many_words(text: str) -> None:
    assert meaning(PARAMETER, text, 400) is SubnetExhaustedError
    assert meaning(PARAMETER, text, 400, prefixes=True) is PrefixesExhaustedError


@pytest.mark.parametrize(
    ("code", "text", "family"),
    [
        pytest.param("InsufficientCidrBlocks", "", PrefixesExhaustedError, id="said-so"),
        pytest.param("InsufficientSomething", "", PrefixesExhaustedError, id="short-of-what"),
        pytest.param(PARAMETER, "not enough of it", PrefixesExhaustedError, id="short-in-words"),
        pytest.param(
            "InsufficientFreeAddressesInSubnet", "", SubnetExhaustedError, id="not-one-address"
        ),
        pytest.param("PrivateIpAddressLimitExceeded", "", InstanceLimitError, id="no-slot"),
        pytest.param("RequestLimitExceeded", "", ThrottledError, id="throttled"),
    ],
)
def test_a_shortage_met_by_a_wish_for_prefixes_is_one_of_prefixes(
    code: str, text: str, family: type[EniError]
) -> None:
    assert meaning(code, text, 400, prefixes=True) is family


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
