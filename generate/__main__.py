"""`python -m generate` writes every generated file again."""

from importlib import resources
from pathlib import Path
from typing import Any, Final

import msgspec

from generate.asyncapi import asyncapi
from generate.openapi import openapi
from generate.topics import topic_schemas

ROOT: Final = Path(__file__).parent.parent
TOPICS: Final = ROOT / "schemas" / "json"
"""Has the contract of the topics, and nothing else."""
OPENAPI: Final = Path(str(resources.files("consumer.web"))) / "openapi.json"


def generate_files() -> dict[Path, str]:
    """Every generated file with its text."""
    documents: dict[Path, Any] = {OPENAPI: openapi()}
    documents |= {TOPICS / f"{name}.schema.json": document for name, document in topic_schemas().items()}
    documents[TOPICS / "asyncapi.json"] = asyncapi()
    return {
        path: msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"
        for path, document in documents.items()
    }


if __name__ == "__main__":
    for path, text in generate_files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
