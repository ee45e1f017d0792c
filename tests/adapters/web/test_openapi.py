"""The documentation of the query port: valid, true to the code, and true to the answers."""

import json
from importlib import resources
from typing import Any

import msgspec
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from referencing import Registry, Resource

from consumer.adapters.web import query
from consumer.adapters.web.query import LiveParameters, NoParameters, TimelineParameters
from consumer.runtime.lookup import Found, Unfinished
from schemas.query import ConversationFound, LiveCommunications, Problem, Timeline
from tests.adapters.web.test_query import MARK, TOKEN, Site, serving
from tests.strategies import at

DOCUMENT = json.loads(resources.files("consumer.adapters.web").joinpath("openapi.json").read_bytes())
PREFIX = "/api/v1"
OPERATIONS = {path: item["get"] for path, item in DOCUMENT["paths"].items()}
PARAMETERS = {
    "/conversations/{conversationId}": NoParameters,
    "/conversations/{conversationId}/timeline": TimelineParameters,
    "/communications": LiveParameters,
    "/openapi.json": NoParameters,
}


def without(value: Any, *names: str) -> Any:
    """A document without some keys, at any depth."""
    if isinstance(value, dict):
        return {key: without(each, *names) for key, each in value.items() if key not in names}
    return [without(each, *names) for each in value] if isinstance(value, list) else value


def resolved(value: dict[str, Any]) -> dict[str, Any]:
    """What a `$ref` within the document stands for."""
    if "$ref" not in value:
        return value
    found: Any = DOCUMENT
    for name in value["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return resolved(found)


def check(path: str, status: int, content_type: str, headers: Any, body: Any) -> None:
    """Assert that an answer is one of those that are documented."""
    told = resolved(OPERATIONS[path]["responses"][str(status)])
    for name, header in told.get("headers", {}).items():
        assert name in headers or not header.get("required"), name
    (expected_type, content), *_ = told["content"].items()
    assert content_type == expected_type
    registry: Any = Registry().with_resource("urn:document", Resource.opaque(DOCUMENT))
    schema = json.loads(json.dumps(content["schema"]).replace('"#/', '"urn:document#/'))
    OAS31Validator(schema, registry=registry).validate(body)


def test_the_document_is_valid() -> None:
    validate(DOCUMENT, cls=OpenAPIV31SpecValidator)


def test_the_schemas_are_those_of_the_code() -> None:
    _, expected = msgspec.json.schema_components(
        [ConversationFound, Timeline, LiveCommunications, Problem], ref_template="#/components/schemas/{name}"
    )
    assert without(DOCUMENT["components"]["schemas"], "description") == without(expected, "description")


def test_every_schema_and_operation_says_what_it_is() -> None:
    assert [name for name, each in DOCUMENT["components"]["schemas"].items() if not each["description"]] == []
    assert [path for path, each in OPERATIONS.items() if not each["summary"]] == []


@pytest.mark.parametrize("path", OPERATIONS)
def test_the_parameters_are_those_of_the_code(path: str) -> None:
    _, schema = msgspec.json.schema_components([PARAMETERS[path]])
    expected = schema[PARAMETERS[path].__name__].get("properties", {})
    told = {each["name"]: each["schema"] for each in OPERATIONS[path].get("parameters", ()) if each["in"] == "query"}
    assert told.keys() == expected.keys()
    for name, each in told.items():
        assert without(each, "default") == without(present(expected[name]), "default")
        assert each.get("default") == expected[name].get("default")


def present(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema where it is given: the code says by None that it may be absent."""
    (given,) = [each for each in schema.get("anyOf", [schema]) if each != {"type": "null"}]
    return {key: [each for each in value if each] if key == "enum" else value for key, value in given.items()}


async def test_the_paths_are_those_that_are_served_and_the_document_is_one_of_them() -> None:
    async with serving("") as site:
        served = {
            (route.method, route.resource.canonical)
            for route in site.server._server._runner.app.router.routes()
            if route.resource is not None and route.method != "HEAD" and route.resource.canonical.startswith("/api/")
        }
        assert served == {("GET", PREFIX + path) for path in OPERATIONS}
        assert set(DOCUMENT["paths"]) == set(PARAMETERS)
        assert await site.told(f"{PREFIX}/openapi.json") == (200, DOCUMENT)


async def every_answer(site: Site, path: str) -> set[int]:
    """Ask for whatever a path may answer; the statuses that came, each checked."""
    seen = set()
    url = PREFIX + path.replace("{conversationId}", MARK)
    other = PREFIX + path.replace("{conversationId}", "other")

    async def ask(asked: str, method: str = "GET", **headers: str) -> int:
        status, answer, body = await site.ask(asked, method, **({"Authorization": f"Bearer {TOKEN}"} | headers))
        check(path, status, answer.headers["Content-Type"], answer.headers, json.loads(body))
        seen.add(status)
        return status

    assert await ask(url) == 200
    assert await ask(f"{url}?unknown=1") == 400
    assert await ask(url, Authorization="no") == 401
    assert await ask(url, "PUT") == 405
    if path.endswith("timeline"):
        assert await ask(f"{url}?asOf={at(2)}") == 200
    if path == "/communications":
        assert await ask(f"{url}?limit=1") == 200
    if url != other:
        state = site.worker.lanes[0].store.get(MARK)
        for says, status in (
            (Found(7, "state_topic", state), 200),
            (Found(7, "state_topic", None), 404),
            (Unfinished(7, 9, 1), 504),
        ):
            site.topic.says = says
            assert await ask(other) == status
        site.home = None
        assert await ask(other) == 503
    return seen


@pytest.mark.parametrize("path", OPERATIONS)
async def test_every_documented_answer_is_seen_and_is_as_documented(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as site:
        seen = await every_answer(site, path)
    async with serving("") as site:
        url = PREFIX + path.replace("{conversationId}", MARK)
        for late_s, host in ((9.0, "evil.example"), (0.0, "localhost")):
            monkeypatch.setattr(query, "_ANSWER_S", late_s)
            status, answer, body = await site.ask(url, Host=host)
            check(path, status, answer.headers["Content-Type"], answer.headers, json.loads(body))
            seen.add(status)
    assert seen == {int(status) for status in OPERATIONS[path]["responses"]}


def test_an_answer_that_is_not_as_documented_is_noticed() -> None:
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
