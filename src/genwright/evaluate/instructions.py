"""Instructions that a program can verify: the 25 rules of IFEval (Zhou 2023, arXiv 2311.07911), strict and loose.

Rules are read as lm-eval reads them, with two differences: sentences and words in capitals are cut here, without NLTK's
data, which would have to be downloaded. A row has `prompt`, `instruction_id_list` and `kwargs`, as in the published set.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from genwright.base.errors import MissingExtra
from genwright.evaluate.asking import WRITTEN, conversation_of
from genwright.evaluate.forms import Form, Options, Row, Scored, Target

Given = Mapping[str, Any]
Rule = Callable[[str, Given], bool]


def related(count: int, given: Given, wanted: str, relation: str = "relation") -> bool:
    """Whether a count is "less than", or "at least", what was asked for."""
    return count < given[wanted] if given.get(relation) == "less than" else count >= given[wanted]


def in_language(text: str, language: str) -> bool:
    """By langdetect, with a fixed seed; a text without letters is in any language. Errors: MissingExtra."""
    try:
        from langdetect import DetectorFactory, LangDetectException, detect
    except ImportError:
        raise MissingExtra("langdetect", "judge", "A rule about a language") from None
    DetectorFactory.seed = 0
    try:
        return bool(detect(text) == language)
    except LangDetectException:
        return True


def sentences(text: str) -> list[str]:
    """Cut after . ! or ? before white space and a capital, a digit or a quotation mark; abbreviations are not known."""
    return [part for part in re.split(r"""(?<=[.!?])["')\]]*\s+(?=["'(\[]?[A-Z0-9])""", text.strip()) if part.strip()]


def _paragraphs(text: str, given: Given) -> bool:
    parts = re.split(r"\s?\*\*\*\s?", text)
    inner = parts[1:-1] if len(parts) > 1 else []
    filled = sum(bool(part.strip()) for part in parts)
    return all(part.strip() for part in inner) and filled == given["num_paragraphs"]


def _nth_paragraph(text: str, given: Given) -> bool:
    parts, nth = text.split("\n\n"), given["nth_paragraph"]
    filled = sum(bool(part.strip()) for part in parts)
    if nth > filled or not parts[nth - 1].strip():
        return False
    word = parts[nth - 1].split()[0].lstrip("'").lstrip('"')
    first = re.split(r"[.,?!'\"]", word)[0].lower()
    return filled == given["num_paragraphs"] and first == given["first_word"].lower()


def _postscript(text: str, given: Given) -> bool:
    marker = given["postscript_marker"].strip()
    known = {"P.P.S": r"\s*p\.\s?p\.\s?s.*$", "P.S.": r"\s*p\.\s?s\..*$"}
    return bool(re.search(known.get(marker, rf"\s*{marker.lower()}.*$"), text.lower(), re.MULTILINE))


def _bullets(text: str, given: Given) -> bool:
    stars = re.findall(r"^\s*\*[^\*].*$", text, re.MULTILINE)
    return len(stars) + len(re.findall(r"^\s*-.*$", text, re.MULTILINE)) == given["num_bullets"]


def _highlights(text: str, given: Given) -> bool:
    once = [part for part in re.findall(r"\*[^\n\*]*\*", text) if part.strip("*").strip()]
    twice = [part for part in re.findall(r"\*\*[^\n\*]*\*\*", text) if part[2:-2].strip()]
    return len(once) + len(twice) >= given["num_highlights"]


def _is_json(text: str, given: Given) -> bool:
    bare = re.sub(r"\A```(?:json|Json|JSON)?|```\Z", "", text.strip()).strip()
    try:
        json.loads(bare)
    except ValueError:
        return False
    return True


def _two_responses(text: str, given: Given) -> bool:
    parts = text.split("******")
    filled = [part.strip() for part in parts if part.strip()]
    return all(part.strip() for part in parts[1:-1]) and len(filled) == 2 and filled[0] != filled[1]


RULES: dict[str, Rule] = {
    "keywords:existence": lambda text, given: all(re.search(word, text, re.I) for word in given["keywords"]),
    "keywords:frequency": lambda text, given: related(len(re.findall(given["keyword"].strip(), text, re.I)), given, "frequency"),
    "keywords:forbidden_words": lambda text, given: not any(re.search(rf"\b{word}\b", text, re.I) for word in given["forbidden_words"]),
    "keywords:letter_frequency": lambda text, given: related(
        Counter(text.lower())[given["letter"].lower()], given, "let_frequency", "let_relation"),
    "language:response_language": lambda text, given: in_language(text, given["language"]),
    "length_constraints:number_sentences": lambda text, given: related(len(sentences(text)), given, "num_sentences"),
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": lambda text, given: related(len(re.findall(r"\w+", text)), given, "num_words"),
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda text, given: len(re.findall(r"\[.*?\]", text)) >= given["num_placeholders"],
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": lambda text, given: any(
        f"My answer is {word}." in text for word in ("yes", "no", "maybe")),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": lambda text, given: len(
        re.split(rf"\s?{given['section_spliter'].strip()}\s?\d+\s?", text)) - 1 >= given["num_sections"],
    "detectable_format:json_format": _is_json,
    "detectable_format:title": lambda text, given: any(part.lstrip("<").rstrip(">").strip() for part in re.findall(r"<<[^\n]+>>", text)),
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda text, given: text.strip().lower().startswith(given["prompt_to_repeat"].strip().lower()),
    "startend:end_checker": lambda text, given: text.strip().strip('"').lower().endswith(given["end_phrase"].strip().lower()),
    "startend:quotation": lambda text, given: len(text.strip()) > 1 and text.strip()[0] == '"' == text.strip()[-1],
    "change_case:capital_word_frequency": lambda text, given: related(
        sum(word.isupper() for word in re.findall(r"[\w'-]+", text)), given, "capital_frequency", "capital_relation"),
    "change_case:english_capital": lambda text, given: text.isupper() and in_language(text, "en"),
    "change_case:english_lowercase": lambda text, given: text.islower() and in_language(text, "en"),
    "punctuation:no_comma": lambda text, given: "," not in text,
}  # fmt: skip
"""Rule -> (answer, its constants) to whether it was followed."""


