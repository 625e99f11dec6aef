"""Suggestions for misspelt words: all "did you mean" hints come from this module.

In: a word and the known words. Out: the most similar known word, or None if no known word is similar. A wrong
suggestion is worse than none. Therefore two words are similar only if they differ by at most two typing
errors (and at most one per three letters), have the same beginning, or one abbreviates the other. Letter
case, `-` and `_` are ignored. Pure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

_LETTERS_PER_ERROR: Final = 3
_MAX_ERRORS: Final = 2
_PREFIX_LETTERS: Final = (
    3  # this many first letters of an abbreviation must occur in the word, in their order
)
_MIN_SIMILARITY: Final = 0.55  # minimum similarity of an abbreviation and its word, from 0 to 1
_MAX_CHARACTERS: Final = 100  # a longer word is not a misspelt name, and the comparison would be slow


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that was most likely meant, or None if no known word is similar."""
    normalized = _normalized(word)
    if not normalized or len(normalized) > _MAX_CHARACTERS:
        return None
    candidates = [
        (rank, -_similarity(normalized, _normalized(name)), name)
        for name in sorted(set(known))
        if (rank := _rank(normalized, _normalized(name))) is not None
    ]
    return min(candidates)[2] if candidates else None


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return the hint ``did you mean `x`?``, or `otherwise` if no known word is similar."""
    suggestion = nearest(word, known)
    return otherwise if suggestion is None else f"did you mean `{suggestion}`?"


def _normalized(word: str) -> str:
    return re.sub(r"[-_\s]", "", word).casefold()


def _rank(word: str, name: str) -> int | None:
    """Return a rank that is lower for more similar words, or None for words that are not similar.

    The rank is the number of typing errors. Words that are similar in another way have a higher rank than any
    words that differ by typing errors.
    """
    allowed = min(max(len(word), len(name)) // _LETTERS_PER_ERROR, _MAX_ERRORS)
    if abs(len(word) - len(name)) <= allowed:
        errors = _typing_errors(word, name)
        if errors <= allowed:
            return errors
    return _MAX_ERRORS + 1 if _have_same_start(word, name) or _is_abbreviation(word, name) else None


def _have_same_start(word: str, name: str) -> bool:
    """Return True if one word starts with the other, or if they share the first half of the longer word."""
    shared = next((i for i, (a, b) in enumerate(zip(word, name, strict=False)) if a != b), None)
    shared = min(len(word), len(name)) if shared is None else shared
    return shared >= _PREFIX_LETTERS and (
        shared == min(len(word), len(name)) or 2 * shared >= max(len(word), len(name))
    )


def _is_abbreviation(word: str, name: str) -> bool:
    """Return True if the word omits letters of the name, such as `msgsize` for `message`."""
    if len(word) < _PREFIX_LETTERS or word[0] != name[:1] or name.startswith(word[:_PREFIX_LETTERS]):
        return False
    letters = iter(name)
    in_order = all(letter in letters for letter in word[:_PREFIX_LETTERS])
    return in_order and _similarity(word, name) >= _MIN_SIMILARITY


def _similarity(word: str, name: str) -> float:
    return difflib.SequenceMatcher(None, word, name, autojunk=False).ratio()


def _typing_errors(word: str, name: str) -> int:
    """Return the number of missing, additional, wrong and swapped letters (Damerau-Levenshtein distance)."""
    before_previous: list[int] = []
    row = list(range(len(name) + 1))
    for i, letter in enumerate(word, 1):
        previous = row
        row = [i]
        for j, expected in enumerate(name, 1):
            cost = min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (letter != expected))
            is_swap = i > 1 and j > 1 and letter == name[j - 2] and word[i - 2] == expected
            row.append(min(cost, before_previous[j - 2] + 1) if is_swap else cost)
        before_previous = previous
    return row[-1]
