from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from causeway.live.hub import RING, Feed
from causeway.live.log import Message

#: Pages as they are read: how many numbers were lost before each, and how many messages are in it.
PAGES = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 300)), min_size=1, max_size=12)


class Woken:
    """A client that counts."""

    times = 0

    def wake(self) -> None:
        self.times += 1

    def doubt(self, channel: str) -> None:
        raise AssertionError(channel)


@given(pages=PAGES, back=st.integers(0, 2 * RING), most=st.integers(1, 100))
async def test_memory_gives_what_comes_next_or_sends_to_the_log(
    pages: list[tuple[int, int]], back: int, most: int
) -> None:
    feed, client = Feed("a"), Woken()
    feed.followers.add(client)
    known: set[int] = set()
    for lost, count in pages:
        first = feed.seq + lost + 1
        feed.take([Message(number, str(number)) for number in range(first, first + count)])
        known.update(range(first, first + count))
    assert client.times == len(pages)
    assert feed.seq == max(known)
    seq = max(0, feed.seq - back)
    found = feed.after(seq, most)
    if found is None:
        # Only when something between is not in memory: too long ago, or lost.
        assert (
            back > RING
            or any(n not in known for n in range(seq + 1, feed.seq + 1))
            or any(n not in known for n in range(max(1, feed.seq - RING), feed.seq))
        )
    else:
        wanted = list(range(seq + 1, feed.seq + 1))[:most]
        assert [message.seq for message in found] == wanted
        assert all(message.frame == str(message.seq) for message in found)
    assert feed.after(feed.seq, most) == []
