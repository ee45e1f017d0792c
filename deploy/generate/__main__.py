"""`python -m deploy.generate` writes every generated file."""

from pathlib import Path
from typing import Final

from deploy.generate.conversations import CONVERSATIONS
from deploy.generate.panels import as_json
from deploy.generate.pipeline import PIPELINE
from deploy.generate.prometheus_rule import prometheus_rule

MONITORING: Final = Path(__file__).parent.parent / "components" / "monitoring"
"""The component with the rules and the generated files."""


def generate() -> dict[Path, str]:
    """Every generated file with its text."""
    rules = [file.read_text(encoding="utf-8") for file in sorted((MONITORING / "rules").glob("*.yaml"))]
    return {
        MONITORING / "dashboards" / "conversations.json": as_json(CONVERSATIONS),
        MONITORING / "dashboards" / "pipeline.json": as_json(PIPELINE),
        MONITORING / "prometheusrule.yaml": prometheus_rule(rules),
    }


if __name__ == "__main__":
    for path, text in generate().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
