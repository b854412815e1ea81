"""The cut of botocore's model beside the whole one: same requests, same answers, same endpoints."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import botocore.session
import pytest
from botocore import parsers, serialize
from botocore.config import Config
from botocore.loaders import Loader
from botocore.model import ServiceModel

from eni import ec2, reduced

REGIONS = (
    "us-east-1", "eu-central-2", "ap-southeast-7", "cn-north-1", "us-gov-west-1", "us-iso-east-1",
    "xx-new-1",
)  # fmt: skip


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> reduced.ReducedLoader:
    """Loads what the tool makes now, whatever set-up has made before."""
    folder = tmp_path_factory.mktemp("cut")
    for name, content in reduced.files(Loader()):
        file = folder / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    return reduced.ReducedLoader(None, folder)


@pytest.fixture(scope="module")
def whole() -> Loader:
    return Loader()


def model_of(loader: Loader) -> ServiceModel:
    return ServiceModel(loader.load_service_model("ec2", "service-2"), "ec2")


@pytest.fixture(scope="module")
def models(whole: Loader, cut: Loader) -> tuple[ServiceModel, ServiceModel]:
    return model_of(whole), model_of(cut)


def client(loader: Loader, service: str, region: str, **config: Any) -> Any:
    session = botocore.session.Session()
    session.register_component("data_loader", loader)
    return session.create_client(
        service,
        region_name=region,
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        config=Config(**config),
    )


# Which actions ---------------------------------------------------------------------------
def called() -> Iterator[str]:
    """Yield each method of EC2's client that `eni.ec2` calls, by its Python name."""
    for node in ast.walk(ast.parse(Path(ec2.__file__).read_text())):
        match node:
            case ast.Call(ast.Attribute(ast.Name("client"), "get_paginator"), [ast.Constant(name)]):
                yield str(name)
            case ast.Call(ast.Attribute(ast.Name("client"), name)):
                yield name


def test_what_ec2_py_calls_is_kept_and_nothing_else(cut: Loader) -> None:
    names = client(cut, "ec2", "us-east-1").meta.method_to_api_mapping
    assert {names.get(name, name) for name in called()} == {*reduced.ACTIONS}
    assert {*names.values()} == {*reduced.ACTIONS}


def test_the_paginators_that_ec2_py_asks_for_are_kept(cut: Loader) -> None:
    ours = client(cut, "ec2", "us-east-1")
    assert ours.can_paginate("describe_network_interfaces")
    assert ours.can_paginate("describe_subnets")


def test_set_up_has_made_what_the_tool_makes_now() -> None:
    made = {name: json.loads(json.dumps(content)) for name, content in reduced.files(Loader())}
    there = {name: json.loads((reduced.folder() / f"{name}.json").read_text()) for name in made}
    assert there == made


# Requests and answers --------------------------------------------------------------------
LEAVES = {
    "boolean": True, "integer": 7, "long": 7, "float": 7, "double": 7, "blob": b"bytes",
    "timestamp": "2026-07-01T00:00:00Z",
}  # fmt: skip


def example(shape: Any, above: tuple[str, ...] = ()) -> Any:
    """Return a value of a shape that has all its members, two levels of a recursive one."""
    inner = (*above, shape.name)
    if shape.type_name == "structure":
        return {
            name: example(member, inner)
            for name, member in shape.members.items()
            if inner.count(member.name) < 2
        }
    if shape.type_name == "list":
        return [example(shape.member, inner)] if inner.count(shape.member.name) < 2 else []
    if shape.type_name == "string":
        return shape.enum[0] if shape.enum else f"<{shape.name}>"
    return LEAVES[shape.type_name]


def xml(tag: str, shape: Any, value: Any) -> str:
    """Return EC2's answer for a *value* of *shape*."""
    if shape.type_name == "structure":
        inner = "".join(
            xml(
                shape.members[name].serialization.get("name", name),
                shape.members[name],
                one,
            )
            for name, one in value.items()
        )
    elif shape.type_name == "list":
        item = shape.member.serialization.get("name", "item")
        inner = "".join(xml(item, shape.member, one) for one in value)
    else:
        inner = str(value).lower() if isinstance(value, bool) else escape(str(value))
    return f"<{tag}>{inner}</{tag}>"


@pytest.mark.parametrize("action", reduced.ACTIONS)
def test_the_same_request_goes_out(action: str, models: tuple[ServiceModel, ServiceModel]) -> None:
    wish = example(models[0].operation_model(action).input_shape)
    one, other = (
        serialize.create_serializer("ec2").serialize_to_request(wish, model.operation_model(action))
        for model in models
    )
    assert one == other
    assert one["body"]["Action"] == action


@pytest.mark.parametrize("action", reduced.ACTIONS)
def test_the_same_answer_is_read(action: str, models: tuple[ServiceModel, ServiceModel]) -> None:
    shape = models[0].operation_model(action).output_shape
    text = xml(f"{action}Response", shape, example(shape)) if shape else "<Response/>"
    answer = {"body": text.encode(), "headers": {}, "status_code": 200}
    parse: Any = parsers.create_parser("ec2").parse  # some actions answer nothing
    one, other = (parse(answer, m.operation_model(action).output_shape) for m in models)
    assert one == other
    assert shape is None or one.keys() >= shape.members.keys()


def test_the_same_metadata_describes_both(models: tuple[ServiceModel, ServiceModel]) -> None:
    assert models[0].metadata == models[1].metadata


# Endpoints -------------------------------------------------------------------------------
def endpoint(loader: Loader, service: str, region: str, **config: Any) -> tuple[str, str, str]:
    made = client(loader, service, region, **config)
    requests: list[Any] = []

    def keep(request: Any, **_: object) -> None:
        requests.append(request)
        raise InterruptedError

    made.meta.events.register("before-send", keep)
    ask = made.describe_subnets if service == "ec2" else made.get_caller_identity
    with pytest.raises(InterruptedError):
        ask()
    (sent,) = requests
    signed = sent.headers["Authorization"].decode().split("/")
    return sent.url, signed[2], signed[3]


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize(
    "config",
    [{}, {"use_fips_endpoint": True}, {"use_dualstack_endpoint": True}],
    ids=["plain", "fips", "dual-stack"],
)
def test_ec2_is_at_the_same_place(
    whole: Loader, cut: Loader, region: str, config: dict[str, bool]
) -> None:
    try:
        expected = endpoint(whole, "ec2", region, **config)
    except botocore.exceptions.EndpointProviderError as error:  # not every partition has all
        with pytest.raises(botocore.exceptions.EndpointProviderError, match=str(error)):
            endpoint(cut, "ec2", region, **config)
    else:
        assert endpoint(cut, "ec2", region, **config) == expected


@pytest.mark.parametrize("region", REGIONS)
def test_tokens_are_exchanged_at_the_same_place(whole: Loader, cut: Loader, region: str) -> None:
    assert endpoint(cut, "sts", region) == endpoint(whole, "sts", region)


# Whose files -----------------------------------------------------------------------------
def test_a_users_own_files_come_first(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "endpoints.json").write_text('{"mine": true}')
    loader = reduced.ReducedLoader(str(own), tmp_path / "cut")
    assert loader.load_data_with_path("endpoints") == ({"mine": True}, str(own / "endpoints"))
    assert not loader.is_builtin_path(str(own / "endpoints"))


def test_without_a_cut_botocores_own_files_serve(tmp_path: Path) -> None:
    loader = reduced.ReducedLoader(None, tmp_path / "none")
    assert len(model_of(loader).operation_names) > 500
