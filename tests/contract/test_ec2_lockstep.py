"""The planner's model and the embedded EC2 do the same, whatever is asked of them.

Both are asked the same things in the same order. Which address is chosen is EC2's affair, so the
model is told what the embedded EC2 chose, as its `draw`: a choice that it does not follow, or a
refusal where the other gives something, ends the test. After some steps, and in the end, all that
there is is the same on both sides, but for names. A walk is repeated by its seed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from eni.errors import EniError
from eni.model import AttachmentId, Block, CreateEni, Eni, EniId, InstanceId, Kind, SubnetId
from tests.contract.sides import ZONE, EmbeddedSide, ModelSide, Side, embedded, primary_of

SUBNETS: tuple[tuple[int, tuple[int, ...]], ...] = ((26, ()), (25, (2, 3)))
"""Prefix length and reserved /28s: small ones, so that they are soon full."""

INSTANCES = ("m5.large", "m4.large")
"""3 ENIs of 10 slots, and 2 of 10 that take no prefixes."""

NO_ATTACHMENT = AttachmentId("eni-attach-0123456789abcdef0")

STEPS, LOOK_EVERY = 200, 100
"""How long a walk is: about a second."""

Shown = tuple[object, ...]


class Half:
    """One side, and its names for what both have."""

    def __init__(self, side: Side) -> None:
        self.side, self.ec2 = side, side.ec2
        self.subnets: list[SubnetId] = []
        self.firsts: dict[SubnetId, int] = {}
        for prefix, reserved in SUBNETS:
            subnet_id, cidr = side.subnet(prefix, reserved=reserved)
            self.subnets.append(subnet_id)
            self.firsts[subnet_id] = int(cidr.network_address)
        self.instances: list[InstanceId] = []
        self.enis: list[EniId] = []

    def launch(self, instance_type: str, subnet: int) -> Eni:
        """Start an instance and return its ENI."""
        instance_id = self.side.instance(self.subnets[subnet], instance_type)
        self.instances.append(instance_id)
        return self.met(self.ec2.eni(primary_of(self.ec2, instance_id)))

    def met(self, eni: Eni | None) -> Eni:
        """Return an ENI, whose number is known from now on."""
        assert eni is not None
        if eni.id not in self.enis:
            self.enis.append(eni.id)
        return eni

    def eni(self, number: int) -> EniId:
        return self.enis[number % len(self.enis)]

    def attachment(self, number: int) -> AttachmentId:
        eni = self.ec2.eni(self.eni(number))
        return eni.attachment.id if eni and eni.attachment else NO_ATTACHMENT

    def held(self, number: int, kind: Kind, places: Sequence[int]) -> list[Block]:
        """Return some of an ENI's blocks of a kind."""
        eni = self.ec2.eni(self.eni(number))
        blocks = [b for b in (eni.blocks if eni else ()) if b.prefixlen == LENGTHS[kind]]
        return [blocks[place % len(blocks)] for place in places if blocks]

    def choices(self, subnet_id: SubnetId, *blocks: Block) -> Iterator[int]:
        """Yield where *blocks* are, as chance says it: the number of an address or of a /28."""
        for block in blocks:
            offset = int(block.network_address) - self.firsts[subnet_id]
            yield offset // 16 if block.prefixlen == 28 else offset

    def eni_shown(self, eni: Eni | None) -> Shown:
        """Return an ENI without names."""
        if eni is None:
            return ()
        place, primary = eni.attachment, Block(eni.primary or 0)
        return (
            eni.status,
            eni.description,
            dict(eni.tags),
            list(self.choices(eni.subnet_id, primary, *eni.blocks)),
            place and (place.status, place.device_index, place.delete_on_termination),
            place and self.instances.index(place.instance_id),
            self.side.has_link(eni.mac),
        )

    def numbers(self, enis: Sequence[Eni]) -> list[int]:
        """Return the numbers of ENIs; some may be an earlier run's."""
        return sorted(self.enis.index(eni.id) for eni in enis if eni.id in self.enis)

    def shown(self) -> Shown:
        """Return all that there is, without names."""
        told = {subnet.id: subnet for subnet in self.ec2.subnets(self.side.vpc_id, ZONE)}
        return (
            [told[subnet_id].available for subnet_id in self.subnets],
            [self.eni_shown(self.ec2.eni(eni_id)) for eni_id in self.enis],
            [self.numbers(self.ec2.attached(instance_id)) for instance_id in self.instances],
            [self.numbers(self.ec2.available([("colour", c)])) for c in ("", "red", "blue")],
            [self.numbers(self.ec2.by_tag("colour", c)) for c in ("red", "blue")],
        )


