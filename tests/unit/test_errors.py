"""The words for a name that is not there."""

from shoal.errors import no_such_agent, no_such_queue


def test_what_was_likely_meant() -> None:
    """The closest, else all that there are; agents and queues are told in the same words."""
    assert str(no_such_agent("helo", ["hello", "b"])) == "no agent 'helo' in this fleet; did you mean 'hello'?"
    assert str(no_such_queue("photo", ["photos", "b"])) == "no queue 'photo' in this fleet; did you mean 'photos'?"
    assert str(no_such_agent("x", ["b", "a"])) == "no agent 'x' in this fleet; there are: a, b"
    assert str(no_such_queue("x", ["b", "a"])) == "no queue 'x' in this fleet; there are: a, b"


def test_a_fleet_without_queues() -> None:
    """Is told what makes one."""
    assert str(no_such_queue("x", [])).endswith("; an agent with `queue` or `publishes` makes one")
