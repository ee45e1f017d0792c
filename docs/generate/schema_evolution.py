"""The page of the contract: what is in it, and which changes of it break whom."""

from typing import Final

from consumer.web.api import API_V1, SCHEMA
from docs.generate.markdown import code, document, table
from generate.topics import PUBLISHED

_INTRO = """
The contract of the topics is in files that tools understand, generated from the code (`make schemas`):
"""
_WHAT: Final = {
    "state": "JSON Schema (2020-12) of the values in the state topic",
    "transition": "JSON Schema of the values in the transitions topic",
    "dead-letter-headers": "JSON Schema of the headers of dead letters, whose values are those of the input",
}
_WHERE = f"""
They are in the repository and in the package (`importlib.resources.files("schemas") / "json"`), and a worker serves its
own at `{API_V1}{SCHEMA.path}`. Every record that the live tests read from an output topic is validated with them.

No schema forbids the fields that it does not name: a reader that validates with an older one accepts new fields.
"""
_OLD_READER = """
## Old reader, new data

Readers are written for a number. Within it a message fits the schema of every earlier version:
"""
_READER_RULES: Final = (
    ("a new field", "no", "readers skip what they do not know"),
    ("a new state, disconnect type or reason", "no", "their schema is a string: they are the provider's words"),
    ("a field that was always there may be absent, or is gone", "yes", ""),
    ("another type, or `null` where there was none", "yes", ""),
    ("a new value where the schema lists all: `media`, `op`, `timeClass`, `standing`", "yes", ""),
    ("another meaning of absence (`default`)", "yes", "a field with its default is left out"),
    ("another `format` or `pattern`", "yes", ""),
)
_NUMBERS = """
The number is the field `schema`. A reader refuses a number that it does not know: it would misread the message. States
and transitions have numbers of their own. Headers of dead letters have none, so no change of theirs may break a reader.
"""
_OLD_STATE = """
## New worker, old state

A worker goes on from the states that earlier versions wrote, within a number:

- A new field has a default. It is absent in an old state until a record of the conversation has a value for it, and a
  rebuild from the input fills it.
- Nothing that was optional becomes required, and no listed value goes: old states have them.
- A state that no record changes stays as it is, byte for byte.
- An upgrade amid traffic leaves the standing transitions that a rebuild by the new version makes.

A state of another number ends the worker with exit code 78. The changelog says how to go on: [rebuild the
state](../../deploy/README.md#backup-and-rebuild), or start over.

After a rollback an older worker skips the fields that it does not know. A state that it writes has them no more, until
a newer version reads a record that shows them.
"""
_CHECKS = """
## What checks it

`tests/data/released` has the schemas of each version, with updates and what that version made of half of them. Tests
compare the newest schemas with those of today in both directions and name each change that breaks a reader, or a worker
that reads old states, unless the number has risen; validate the messages of today with the schemas of each version of
this number, and the other way round; and let a worker process the other half on the states of each version. A release
adds its folder: `python -m tests.schemas.release`.
"""


def page() -> str:
    """`schema-evolution.md`."""
    rows = [
        (code(f"{name}.schema.json"), _WHAT[name], "none" if number is None else str(number))
        for name, (_, number) in PUBLISHED.items()
    ]
    topics = (code("asyncapi.json"), "AsyncAPI 3: all four topics with their keys, headers and values", "both")
    return document(
        "Schema evolution",
        _INTRO,
        table(("file in `schemas/json`", "what", "`schema` number"), [topics, *rows]),
        _WHERE,
        _OLD_READER,
        table(("change", "breaks readers: the number rises", ""), _READER_RULES),
        _NUMBERS,
        _OLD_STATE,
        _CHECKS,
    )
