"""The static check: every object fits its schema, and the schemas are those of the real server."""

import pytest

from tests.deploy.control_plane import ControlPlane
from tests.deploy.manifests import EVERYTHING, Manifest
from tests.deploy.mistakes import MISTAKES, Mistake, plant
from tests.deploy.schemas import FILE, fetch, problems, to_text

Rendered = dict[str, list[Manifest]]


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_object_fits_its_schema(rendered: Rendered, name: str) -> None:
    assert [(manifest["kind"], text) for manifest in rendered[name] for text in problems(manifest)] == []


@pytest.mark.parametrize(
    "mistake", [mistake for mistake in MISTAKES if mistake.found_by == "schemas"], ids=lambda mistake: mistake.name
)
def test_a_planted_mistake_is_found(rendered: Rendered, mistake: Mistake) -> None:
    assert any(problems(manifest) for manifest in plant(mistake, rendered["overlay-prod"]))


def test_the_schemas_are_those_of_the_real_server(api_server: ControlPlane) -> None:
    assert to_text(fetch(api_server)) == FILE.read_text(encoding="utf-8"), "python -m tests.deploy.schemas"
