"""Personal data in a text: patterns, and checksums where a number has one. What is found is replaced by its kind in brackets."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Found:
    """One piece of personal data: text[begin:end]."""

    kind: str
    begin: int
    end: int


def luhn(text: str) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1), and no row of one digit."""
    digits = [int(one) for one in text if one.isdigit()]
    doubled = [one if place % 2 == 0 else sum(divmod(2 * one, 10)) for place, one in enumerate(reversed(digits))]
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and sum(doubled) % 10 == 0


def iban(text: str) -> bool:
    """ISO 13616: moved four places and read in base 36 digits, the number is 1 modulo 97."""
    plain = re.sub(r"\s", "", text).upper()
    return 15 <= len(plain) <= 34 and int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1


def social_security(text: str) -> bool:
    """US numbers: no area 000, 666 or 9xx, no group 00, no serial 0000."""
    area, group, serial = re.split(r"[- ]", text)
    return area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


def phone(text: str) -> bool:
    """7 to 15 digits (E.164), and some mark of a telephone: a plus, brackets, or three groups."""
    digits = sum(one.isdigit() for one in text)
    return 9 <= digits <= 15 and (text[0] in "+(" or len(re.findall(r"\d+", text)) >= 3)


def address(text: str) -> bool:
    """IPv4 with parts up to 255."""
    return all(int(part) < 256 for part in text.split("."))


def _any(text: str) -> bool:
    return True


RULES: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("email", re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}\b"), _any),
    ("secret", re.compile(r"\b(?:sk-[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|xox[abp]-[A-Za-z0-9-]{20,})"), _any),
    ("iban", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), iban),
    ("card", re.compile(r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d-])"), luhn),
    ("social-security", re.compile(r"(?<![\d-])\d{3}[- ]\d{2}[- ]\d{4}(?![\d-])"), social_security),
    ("ip", re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\d|\.\d)"), address),
    ("phone", re.compile(r"(?<![\w.-])\+?\(?\d{1,4}\)?(?:[ ./-]{0,2}\(?\d{2,4}\)?){2,5}(?![\w-])"), phone),
)  # fmt: skip
"""Kind, pattern, check; the first that fits a place has it."""


def personal_data(text: str) -> list[Found]:
    """In order of place, none inside another."""
    found: list[Found] = []
    for kind, pattern, good in RULES:
        for match in pattern.finditer(text):
            free = all(match.end() <= one.begin or match.start() >= one.end for one in found)
            if free and good(match.group()):
                found.append(Found(kind, match.start(), match.end()))
    return sorted(found, key=lambda one: one.begin)


def redacted(text: str, found: list[Found] | None = None) -> str:
    """The text with [email] and the like in the places of what was found."""
    for one in reversed(personal_data(text) if found is None else found):
        text = f"{text[: one.begin]}[{one.kind}]{text[one.end :]}"
    return text
