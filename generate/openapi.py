"""The documentation of the query port, as OpenAPI 3.1 has it."""

import re
from http import HTTPStatus
from typing import Any

from consumer.web.api import API_V1, ENDPOINTS, PROBLEMS, VARIABLES, Endpoint, ProblemKind
from generate.components import components
from schemas.query import Problem

_SCHEMA_REF = "#/components/schemas/{name}"
_Json = dict[str, Any]


def openapi() -> _Json:
    """The document."""
    answers = [endpoint.answer for endpoint in ENDPOINTS if endpoint.answer is not None]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "conversation-consumer query API",
            "version": "1",
            "summary": "What Genesys Cloud conversations are in now, how they came there, and what is live.",
            "description": (
                "Answers are committed state only, and any worker gives them. A conversation of another worker's "
                "partition is looked up in the state topic; what is live is asked of all workers, and an answer that "
                "does not count all partitions says so. Times are ISO-8601 UTC with milliseconds. New fields may "
                "appear in answers at any time."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": API_V1}],
        "security": [{"token": []}, {}],
        "paths": {endpoint.path: {"get": _operation(endpoint)} for endpoint in ENDPOINTS},
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": (
                        "CC_QUERY_TOKEN. Needed if it is set, which it has to be for a port beyond loopback."
                    ),
                }
            },
            "responses": {str(status): _problem(kind) for status, kind in PROBLEMS.items()},
            "schemas": components([*answers, Problem], _SCHEMA_REF),
        },
        "tags": [{"name": tag} for tag in dict.fromkeys(endpoint.tag for endpoint in ENDPOINTS)],
    }


def _operation(endpoint: Endpoint[Any]) -> _Json:
    operation: _Json = {"operationId": endpoint.operation_id, "summary": endpoint.summary, "tags": [endpoint.tag]}
    if endpoint.description:
        operation["description"] = endpoint.description
    if parameters := [*_path_parameters(endpoint), *_query_parameters(endpoint)]:
        operation["parameters"] = parameters
    answer = {"type": "object"} if endpoint.answer is None else _reference(endpoint.answer)
    operation["responses"] = {
        str(HTTPStatus.OK.value): {
            "description": endpoint.answer_description,
            "content": {"application/json": {"schema": answer}},
        }
    } | {str(status): {"$ref": f"#/components/responses/{status}"} for status in endpoint.problems}
    return operation


def _path_parameters(endpoint: Endpoint[Any]) -> list[_Json]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": VARIABLES[name],
            "schema": {"type": "string"},
        }
        for name in re.findall(r"\{(\w+)\}", endpoint.path)
    ]


def _query_parameters(endpoint: Endpoint[Any]) -> list[_Json]:
    schema = components([endpoint.parameters], _SCHEMA_REF)[endpoint.parameters.__name__]
    return [
        {"name": name, "in": "query", "description": parameter.pop("description"), "schema": _present(parameter)}
        for name, parameter in schema["properties"].items()
    ]


def _present(schema: _Json) -> _Json:
    """The schema of a parameter where it is given: that it may be absent is no null, as it is in the code."""
    if "anyOf" in schema:
        (schema,) = [choice for choice in schema["anyOf"] if choice != {"type": "null"}]
    elif "enum" in schema:
        schema["enum"] = [value for value in schema["enum"] if value is not None]
    if schema.get("default", ...) is None:
        del schema["default"]
    return schema


def _problem(kind: ProblemKind) -> _Json:
    response = {
        "description": kind.description,
        "content": {"application/problem+json": {"schema": _reference(Problem)}},
    }
    if kind.header is not None:
        header: _Json = {"description": kind.header.description} if kind.header.description else {}
        if kind.header.required:
            header["required"] = True
        response["headers"] = {kind.header.name: header | {"schema": {"type": "string"}}}
    return response


def _reference(struct: type) -> _Json:
    return {"$ref": _SCHEMA_REF.format(name=struct.__name__)}
