"""Sessions begin, are found and end."""

from consumer.web.sessions import SESSION_S, SESSIONS_MAX, Sessions
from tests.fakes import Clock


def test_a_session_is_found_by_its_id_until_it_ends() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    first, second = sessions.begin(), sessions.begin()
    labels = sessions.find(first), sessions.find(second)
    assert None not in labels
    assert labels[0] != labels[1]
    assert sessions.find(first + "x") is None
    sessions.end(first)
    sessions.end("unknown")
    assert (sessions.find(first), sessions.find(second)) == (None, labels[1])
    clock.now_s += SESSION_S - 1
    assert sessions.find(second) == labels[1]
    clock.now_s += 1
    assert sessions.find(second) is None


def test_a_session_too_many_ends_the_oldest() -> None:
    sessions = Sessions(Clock())
    begun = [sessions.begin() for _ in range(SESSIONS_MAX + 2)]
    assert [sessions.find(session_id) is None for session_id in begun] == [True, True] + [False] * SESSIONS_MAX


def test_what_is_held_opens_no_session() -> None:
    sessions = Sessions(Clock())
    session_id = sessions.begin()
    label = sessions.find(session_id)
    assert label is not None
    assert label not in session_id
    assert session_id not in repr(vars(sessions))
    assert sessions.find(label) is None
