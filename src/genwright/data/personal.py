"""Personal data in a text, by shape and checksum: where it stands and of what kind, never what it says.

    kind         told by
    email        local@domain.tld
    phone        7 to 15 digits (E.164) behind a + or in groups as they are dialled, or behind "call", "tel", "mobile"; no dates
    iban         country, two check digits, ISO 7064 mod 97 = 1
    credit-card  12 to 19 digits whose Luhn sum is 0 mod 10
    ip           IPv4 or IPv6 as `ipaddress` reads it; addresses of a machine itself (127.*, 0.0.0.0) are nobody's
    ssn          US form AAA-GG-SSSS, area not 000 or 666 or above 899, group not 00, serial not 0000
    secret       keys whose issuers gave them a shape, private keys, and passwords in an assignment

Names and addresses of people have no shape: a rule that finds them finds half the nouns too, so none is here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """Characters [start, end) of a text."""

    kind: str
    start: int
    end: int


EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+%-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,24}\b")
IBAN = re.compile(r"\b[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?\b")
CARD = re.compile(r"(?<![\w.+-])(?:\d[ -]?){11,18}\d(?![\w-])")
IP4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
IP6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
SSN = re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")
PHONE = re.compile(
    r"(?<![\w.$€£-])(?<!\d[,/])(?:\+|00)?\(?\d{1,4}\)?(?:[ .\-]{0,2}\(?\d{1,5}\)?){1,6}(?: ?(?:x|ext\.?) ?\d{1,6})?"
    r"(?!\w|-\d|[.,/]\d)"
)
TOLD_PHONE = re.compile(
    r"(?i:\b(?:tele)?(?:phone|mobile|cell|call|fax|dial|desk)\b)\D{0,24}?(\d[\d .()-]{5,18}\d)(?!\w)"
)
DATE = re.compile(r"\d{4}[-./ ]\d{1,2}[-./ ]\d{1,2}|\d{1,2}[-./ ]\d{1,2}[-./ ]\d{4}")
SECRET = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_\w{40,}\b|\bxox[abprs]-[A-Za-z0-9-]{10,}\b"
    r"|\bsk-(?:[a-z]+-)?[A-Za-z0-9_-]{20,}|\bAIza[0-9A-Za-z_-]{35}\b|\bhf_[A-Za-z]{30,}\b|\bglpat-[\w-]{20,}"
    r"|\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}|-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
    r"|(?i:\b(?:password|passwd|pwd|secret|api[_-]?key|access[_-]?token)\b\s*[:=]\s*['\"]?)(?=[^\s'\"]*\d)[^\s'\"<>${}]{8,}"
)


def luhn(digits: str) -> bool:
    """Whether doubling every second digit from the right leaves a digit sum of 0 mod 10. 79927398713: 70, so yes."""
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 * (value > 9) for value in doubled) % 10 == 0


def iban(text: str) -> bool:
    """ISO 13616: the first four characters at the end, letters as 10 to 35, and the number is 1 mod 97."""
    joined = text.replace(" ", "").upper()
    return 15 <= len(joined) <= 34 and int("".join(str(int(one, 36)) for one in joined[4:] + joined[:4])) % 97 == 1


def _card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return len(set(digits)) > 1 and luhn(digits)


def _address(text: str) -> bool:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (found.is_loopback or found.is_unspecified)


def _ssn(text: str) -> bool:
    area, group, serial = text.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _phone(text: str) -> bool:
    """Written to be dialled: behind a +, three groups or more, or two with a bracket or hyphen. Not "12 4450", a house's."""
    digits, groups = re.sub(r"\D", "", text), re.findall(r"\d+", text)
    if not 7 <= len(digits) <= 15 or DATE.match(text) or SSN.fullmatch(text):
        return False
    if text.count(".") == len(groups) - 1 == 3 and len(digits) < 10:
        return False
    return text.startswith("+") or len(groups) > 2 or (len(groups) == 2 and bool(re.search(r"\d\)|\d{3}-\d{4}$", text)))


def _told_phone(text: str) -> bool:
    return 7 <= len(re.sub(r"\D", "", text)) <= 15


KINDS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("secret", SECRET, bool),
    ("email", EMAIL, bool),
    ("iban", IBAN, iban),
    ("ssn", SSN, _ssn),
    ("ip", IP4, _address),
    ("ip", IP6, _address),
    ("credit-card", CARD, _card),
    ("phone", TOLD_PHONE, _told_phone),
    ("phone", PHONE, _phone),
)
"""In the order in which they claim characters: what has a checksum before what has only a shape."""


def personal(text: str) -> list[Span]:
    """Every span, in the order of the text; none overlaps another."""
    taken = bytearray(len(text))
    found = [span for kind, pattern, holds in KINDS for span in _of_kind(kind, pattern, holds, text, taken)]
    return sorted(found, key=lambda span: span.start)


def _of_kind(
    kind: str, pattern: re.Pattern[str], holds: Callable[[str], bool], text: str, taken: bytearray
) -> Iterator[Span]:
    for match in pattern.finditer(text):
        start, end = match.span(match.lastindex or 0)
        if not any(taken[start:end]) and holds(text[start:end]):
            taken[start:end] = b"\1" * (end - start)
            yield Span(kind, start, end)


def masked(text: str) -> str:
    """The text with [kind] in the place of every span. "write to a@b.org" -> "write to [email]"."""
    parts, end = [], 0
    for span in personal(text):
        parts += [text[end : span.start], f"[{span.kind}]"]
        end = span.end
    return "".join([*parts, text[end:]])
