"""The header of a log frame: made in C, read in Python, with the checksums of the xxhash package."""

from __future__ import annotations

import xxhash
from hypothesis import given
from hypothesis import strategies as st

from dbzero.storage import format as fmt

WORD = st.integers(0, 2**64 - 1)


@given(
    kind=st.sampled_from([fmt.COMMIT, fmt.PREPARE, fmt.DECISION, fmt.MARK, fmt.VOID]),
    words=st.tuples(WORD, WORD, WORD, WORD),
    body=st.binary(max_size=3000),
    chain=st.tuples(WORD, WORD, WORD),
)
def test_what_is_written_is_read(
    kind: int, words: tuple[int, int, int, int], body: bytes, chain: tuple[int, int, int]
) -> None:
    seed, salt, offset = chain
    for form in (body, memoryview(body)):
        head, made = fmt.encode_frame(kind, *words, form, seed=seed, salt=salt, offset=offset)
        assert len(head) == fmt.FRAME_HEAD
        read = fmt.decode_frame_head(head, 0, salt=salt, offset=offset)
        assert read is not None
        assert (read.kind, read.epoch, read.state, read.durable, read.next_oid) == (kind, *words)
        assert (read.length, read.chain) == (len(body), made)
        assert made == fmt.frame_chain(head, body, seed)
        assert made == xxhash.xxh3_64_intdigest(bytes(head[16:]) + body, seed)
        assert fmt.decode_frame_head(head, 0, salt=salt, offset=offset + 8) is None, "it stands elsewhere"
