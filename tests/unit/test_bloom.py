"""Blooms deny what they lack, all at once as one by one; the digest below them is keccak-256."""

from __future__ import annotations

from eth_hash.auto import keccak as reference
from hypothesis import given
from hypothesis import strategies as st

from causeway.chains.evm.bloom import bloom_bits, bloom_of, denied, places_in
from causeway.chains.evm.hashing import keccak

ITEMS = st.integers(0, 12).map(lambda number: number.to_bytes(20, "big"))


@given(st.binary(max_size=300))
def test_the_digest_is_keccak(data: bytes) -> None:
    assert keccak(data) == reference(data)


@given(st.lists(st.tuples(st.lists(ITEMS), st.lists(ITEMS)), max_size=6))
def test_the_first_bloom_that_lacks_an_item_is_found(
    blocks: list[tuple[list[bytes], list[bytes]]],
) -> None:
    """Each block has some items in its bloom, and logs with others."""
    blooms = [bloom_of((item, ()) for item in kept) for kept, _ in blocks]
    wanted = next(
        (
            at
            for at, (_, asked) in enumerate(blocks)
            if any(bloom_bits(item) & ~blooms[at] for item in asked)
        ),
        None,
    )
    assert denied(blooms, [[places_in(item) for item in asked] for _, asked in blocks]) == wanted
