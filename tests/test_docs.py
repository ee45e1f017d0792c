"""What the changelog and the pages in `docs` name exists."""

import re
from pathlib import Path

import pytest

from consumer.adapters.monitoring.metrics import Metrics

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("**/*.md"))]
ALERTS = (ROOT / "deploy/components/monitoring/rules/alerts.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_exists(page: Path) -> None:
    """Tests, files, metrics and alerts."""
    quoted = set(re.findall(r"`([^`]+)`", page.read_text(encoding="utf-8")))
    for name in quoted:
        if name.startswith(("tests/", "consumer/", "deploy/")):
            path, _, test = name.partition("::")
            assert (ROOT / path).exists(), name
            assert not test or f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), name
    metrics = {name for name in quoted if re.fullmatch(r"conversation_[a-z_]+", name)}
    assert metrics <= {metric.name for metric in Metrics().described()}
    alerts = {name for name in quoted if re.fullmatch(r"Conversation[A-Za-z]+", name)}
    assert {alert for alert in alerts if f"alert: {alert}\n" not in ALERTS} == set()


def test_there_are_pages() -> None:
    assert len(PAGES) > 1