def followed(answer: str, rule: str, given: Given) -> bool:
    """Strict: the answer as it stands; an empty one follows nothing."""
    return bool(answer.strip()) and bool(RULES[rule](answer, given))


def followed_loosely(answer: str, rule: str, given: Given) -> bool:
    """The paper's loose reading: without its first line, its last, both, and each of these without asterisks."""
    lines = answer.split("\n")
    cuts = [answer, "\n".join(lines[1:]).strip(), "\n".join(lines[:-1]).strip(), "\n".join(lines[1:-1]).strip()]
    return any(followed(form, rule, given) for cut in cuts for form in (cut, cut.replace("*", "")))


def follow(target: Target, rows: Sequence[Row], options: Options) -> Scored:
    """100 where every instruction of a row is followed; beside it the shares of single instructions, strict and loose."""
    answers = target.reply([conversation_of(row["prompt"]) for row in rows], options)
    asked = [list(zip(row["instruction_id_list"], row["kwargs"])) for row in rows]
    strict = [[followed(answer, rule, _given(known)) for rule, known in rules] for answer, rules in zip(answers, asked)]
    loose = [
        [followed_loosely(answer, rule, _given(known)) for rule, known in rules]
        for answer, rules in zip(answers, asked)
    ]
    found = {"strict": strict, "loose": loose}
    share = lambda each: 100 * sum(map(sum, each)) / max(1, sum(map(len, each)))
    also = {f"instruction_{name}": share(each) for name, each in found.items()}
    other = "loose" if options.metric == "strict" else "strict"
    also |= {other: 100 * sum(map(all, found[other])) / len(rows)}
    return Scored([100.0 * all(row) for row in found[options.metric]], answers, also)


def _given(known: Given) -> Given:
    return {name: value for name, value in known.items() if value is not None}


def _wrong(row: Row) -> str:
    unknown = [rule for rule in row["instruction_id_list"] if rule not in RULES]
    if unknown:
        return f"there is no rule '{unknown[0]}'."
    if len(row["kwargs"]) != len(row["instruction_id_list"]) or not row["kwargs"]:
        return "'kwargs' needs one object for each of 'instruction_id_list', and at least one."
    return ""


INSTRUCTIONS = Form(
    "instructions", {"prompt": (str, list), "instruction_id_list": list, "kwargs": list}, ("strict", "loose"), follow,
    {**WRITTEN, "max_tokens": 512}, _wrong,
)  # fmt: skip