LENGTHS = {Kind.SINGLE: 32, Kind.PREFIX: 28}


class Walk:
    """What is done to both, by chance."""

    def __init__(self, other: EmbeddedSide, seed: int) -> None:
        self.seed, self.chance = seed, Random(seed)
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.choices: deque[int] = deque()
        model = ModelSide(lambda _below: self.choices.popleft() if self.choices else 0)
        other.slow(is_slow=False)
        self.real, self.model = Half(other), Half(model)
        self.account = model.account
        for instance_type in INSTANCES:
            self.launch(instance_type)

    def both(
        self,
        do: Callable[[Half], Any],
        show: Callable[[Half, Any], object] = lambda _half, answer: answer,
    ) -> None:
        """Do it on both sides, and see that they answer the same."""
        answers = []
        for half in (self.real, self.model):
            try:
                answers.append(show(half, do(half)))
            except EniError as error:
                answers.append(type(error))
        assert answers[1] == answers[0]
        assert not self.choices
        self.outcome = answers[0].__name__ if isinstance(answers[0], type) else "ok"

    def step(self) -> None:
        """Do one thing."""
        verb = self.chance.choices(list(VERBS), list(VERBS.values()))[0]
        self.outcome = "ok"
        getattr(self, verb)()
        self.outcomes[verb, self.outcome] += 1

    def look(self) -> None:
        """See that both have the same."""
        assert self.model.shown() == self.real.shown()
        assert self.account.verify() == ()

    # Chance -------------------------------------------------------------------------------
    def any_eni(self) -> int:
        return self.chance.randrange(len(self.real.enis))

    def an_eni(self, *states: str) -> int:
        """Return an ENI in one of *states*, mostly, or any."""
        enis = [self.model.ec2.eni(eni_id) for eni_id in self.model.enis]
        fit = [number for number, eni in enumerate(enis) if eni and eni.status in states]
        return self.chance.choice(fit) if fit and self.chance.random() < 0.8 else self.any_eni()

    # Verbs --------------------------------------------------------------------------------
    def launch(self, instance_type: str = "") -> None:
        kind, subnet = instance_type or self.chance.choice(INSTANCES), self.chance.randrange(2)
        if not self.model.ec2.subnet(self.model.subnets[subnet]).available:
            return
        eni = self.real.launch(kind, subnet)
        self.choices += self.real.choices(eni.subnet_id, Block(eni.primary or 0))
        mine = self.model.launch(kind, subnet)
        assert self.model.eni_shown(mine) == self.real.eni_shown(eni)

    def create(self) -> None:
        token, subnet = self.chance.randrange(40), self.chance.randrange(2)
        singles, prefixes = self.chance.choice([(0, 0), (3, 0), (9, 0), (40, 0), (0, 2), (1, 1)])

        def do(half: Half) -> Eni:
            return half.ec2.create(
                CreateEni(
                    token=f"{self.seed}-{token}",
                    subnet_id=half.subnets[subnet],
                    security_groups=(),
                    description="made by a walk",
                    secondary_count=singles,
                    prefix_count=prefixes,
                    tags=(("colour", "red"),),
                )
            )

        def show(half: Half, eni: Eni) -> object:
            if half is self.real and eni.id not in half.enis:
                primary = Block(eni.primary or 0)
                self.choices += half.choices(eni.subnet_id, primary, *eni.blocks)
            return half.enis.index(half.met(eni).id), half.eni_shown(eni)

        self.both(do, show)

    def attach(self) -> None:
        eni, instance = self.an_eni("available"), self.chance.randrange(len(self.real.instances))
        index = self.chance.randrange(4)
        self.both(
            lambda half: half.ec2.attach(half.eni(eni), half.instances[instance], index),
            lambda half, given: given == half.attachment(eni),
        )

    def detach(self) -> None:
        eni = self.an_eni("in-use", "attaching", "detaching")
        self.both(lambda half: half.ec2.detach(half.attachment(eni)))

    def go_along(self) -> None:
        eni = self.an_eni("in-use", "attaching", "detaching")
        other = eni if self.chance.random() < 0.8 else self.any_eni()
        self.both(
            lambda half: half.ec2.delete_on_termination(half.eni(eni), half.attachment(other))
        )

    def delete(self) -> None:
        eni = self.an_eni("available")
        self.both(lambda half: half.ec2.delete(half.eni(eni)))

    def assign(self) -> None:
        eni = self.an_eni("in-use", "attaching", "available")
        kind, count = self.chance.choice([*Kind]), self.chance.choice([1, 1, 2, 3, 5, 9, 30])

        def show(half: Half, blocks: tuple[Block, ...]) -> object:
            told = half.ec2.eni(half.eni(eni))
            assert told is not None
            placed = list(half.choices(told.subnet_id, *blocks))
            if half is self.real:
                self.choices += placed
            return placed

        self.both(lambda half: half.ec2.assign(half.eni(eni), kind, count), show)

    def unassign(self) -> None:
        eni, kind = self.an_eni("in-use", "attaching", "available"), self.chance.choice([*Kind])
        whose = eni if self.chance.random() < 0.9 else self.any_eni()
        places = [self.chance.randrange(128) for _ in range(self.chance.choice([1, 2, 2, 10]))]
        if self.model.held(whose, kind, places):
            self.both(lambda half: half.ec2.unassign(half.eni(eni), half.held(whose, kind, places)))

    def tag(self) -> None:
        eni, colour = self.any_eni(), self.chance.choice(["red", "blue"])
        self.both(lambda half: half.ec2.tag(half.eni(eni), [("colour", colour)]))

    def terminate(self) -> None:
        instance = self.chance.randrange(len(self.real.instances))
        for half in (self.real, self.model):
            half.side.terminate(half.instances[instance])

    def time(self) -> None:
        is_slow = self.chance.random() < 0.5
        for half in (self.real, self.model):
            half.side.slow(is_slow=is_slow)
            half.side.pass_time()


VERBS = {
    "create": 8, "attach": 10, "detach": 9, "go_along": 2, "delete": 3, "assign": 16,
    "unassign": 14, "tag": 2, "launch": 2, "terminate": 1, "time": 6,
}  # fmt: skip
"""What is done, and how often."""


def test_model_and_embedded_ec2_do_the_same() -> None:
    outcomes: Counter[tuple[str, str]] = Counter()
    with embedded() as side:
        for seed in range(3):
            walk = Walk(side, seed)
            for number in range(STEPS):
                walk.step()
                if number % LOOK_EVERY == LOOK_EVERY - 1:
                    walk.look()
            outcomes += walk.outcomes
    seen = {outcome for _, outcome in outcomes}
    assert seen == {
        "ok", "InstanceLimitError", "InvalidStateError", "NotFoundError",
        "PrefixesExhaustedError", "RefusedError", "SubnetExhaustedError",
    }  # fmt: skip
    assert {verb for verb, outcome in outcomes if outcome == "ok"} == set(VERBS)
