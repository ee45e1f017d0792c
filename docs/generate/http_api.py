"""The page of what answers over HTTP."""

import json
from pathlib import Path
from typing import Any

from consumer.settings import Settings
from docs.generate.markdown import code, document, table
from docs.generate.messages import sections
from schemas.query import ConversationFound, LiveCommunications, Overview, Problem, Timeline

_PACKAGE = Path(__file__).parents[2] / "consumer"
_PREFIX = "/api/v1"
_DEFAULTS = Settings(bootstrap_servers="broker:9092")
_INTRO = f"""
Two ports answer over HTTP. Both listen on loopback by default, and both limit connections, sizes, times and rate, so
that no client stalls the worker; `conversation_http_refusals_total` counts what was refused or ended.

## The admin port

`CC_ADMIN_HOST`, `CC_ADMIN_PORT` ({_DEFAULTS.admin_port}). It serves nothing of any customer and asks for no token.

| path | answer |
| --- | --- |
| `/livez` | 200 while all lanes make progress or are idle, else 503. Waiting for a broker counts as progress |
| `/readyz` | 200 while the worker serves all its partitions, else 503: see its checks below |
| `/metrics` | [metrics](metrics.md) in the format that `Accept` asks for, Prometheus or OpenMetrics |

Both probes answer a JSON object with the checks by name: `"ok"`, or a sentence on what is wrong. `/livez` has the check
`lanes`. `/readyz` has `group` (joined), `connection` (Kafka answers), `standstill` (no partition stands still), `lanes`
(all are open), `breaker` (none is open), `batches` (none is too large to be read) and `draining` (not shutting down).

## The query port

`CC_QUERY_HOST`, `CC_QUERY_PORT` ({_DEFAULTS.query_port}). `/` is [the live page](../how-to/query.md#the-live-page), for
people. What follows is for programs, and is served as an OpenAPI document at `{_PREFIX}/openapi.json`.

With `CC_QUERY_TOKEN` set, which a port beyond loopback needs, a request carries `Authorization: Bearer TOKEN`. Without
it, only requests that name a loopback host are answered.
"""


def page() -> str:
    """`http-api.md`."""
    (file,) = _PACKAGE.rglob("openapi.json")
    openapi = json.loads(file.read_text(encoding="utf-8"))
    operations = [_operation(path, item["get"]) for path, item in openapi["paths"].items()]
    problems = [
        (status, described["description"]) for status, described in sorted(openapi["components"]["responses"].items())
    ]
    return document(
        "HTTP",
        _INTRO,
        openapi["info"]["description"],
        *operations,
        "### Problems\n\nAn answer that is none has the type `application/problem+json` (RFC 9457):",
        table(("status", "why"), problems),
        "## Answers",
        sections(ConversationFound, Timeline, LiveCommunications, Overview, Problem, topics_page="topics.md"),
    )


def _operation(path: str, operation: dict[str, Any]) -> str:
    parts = [f"### GET {_PREFIX}{path}", f"{operation['summary']}."]
    parts += [operation["description"]] if "description" in operation else []
    rows = [
        (code(parameter["name"]), parameter["in"], _values(parameter["schema"]), parameter["description"])
        for parameter in operation.get("parameters", ())
    ]
    parts += [table(("parameter", "in", "values", "meaning"), rows)] if rows else []
    statuses = [status for status in operation["responses"] if status != "200"]
    (content,) = operation["responses"]["200"]["content"].values()
    name = content["schema"].get("$ref", "").rpartition("/")[2]
    answer = f"a [{name}](#{name.lower()})" if name else "the document"
    parts.append(f"Answers 200 with {answer}, or one of {code(*statuses)}.")
    return "\n\n".join(parts)


def _values(schema: dict[str, Any]) -> str:
    """What a parameter may be, in words."""
    if "enum" in schema:
        return code(*schema["enum"])
    bounds = [
        f"{schema[key]} {word}" for key, word in (("minimum", "or more"), ("maximum", "or less")) if key in schema
    ]
    default = [f"default {schema['default']}"] if "default" in schema else []
    lengths = [f"at most {schema['maxLength']} characters"] if "maxLength" in schema else []
    return ", ".join([schema["type"], *bounds, *lengths, *default])
