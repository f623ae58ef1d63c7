"""Which language a text is in, as far as a few letters and the smallest words tell: to see who is out of line."""

from __future__ import annotations

import re

LOOKED_AT = 1000  # characters
LEAST_LETTERS = 10
LEAST_WORDS = 3  # different small words of a language
SCRIPTS = {
    name: re.compile(f"[{letters}]")
    for name, letters in {
        "Latin": "A-Za-z\u00c0-\u024f",
        "Greek": "\u0370-\u03ff",
        "Cyrillic": "\u0400-\u052f",
        "Hebrew": "\u0590-\u05ff",
        "Arabic": "\u0600-\u06ff",
        "Devanagari": "\u0900-\u097f",
        "Thai": "\u0e00-\u0e7f",
        "Korean": "\uac00-\ud7af",
        "Japanese": "\u3040-\u30ff",
        "Chinese": "\u4e00-\u9fff",
    }.items()
}
SMALL_WORDS = {
    "English": "the of and to in is that for with are this was be you have not from they it",
    "German": "der die das und ist nicht mit ein eine zu den von sich auch auf für dem wird werden sie",
    "French": "le la les des est et une dans que pour qui pas sur avec sont vous nous du ce au",
    "Spanish": "el los las es y una que para por con está como pero más son del se su lo al",
    "Italian": "il di che è una per non con sono della gli nel alla anche più come ma questo si del",
    "Portuguese": "o os as é e uma que para com não por mais como mas são do da em se ao",
    "Dutch": "de het een en van is niet met voor dat op zijn wordt ook maar aan bij door deze als",
}
_WORDS = {name: frozenset(words.split()) for name, words in SMALL_WORDS.items()}


def language(text: str) -> str | None:
    """The language of a text in Latin letters, the script of any other; None where there is too little to tell."""
    beginning = text[:LOOKED_AT]
    if beginning.isascii():
        return _latin(beginning)
    counts = {name: len(letters.findall(beginning)) for name, letters in SCRIPTS.items()}
    if counts["Japanese"]:
        counts["Japanese"] += counts.pop("Chinese")  # Japanese uses both
    best = max(counts, key=lambda name: counts[name])
    if counts[best] < LEAST_LETTERS:
        return None
    return _latin(beginning) if best == "Latin" else best


def _latin(text: str) -> str | None:
    words = set(re.findall(r"[^\W\d_]+", text.lower()))
    hits = sorted(((len(words & small), name) for name, small in _WORDS.items()), reverse=True)
    (most, name), (second, _) = hits[:2]
    return name if most >= LEAST_WORDS and most > second else None
