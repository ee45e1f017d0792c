"""The documentation of the query port is valid, and agrees with the code and the answers."""

import json
from importlib import resources
from typing import Any

import msgspec
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from referencing import Registry, Resource

from consumer.query.lookup import Found, Unfinished
from consumer.web import attempts, query_port
from consumer.web.api import LiveParameters, NoParameters, TimelineParameters
from schemas.query import ConversationFound, LiveCommunications, Overview, Problem, Timeline
from tests.strategies import at
from tests.web.test_query_port import MARK, TOKEN, Site, serving

DOCUMENT = json.loads(resources.files("consumer.web").joinpath("openapi.json").read_bytes())
PREFIX = "/api/v1"
OPERATIONS = {path: item["get"] for path, item in DOCUMENT["paths"].items()}
PARAMETERS = {
    "/conversations/{conversationId}": NoParameters,
    "/conversations/{conversationId}/timeline": TimelineParameters,
    "/communications": LiveParameters,
    "/overview": NoParameters,
    "/openapi.json": NoParameters,
    "/schemas/{schema}": NoParameters,
}


def without(value: Any, *names: str) -> Any:
    """A document without some keys, at any depth."""
    if isinstance(value, dict):
        return {key: without(item, *names) for key, item in value.items() if key not in names}
    return [without(item, *names) for item in value] if isinstance(value, list) else value


