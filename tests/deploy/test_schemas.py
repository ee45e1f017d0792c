"""The static check: every object fits its schema, and the schemas are those of the real server."""

import pytest

from tests.deploy.control_plane import ControlPlane
from tests.deploy.manifests import EVERYTHING, Manifest
from tests.deploy.mistakes import MISTAKES, Mistake, planted
from tests.deploy.schemas import FILE, asked, problems, written

Rendered = dict[str, list[Manifest]]


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_object_fits_its_schema(rendered: Rendered, name: str) -> None:
    assert [(each["kind"], told) for each in rendered[name] for told in problems(each)] == []


@pytest.mark.parametrize(
    "mistake", [each for each in MISTAKES if each.found_by == "schemas"], ids=lambda each: each.name
)
def test_a_planted_mistake_is_found(rendered: Rendered, mistake: Mistake) -> None:
    found = [told for each in planted(mistake, rendered["overlay-prod"]) for told in problems(each)]
    assert len(found) > 0


def test_the_schemas_are_those_that_the_real_server_tells(api_server: ControlPlane) -> None:
    assert written(asked(api_server)) == FILE.read_text(encoding="utf-8"), "python -m tests.deploy.schemas"
