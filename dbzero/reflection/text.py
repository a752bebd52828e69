"""taggify: short tokens of a text."""

from __future__ import annotations

import re
from collections.abc import Iterator

_BREAKS = re.compile(r"[\s.,;:\-!?\"']+")
_LATIN = str.maketrans("ĄĆĘŁŃÓŚŹŻ", "ACELNOSZZ")


def taggify(text: str, max_len: int | None = 3, min_len: int = 1, suffix: bool = False) -> Iterator[str]:
    """Distinct upper-case tokens of a text, made of its words' beginnings, in order.

    Args:
        text: split at white space and punctuation; only letters and digits count, Polish ones as their Latin kin.
        max_len: characters kept of each word; None: all. min_len: shorter words are left out.
        suffix: keep the ends of the words instead.

    >>> import dbzero as db0
    >>> list(db0.taggify("--Mińsk Mazowiecki", max_len=4))
    ['MINS', 'MAZO']
    """
    seen: set[str] = set()
    for word in _BREAKS.split(text):
        token = "".join(filter(str.isalnum, word)).upper().translate(_LATIN)
        if not token or len(token) < min_len:
            continue
        if max_len is not None:
            token = token[max(len(token) - max_len, 0) :] if suffix else token[:max_len]
        if token and token not in seen:
            seen.add(token)
            yield token