def resolve(value: dict[str, Any]) -> dict[str, Any]:
    """The part of the document that a `$ref` points to."""
    if "$ref" not in value:
        return value
    found: Any = DOCUMENT
    for name in value["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return resolve(found)


def check(path: str, status: int, content_type: str, headers: Any, body: Any) -> None:
    """Assert that an answer is one of those that are documented."""
    response = resolve(OPERATIONS[path]["responses"][str(status)])
    for name, header in response.get("headers", {}).items():
        assert name in headers or not header.get("required"), name
    (expected_type, content), *_ = response["content"].items()
    assert content_type == expected_type
    registry: Any = Registry().with_resource("urn:document", Resource.opaque(DOCUMENT))
    schema = json.loads(json.dumps(content["schema"]).replace('"#/', '"urn:document#/'))
    OAS31Validator(schema, registry=registry).validate(body)


def test_the_document_is_valid() -> None:
    validate(DOCUMENT, cls=OpenAPIV31SpecValidator)


def test_the_schemas_are_those_of_the_code() -> None:
    _, expected = msgspec.json.schema_components(
        [ConversationFound, Timeline, LiveCommunications, Overview, Problem], ref_template="#/components/schemas/{name}"
    )
    assert without(DOCUMENT["components"]["schemas"], "description") == without(expected, "description")


def test_every_schema_and_operation_is_described() -> None:
    assert [name for name, schema in DOCUMENT["components"]["schemas"].items() if not schema["description"]] == []
    assert [path for path, operation in OPERATIONS.items() if not operation["summary"]] == []


@pytest.mark.parametrize("path", OPERATIONS)
def test_the_parameters_are_those_of_the_code(path: str) -> None:
    _, schema = msgspec.json.schema_components([PARAMETERS[path]])
    expected = schema[PARAMETERS[path].__name__].get("properties", {})
    parameters = OPERATIONS[path].get("parameters", ())
    documented = {item["name"]: item["schema"] for item in parameters if item["in"] == "query"}
    assert documented.keys() == expected.keys()
    for name, parameter in documented.items():
        assert without(parameter, "default") == without(present(expected[name]), "default")
        assert parameter.get("default") == expected[name].get("default")


def present(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter that is present: in the code None means that it is absent."""
    (given,) = [option for option in schema.get("anyOf", [schema]) if option != {"type": "null"}]
    return {key: [item for item in value if item] if key == "enum" else value for key, value in given.items()}


async def test_the_documented_paths_are_those_that_are_served() -> None:
    async with serving("") as site:
        served = {
            (route.method, route.resource.canonical)
            for route in site.server._server._runner.app.router.routes()
            if route.resource is not None and route.method != "HEAD" and route.resource.canonical.startswith(PREFIX)
        }
        assert served == {("GET", PREFIX + path) for path in OPERATIONS}
        assert set(DOCUMENT["paths"]) == set(PARAMETERS)
        assert await site.ask_json(f"{PREFIX}/openapi.json") == (200, DOCUMENT)


async def test_every_part_of_the_contract_is_served_and_nothing_else() -> None:
    async with serving("") as site:
        for file in resources.files("schemas").joinpath("json").iterdir():
            assert await site.ask_json(f"{PREFIX}/schemas/{file.name}") == (200, json.loads(file.read_bytes()))
        for name in ("", "..", "..%2fstate.py", "state", "%2fetc%2fpasswd"):
            assert (await site.ask_json(f"{PREFIX}/schemas/{name}"))[0] == 404


def url_of(path: str) -> str:
    """The address of something that is there."""
    return PREFIX + path.replace("{conversationId}", MARK).replace("{schema}", "state.schema.json")


async def every_answer(site: Site, path: str) -> set[int]:
    """Ask for every answer that a path may give, and check it; returns the statuses."""
    seen = set()
    url, other = url_of(path), PREFIX + path.replace("{conversationId}", "other").replace("{schema}", "other")

    async def ask(target: str, method: str = "GET", **headers: str) -> int:
        status, answer, body = await site.ask(target, method, **({"Authorization": f"Bearer {TOKEN}"} | headers))
        check(path, status, answer.headers["Content-Type"], answer.headers, json.loads(body))
        seen.add(status)
        return status

    assert await ask(url) == 200
    assert await ask(f"{url}?unknown=1") == 400
    assert await ask(url, Authorization="no") == 401
    for _ in range(attempts.FREE):
        throttled = await ask(url, Authorization="no")
    assert throttled == 429
    assert await ask(url, "PUT") == 405
    if path.endswith("timeline"):
        assert await ask(f"{url}?asOf={at(2)}") == 200
    if path == "/communications":
        assert await ask(f"{url}?limit=1") == 200
    if "{schema}" in path:
        assert await ask(other) == 404
    elif url != other:
        state = site.worker.lanes[0].engine.states.get(MARK)
        for answer, status in (
            (Found(7, "state_topic", state), 200),
            (Found(7, "state_topic", None), 404),
            (Unfinished(7, 9, 1), 504),
        ):
            site.topic.answer = answer
            assert await ask(other) == status
        site.home = None
        assert await ask(other) == 503
    return seen


@pytest.mark.parametrize("path", OPERATIONS)
async def test_every_documented_answer_is_given(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as site:
        seen = await every_answer(site, path)
    async with serving("") as site:
        url = url_of(path)
        for late_s, host in ((9.0, "evil.example"), (0.0, "localhost")):
            monkeypatch.setattr(query_port, "_ANSWER_S", late_s)
            status, answer, body = await site.ask(url, Host=host)
            check(path, status, answer.headers["Content-Type"], answer.headers, json.loads(body))
            seen.add(status)
    assert seen == {int(status) for status in OPERATIONS[path]["responses"]}


def test_an_answer_that_is_not_documented_is_noticed() -> None:
    right = {"title": "t", "status": 404}
    check("/communications", 405, "application/problem+json", {"Allow": "GET"}, right)
    with pytest.raises(AssertionError):
        check("/communications", 405, "application/problem+json", {}, right)
    with pytest.raises(Exception, match="'404' is not of type 'integer'"):
        check("/communications", 405, "application/problem+json", {"Allow": "GET"}, right | {"status": "404"})
    page = {"partitions": [0], "next": None}
    item = {"conversationId": "c1"}
    with pytest.raises(Exception, match="is a required property"):
        check("/communications", 200, "application/json", {}, page | {"items": [item]})
