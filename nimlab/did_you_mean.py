"""The known word that a misspelt word was meant to be: every "did you mean" comes from here.

In: a word and the words that are known. Out: one of them, or None where none is close. A wrong suggestion
is worse than none, so the rule is strict: at most two typing errors, one for every three letters; or the
same start; or an abbreviation. Letter case, `-` and `_` don't count. Pure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

_LETTERS_PER_ERROR: Final = 3
_ERRORS: Final = 2
_START: Final = 3  # letters of an abbreviation that must occur in its word, in their order
_LIKENESS: Final = 0.55  # of an abbreviation and its word
_LONGEST: Final = 100  # characters; a longer word is no misspelt name, and comparing it takes time


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that was most likely meant, None if none is close."""
    plain = _plain(word)
    if not plain or len(plain) > _LONGEST:
        return None
    close = [
        (rank, -_likeness(plain, _plain(name)), name)
        for name in sorted(set(known))
        if (rank := _rank(plain, _plain(name))) is not None
    ]
    return min(close)[2] if close else None


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return the start of a hint, ``did you mean `x`?``; `otherwise` if no known word is close."""
    near = nearest(word, known)
    return otherwise if near is None else f"did you mean `{near}`?"


def _plain(word: str) -> str:
    return re.sub(r"[-_\s]", "", word).casefold()


def _rank(word: str, name: str) -> int | None:
    """Return the number of typing errors, a higher number for a like word, None for another word."""
    allowed = min(max(len(word), len(name)) // _LETTERS_PER_ERROR, _ERRORS)
    if abs(len(word) - len(name)) <= allowed:
        errors = _typing_errors(word, name)
        if errors <= allowed:
            return errors
    return _ERRORS + 1 if _starts_alike(word, name) or _is_abbreviation(word, name) else None


def _starts_alike(word: str, name: str) -> bool:
    """Return True if one word starts with the other, or both with the same half."""
    shared = next((i for i, (a, b) in enumerate(zip(word, name, strict=False)) if a != b), None)
    shared = min(len(word), len(name)) if shared is None else shared
    return shared >= _START and (
        shared == min(len(word), len(name)) or 2 * shared >= max(len(word), len(name))
    )


def _is_abbreviation(word: str, name: str) -> bool:
    """Return True for `msgsize` and `message`: the first letters of the word, with letters left out."""
    if len(word) < _START or word[0] != name[:1] or name.startswith(word[:_START]):
        return False
    letters = iter(name)
    return all(letter in letters for letter in word[:_START]) and _likeness(word, name) >= _LIKENESS


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()


def _typing_errors(one: str, other: str) -> int:
    """Return how many letters are missing, added, wrong or swapped with their neighbour."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        above, row_before = row, before
        row = [i]
        for j, wanted in enumerate(other, 1):
            cost = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (letter != wanted))
            is_swap = i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted
            row.append(min(cost, row_before[j - 2] + 1) if is_swap else cost)
        before = above
    return row[-1]
