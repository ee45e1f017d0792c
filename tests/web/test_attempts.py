"""Peers that guess are slowed down, and no others."""

from consumer.web.attempts import FREE, PEERS_MAX, REGAIN_S, TRUST_S, Attempts
from tests.fakes import Clock


def spend(attempts: Attempts, peer: str) -> None:
    for _ in range(FREE):
        assert attempts.judge(peer, "form", is_right=False) == "wrong"


def test_a_peer_that_has_failed_too_often_learns_nothing() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    spend(attempts, "a")
    for is_right in (False, True):
        assert attempts.judge("a", "form", is_right=is_right) == "refused"
    clock.now_s += REGAIN_S
    assert attempts.judge("a", "form", is_right=False) == "wrong"
    assert attempts.judge("a", "form", is_right=True) == "refused"
    clock.now_s += REGAIN_S
    assert attempts.judge("a", "form", is_right=True) == "right"
    clock.now_s += FREE * REGAIN_S
    spend(attempts, "a")


def test_others_and_the_other_way_are_not_affected() -> None:
    attempts = Attempts(Clock())
    spend(attempts, "a")
    assert attempts.judge("a", "header", is_right=True) == "right"
    assert attempts.judge("b", "form", is_right=True) == "right"


def test_a_peer_that_has_given_the_token_is_believed_for_a_time() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    assert attempts.judge("a", "header", is_right=True) == "right"
    spend(attempts, "a")
    assert attempts.judge("a", "form", is_right=True) == "right"
    assert attempts.judge("a", "form", is_right=False) == "refused"
    clock.now_s += TRUST_S
    spend(attempts, "a")
    assert attempts.judge("a", "form", is_right=True) == "refused"


def test_it_remembers_a_bounded_number_of_peers() -> None:
    attempts = Attempts(Clock())
    spend(attempts, "a")
    for number in range(PEERS_MAX - 1):
        attempts.judge(f"b{number}", "form", is_right=False)
        attempts.judge(f"b{number}", "form", is_right=True)
    assert attempts.judge("a", "form", is_right=False) == "refused"
    for number in range(2 * PEERS_MAX):
        attempts.judge(f"c{number}", "form", is_right=False)
        attempts.judge(f"c{number}", "form", is_right=True)
    assert attempts.judge("a", "form", is_right=False) == "wrong"
    assert max(len(held) for held in vars(attempts).values() if isinstance(held, dict)) == PEERS_MAX
