"""What a plan found: sums, quantiles and the JSON of it."""

from __future__ import annotations

import pytest

from ipamd.plan.results import (
    ActionUse,
    Course,
    EniView,
    Fleet,
    NodeView,
    Sample,
    Steady,
    SubnetUse,
    Waits,
    quantile,
    waits_of,
)

NODE = NodeView((EniView(0, 3, 0, 3), EniView(1, 19, 1, 2, cooling=4)))
WAITS = Waits(1, 0.0, 0.0, 0.0)


def samples(*idle: int) -> tuple[Sample, ...]:
    return tuple(Sample(10.0 * n, 5, 0, 5 + each, each, n) for n, each in enumerate(idle))


def course(*idle: int) -> Course:
    return Course(
        policy="enid",
        samples=samples(*idle),
        waits=WAITS,
        unserved=0,
        refused=0,
        ec2_calls={"B": 2, "A": 1},
        throttled={},
    )


def fleet(**other: object) -> Fleet:
    whole: dict[str, object] = {
        "policy": "enid",
        "nodes": 2,
        "pods": 4,
        "assigned": 3,
        "ready_nodes": 2,
        "nodes_ready_seconds": 1.25,
        "pods_ready_seconds": None,
        "waits": WAITS,
        "refused": 0,
        "addresses": 9,
        "idle": 6,
        "actions": (ActionUse("A", 3, 2, 1, 5.0, 50.0), ActionUse("B", 4, 4, 0, None, None)),
        "subnets": (SubnetUse("10.0.0.0/24", 256, 100, 3, 0.5),),
        "seconds": 60.0,
        "samples": samples(1, 2),
    }
    return Fleet(**(whole | other))  # type: ignore[arg-type]  # a case names what differs


def test_a_node_is_the_sum_of_its_enis() -> None:
    assert (NODE.addresses, NODE.prefixes, NODE.assigned, NODE.free) == (22, 1, 5, 13)


def test_a_steady_state_is_told_in_full() -> None:
    state = Steady(
        instance_type="t3.small",
        pods=6,
        node=NODE,
        waiting=1,
        max_pods=11,
        recommended_max_pods=11,
        ec2_calls={"B": 2, "A": 1},
    )
    assert state.as_data() == {
        "instance_type": "t3.small",
        "pods": 6,
        "enis": [
            {"device_index": 0, "addresses": 3, "prefixes": 0, "assigned": 3},
            {"device_index": 1, "addresses": 19, "prefixes": 1, "assigned": 2},
        ],
        "addresses": 22,
        "prefixes": 1,
        "assigned": 5,
        "free": 13,
        "waiting": 1,
        "max_pods": 11,
        "recommended_max_pods": 11,
        "ec2_calls": {"A": 1, "B": 2},
    }


@pytest.mark.parametrize(
    ("part", "value"),
    [
        pytest.param(0.5, 51, id="half"),
        pytest.param(0.99, 100, id="nearly-all"),
        pytest.param(1, 100, id="all"),
    ],
)
def test_a_quantile_is_one_of_the_values(part: float, value: float) -> None:
    assert quantile(range(1, 101), part) == value


def test_of_nobody_nobody_waits() -> None:
    assert waits_of([]) == Waits(0, 0.0, 0.0, 0.0)


def test_waits_are_told_in_milliseconds() -> None:
    assert waits_of([3.0, 1.23456]).as_data() == {"pods": 2, "p50": 3.0, "p99": 3.0, "max": 3.0}


def test_idle_addresses_are_weighed_by_time() -> None:
    found = course(4, 4, 0)
    assert (found.seconds, found.mean_idle, found.most_idle) == (20.0, 4.0, 4)
    assert course(7).mean_idle == 7


def test_a_long_course_is_thinned_to_its_last_sample() -> None:
    found = course(*range(100))
    thinned = found.thinned(10)
    assert 10 <= len(thinned) <= 11
    assert (thinned[0], thinned[-1]) == (found.samples[0], found.samples[-1])
    assert course(1, 2).thinned(10) == course(1, 2).samples
    uneven = Course(
        policy="enid",
        samples=(Sample(0, 0, 0, 0, 0, 0), Sample(9, 0, 0, 0, 0, 0), Sample(10, 0, 0, 0, 0, 0)),
        waits=WAITS,
        unserved=0,
        refused=0,
        ec2_calls={},
        throttled={},
    )
    assert [sample.at for sample in uneven.thinned(2)] == [0, 10]


def test_a_course_is_told_with_its_calls_by_name() -> None:
    told = course(4, 2).as_data()
    assert list(told["ec2_calls"]) == ["A", "B"]  # type: ignore[call-overload]  # JSON is objects
    assert told["idle"] == {"mean": 4.0, "max": 4}
    assert told["peak_pods"] == 5


def test_a_fleet_is_told_with_its_limits() -> None:
    told = fleet().as_data()
    assert (fleet().calls, fleet().throttles) == (7, 1)
    assert (told["nodes_ready_seconds"], told["pods_ready_seconds"]) == (1.2, None)
    assert told["ec2_calls"] == {"A": 3, "B": 4}


def test_a_fleet_can_be_drawn_as_a_course() -> None:
    drawn = fleet().as_course()
    assert (drawn.unserved, drawn.throttled, drawn.marks) == (1, {"A": 1}, ())
    assert drawn.samples == samples(1, 2)
