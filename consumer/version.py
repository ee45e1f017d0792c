"""The version of this service, as installed; `0+unknown` when run from a bare checkout."""

from importlib import metadata

try:
    VERSION = metadata.version("conversation-consumer")
except metadata.PackageNotFoundError:
    VERSION = "0+unknown"
