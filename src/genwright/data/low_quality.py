"""Rows that teach little: the rules of Gopher (Rae 2021, arXiv 2112.11446, appendix A.1.1) and of C4 (arXiv 1910.10683).

    of every row     no words; unreadable characters; a page's boilerplate; one word over half of ten or more
    from 50 words    mean word of 3 to 10 characters; # or ... at most 0.1 a word; letters in 80 % of the words; two of the
                     eight stop words; bullets before at most 90 % of the lines, an ellipsis after at most 30 %;
                     repetition within the fractions of table A1

Gopher drops every document under 50 words, which would drop nearly every chat row: shorter rows are let be instead.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

LONG = 50
STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
TOP_GRAM = {2: 0.20, 3: 0.18, 4: 0.16}
REPEATED_GRAM = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
BOILERPLATE = re.compile(
    r"lorem ipsum|enable javascript|javascript (?:is|must be) (?:disabled|enabled|required)|all rights reserved"
    r"|terms of (?:use|service) and privacy policy|we use cookies|accept (?:all )?cookies|page not found|404 error"
    r"|click here to (?:subscribe|unsubscribe|continue)|as an ai language model",
    re.IGNORECASE,
)
UNREADABLE = re.compile("[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f]|Ã[\x80-\xbf]|â€")
WORDS_OF = {
    "en": "the and of to is that in it was for with you are this have",
    "fr": "le la les et des est que une dans pour pas qui sur avec vous",
    "de": "der die und das ist nicht ein eine zu den mit von sich auf für",
    "es": "el la los que en una por con para del se no es las como",
    "it": "il di che la per una sono non con del della gli è anche nel",
    "pt": "o que não uma para com os do da em se mais por como dos",
    "nl": "de het een van en niet dat is op te zijn met voor ook aan",
}
"""Frequent words, a language each."""
LANGUAGES = {name: frozenset(words.split()) for name, words in WORDS_OF.items()}


def low_quality(text: str, language: str = "") -> list[str]:
    """What is wrong, in words; nothing where the row is fine. language: a key of LANGUAGES that rows should be in."""
    words = text.split()
    if not re.search(r"\w", text):
        return ["no words"]
    told = [*_short(text, words), *(_long(text, words) if len(words) >= LONG else ())]
    spoken = language_of(text)
    return [*told, *([f"language {spoken}"] if language and spoken and spoken != language else [])]


def _short(text: str, words: Sequence[str]) -> Iterator[str]:
    if UNREADABLE.search(text):
        yield "unreadable characters"
    if BOILERPLATE.search(text):
        yield "boilerplate"
    most = Counter(map(str.casefold, words)).most_common(1)[0][1]
    if len(words) >= 10 and most > len(words) / 2:
        yield "one word repeated"


def _long(text: str, words: Sequence[str]) -> Iterator[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    mean = sum(map(len, words)) / len(words)
    symbols = text.count("#") + text.count("...") + text.count("…")
    rules = {
        f"mean word of {mean:.1f} characters": not 3 <= mean <= 10,
        "symbols": symbols / len(words) > 0.1,
        "words without letters": sum(any(map(str.isalpha, word)) for word in words) < 0.8 * len(words),
        "no stop words": len(STOP_WORDS & {word.casefold().strip(".,;:!?") for word in words}) < 2
        and language_of(text) in ("", "en"),
        "bullets": sum(line.startswith(("-", "*", "•")) for line in lines) > 0.9 * len(lines),
        "ellipses": sum(line.endswith(("...", "…")) for line in lines) > 0.3 * len(lines),
    }
    yield from (name for name, holds in rules.items() if holds)
    yield from _repetition(text, words)


def _repetition(text: str, words: Sequence[str]) -> Iterator[str]:
    """Fractions of lines, paragraphs and characters that stand there more than once (table A1)."""
    for name, parts in (("lines", text.split("\n")), ("paragraphs", text.split("\n\n"))):
        kept = [part.strip() for part in parts if part.strip()]
        number, characters = repeated_share(kept)
        if number > 0.30 or characters > 0.20:
            yield f"repeated {name}"
    for size, most in TOP_GRAM.items():
        if top_gram_share(words, size) > most:
            yield f"one run of {size} words repeated"
            return
    for size, most in REPEATED_GRAM.items():
        if repeated_gram_share(words, size) > most:
            yield f"runs of {size} words repeated"
            return


def repeated_share(parts: Sequence[str]) -> tuple[float, float]:
    """Of the parts, and of their characters, the share that repeats an earlier part: a, b, a, a -> 1/2 and 1/2."""
    repeats = [part for number, part in enumerate(parts) if part in set(parts[:number])] if len(parts) > 1 else []
    return len(repeats) / max(1, len(parts)), sum(map(len, repeats)) / max(1, sum(map(len, parts)))


def top_gram_share(words: Sequence[str], size: int) -> float:
    """The share of the words' characters that stands in the most frequent run of `size` words, where it comes twice."""
    counted = Counter(tuple(words[place : place + size]) for place in range(len(words) - size + 1))
    gram, count = max(
        counted.items(), key=lambda item: item[1] * sum(map(len, item[0])) * (item[1] > 1), default=((), 0)
    )
    return count * sum(map(len, gram)) / sum(map(len, words)) if count > 1 else 0.0


def repeated_gram_share(words: Sequence[str], size: int) -> float:
    """The share of the words' characters that stands in any run of `size` words that comes again; no character twice."""
    runs = [tuple(words[place : place + size]) for place in range(len(words) - size + 1)]
    counted = Counter(runs)
    inside = {place + step for place, run in enumerate(runs) if counted[run] > 1 for step in range(size)}
    return sum(len(words[place]) for place in inside) / max(1, sum(map(len, words)))


def language_of(text: str) -> str:
    """The language whose frequent words stand there most; "" where fewer than two do, or two languages tie."""
    words = re.findall(r"\w+", text.casefold())
    counts = sorted(((sum(word in common for word in words), name) for name, common in LANGUAGES.items()), reverse=True)
    return counts[0][1] if counts[0][0] >= 2 and counts[0][0] > counts[1][0] else ""
