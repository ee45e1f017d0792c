"""The page of all log events."""

from consumer.telemetry.event_catalog import LOG_EVENTS
from docs.generate.markdown import code, document, table

_INTRO = """
One JSON object per line on standard error, or columns on a terminal. Every line has `event`, `level`
and `timestamp` (ISO 8601, UTC). No line holds anything of a record: only numbers, partitions and sentences of the
service. Nothing is logged per record. A lane that fails with the same error is logged once a minute.
"""


def page() -> str:
    """`log-events.md`."""
    rows = [(code(event.name), event.level, code(*event.fields), event.meaning) for event in LOG_EVENTS]
    return document("Log events", _INTRO, table(("event", "level", "fields", "meaning"), rows))
