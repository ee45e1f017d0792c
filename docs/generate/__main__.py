"""`python -m docs.generate` writes every page of `docs/reference` again."""

from pathlib import Path
from typing import Final

from docs.generate import (
    cli,
    exit_codes,
    http_api,
    log_events,
    metrics,
    permissions,
    schema_evolution,
    settings,
    tables,
    topics,
)

REFERENCE: Final = Path(__file__).parent.parent / "reference"
_PAGES: Final = {
    "cli": cli.page,
    "exit-codes": exit_codes.page,
    "http-api": http_api.page,
    "log-events": log_events.page,
    "metrics": metrics.page,
    "permissions": permissions.page,
    "schema-evolution": schema_evolution.page,
    "settings": settings.page,
    "tables": tables.page,
    "topics": topics.page,
}


def generate_files() -> dict[Path, str]:
    """Every page with its text."""
    return {REFERENCE / f"{name}.md": page() for name, page in _PAGES.items()}


if __name__ == "__main__":
    REFERENCE.mkdir(exist_ok=True)
    for path, text in generate_files().items():
        path.write_text(text, encoding="utf-8")
