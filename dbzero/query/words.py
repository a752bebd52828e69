"""Words of a text, as they are indexed and searched for.

A word is a run of letters, digits and marks of Unicode, in compatibility decomposition (NFKD), casefolded, without
accents (combining characters): "Straße", "STRASSE" and "strasse" are one word, and so are "Café" and "cafe".
"""

from __future__ import annotations

import re
from collections import Counter
from unicodedata import category, combining, normalize

LONGEST = 100  # characters of a word that count

_ASCII = re.compile("[a-z0-9]+")


def words(text: str) -> list[str]:
    """The words of a text, in order."""
    if text.isascii():
        found = _ASCII.findall(text.lower())
    else:
        folded = normalize("NFKD", normalize("NFKD", text).casefold())
        letters = [c if c.isalnum() or category(c)[0] == "M" else " " for c in folded if not combining(c)]
        found = "".join(letters).split()
    return [word[:LONGEST] for word in found] if found and max(map(len, found)) > LONGEST else found


def frequencies(text: object) -> dict[str, int]:
    """How often each word occurs in a text; nothing in what is no text."""
    return Counter(words(text)) if isinstance(text, str) else {}
