"""The newest value of a detail is kept, even if later updates leave it out."""

from typing import Any

import pytest
from msgspec.structs import replace

from consumer.core.lww import merge
from schemas.state import ParticipantDetails

NONE = ParticipantDetails()
AGENT = ParticipantDetails(purpose="agent")
USER = ParticipantDetails(user_id="u")
FULL = ParticipantDetails("agent", "u", "q", "t", "e", wrapup_required=True)
BOTH = ParticipantDetails(purpose="agent", user_id="u")


@pytest.mark.parametrize(
    ("known", "update", "expected"),
    [
        ((AGENT, 5, {}), (AGENT, 5), None),
        ((AGENT, 5, {}), (AGENT, 4), None),
        ((AGENT, 5, {}), (NONE, 4), None),
        ((AGENT, 5, {}), (AGENT, 6), (AGENT, 6, {})),
        ((AGENT, 5, {}), (NONE, 6), (AGENT, 6, {"purpose": 5})),
        ((AGENT, 6, {"purpose": 5}), (NONE, 7), (AGENT, 7, {"purpose": 5})),
        ((AGENT, 6, {"purpose": 4}), (AGENT, 5), (AGENT, 6, {"purpose": 5})),
        ((AGENT, 6, {"purpose": 5}), (AGENT, 5), None),
        ((AGENT, 6, {"purpose": 5}), (AGENT, 6), (AGENT, 6, {})),
        ((AGENT, 6, {"purpose": 5}), (AGENT, 7), (AGENT, 7, {})),
        ((AGENT, 5, {}), (USER, 6), (BOTH, 6, {"purpose": 5})),
        ((AGENT, 5, {}), (USER, 5), (BOTH, 5, {})),
        ((AGENT, 5, {}), (USER, 4), (BOTH, 5, {"userId": 4})),
        ((BOTH, 5, {"userId": 4}), (USER, 3), None),
        ((BOTH, 5, {"userId": 4}), (replace(USER, user_id="v"), 3), None),
        ((BOTH, 5, {"userId": 3}), (replace(USER, user_id="v"), 4), (replace(BOTH, user_id="v"), 5, {"userId": 4})),
        ((BOTH, 5, {"userId": 3}), (replace(AGENT, purpose="acd"), 4), None),
        ((AGENT, 5, {}), (replace(AGENT, purpose="acd"), 6), (replace(AGENT, purpose="acd"), 6, {})),
        ((AGENT, 5, {}), (replace(AGENT, purpose="acd"), 5), None),
        ((AGENT, 5, {}), (replace(AGENT, purpose="customer"), 5), (replace(AGENT, purpose="customer"), 5, {})),
        ((AGENT, 5, {}), (replace(AGENT, purpose="customer"), 4), None),
        ((NONE, 5, {}), (NONE, 6), (NONE, 6, {})),
        ((FULL, 5, {}), (replace(FULL, purpose=None), 6), (FULL, 6, {"purpose": 5})),
        ((replace(FULL, purpose=None), 5, {}), (FULL, 6), (FULL, 6, {})),
        ((NONE, 5, {}), (AGENT, 4), (AGENT, 5, {"purpose": 4})),
    ],
)
def test_merge(known: tuple[Any, ...], update: tuple[Any, int], expected: Any) -> None:
    details, version, older = known
    before = dict(older)
    assert merge(details, version, older, *update) == expected
    assert older == before
