"""The page of all settings."""

from consumer.environment import describe_all
from docs.generate.markdown import code, document, table

_INTRO = """
Settings are environment variables. `CC_<NAME>_FILE` names a file to read the value from, which is how secrets are
mounted. They are parsed once, at the start. A variable that begins with `CC_` and is none of these is an error, so is a
combination that would break a promise, and all problems are reported at once, with the names and without the values of
secrets. `conversation-consumer check` reports the same.

Few of them are worth changing: [which, and why](../../deploy/README.md#settings-that-matter).
"""


def page() -> str:
    """`settings.md`."""
    rows = [(code(name), code(default) if default else "", meaning) for name, default, meaning in describe_all()]
    return document("Settings", _INTRO, table(("variable", "default", "meaning"), rows))
