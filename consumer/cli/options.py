"""Option types for times."""

from typing import Any

import click

from consumer.core import timestamps

_NO_TIME = "is not a time such as 2026-01-31T09:00:00Z"


class Time(click.ParamType):  # type: ignore[type-arg]  # older versions of click know no argument
    """A time in ISO 8601; the command gets it in epoch milliseconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See `ParamType.convert`."""
        parsed = timestamps.parse(value)
        if parsed is None:
            self.fail(f"{value!r} {_NO_TIME}", param, ctx)
        return parsed


class PublishedTime(click.ParamType):  # type: ignore[type-arg]  # as above
    """A time in ISO 8601; the command gets it in the form in which times are published."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See `ParamType.convert`."""
        published = timestamps.normalize(value)
        if published is None:
            self.fail(f"{value!r} {_NO_TIME}", param, ctx)
        return published
