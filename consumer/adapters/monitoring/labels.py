"""What all metrics share: the prefix of their names and the closed sets of their label values."""

from typing import Final, get_args

from consumer.core.lifecycle import RANKS
from schemas.state import Media

PREFIX: Final = "conversation_"
OTHER: Final = "other"
"""Stands for every label value outside of its set."""
MEDIA: Final[tuple[str, ...]] = get_args(Media)
STATES: Final = tuple(RANKS)
TOPICS: Final = ("input", "state", "transitions", "dead_letters")
"""The four topics by what they are for, in the order of `Settings.topics`."""
