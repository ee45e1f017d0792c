"""Slows down peers that guess the token.

1. A peer has `FREE` failures, and gets back one in `REGAIN_S`. Once it has none left, whatever it sends is refused
   unseen, the token as well: else the answer would tell a right guess at any rate.
2. A peer that has given the token before is believed at once, so that no other peer behind the same proxy locks it out.
3. The form, the header and the signatures of workers are counted apart, for the same reason. A signature earns no
   belief, since who listens can repeat it.
4. The last `PEERS_MAX` peers are remembered.
"""

from collections.abc import Callable, Hashable, MutableMapping
from typing import Final, Literal, TypeVar

FREE: Final = 10
REGAIN_S: Final = 5.0
PEERS_MAX: Final = 1_024
TRUST_S: Final = 43_200.0
"""How long a peer is believed after it has given the token: as long as a session."""

Way = Literal["form", "header", "signature"]
Judgement = Literal["right", "wrong", "refused"]
_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class Attempts:
    """Judges attempts by what the same peer sent before, by a monotonic clock."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._regained_s: dict[tuple[str, Way], float] = {}
        """When a peer will have all its failures back."""
        self._trusted_until_s: dict[str, float] = {}

    def judge(self, peer: str, way: Way, *, is_right: bool) -> Judgement:
        """Whether an attempt is right or wrong, or refused because the peer has failed too often."""
        now_s = self._monotonic_s()
        regained_s = max(now_s, self._regained_s.get((peer, way), now_s))
        is_spent = regained_s - now_s > (FREE - 1) * REGAIN_S
        if is_right and (not is_spent or self._trusted_until_s.get(peer, now_s) > now_s):
            if way != "signature":
                _remember(self._trusted_until_s, peer, now_s + TRUST_S)
            return "right"
        if is_spent:
            return "refused"
        _remember(self._regained_s, (peer, way), regained_s + REGAIN_S)
        return "wrong"


def _remember(values: MutableMapping[_Key, _Value], key: _Key, value: _Value) -> None:
    """Set a value as the newest, and forget the oldest if there are too many."""
    values.pop(key, None)
    while len(values) >= PEERS_MAX:
        del values[next(iter(values))]
    values[key] = value
