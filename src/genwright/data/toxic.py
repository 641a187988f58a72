"""What the default rules call toxic: wishes of harm, threats, insults, crude language, groups made contemptible.

They are forms of sentences and a dozen words, so anybody can read why a row was marked; slurs of every kind are no list of
ours. Such rules find a part only (docs/data-check.md has how much): a classifier finds more.
"""

from __future__ import annotations

import re

INSULT = (
    r"(?:idiots?|morons?|imbeciles?|losers?|scum|vermin|trash|garbage|filth|pathetic|disgusting|worthless|stupid|dumb(?:ass)?"
    r"|retard(?:s|ed)?|bitch(?:es)?|whores?|sluts?|cunts?|bastards?|assholes?|shitheads?|dickheads?|pigs?|parasites?|freaks?)"
)
CRUDE = (
    r"\b(?:mother)?f+u+c*k+(?:ing?|er|ers|ed|s|in)?\b|\bf[*@#]+(?:k|ck|ing)\w*|\b(?:bull|dip|horse)?sh[i1*]t(?:ty|ter|s|head|heads)?\b"
    r"|\bb[i1*]tch(?:es|y)?\b|\bc[u*]nts?\b|\b(?:ass|arse)(?:hole|holes|hat|wipe)s?\b|\bdick(?:head|heads|s)?\b|\bwhores?\b"
    r"|\bbastards?\b|\bsluts?\b|\bretard(?:s|ed)?\b"
)
RULES: dict[str, re.Pattern[str]] = {
    "a wish of harm": re.compile(
        r"\b(?:kill|hang|shoot|drown|burn) (?:yo)?ur?self\b|\bkys\b|\b(?:drop dead|go die|rot in hell|burn in hell)\b"
        r"|\bhope (?:you|they|he|she|u)\b.{0,20}\b(?:die|dies|suffer|rot|burn|get killed)\b"
        r"|\b(?:deserves?|needs?|ought) to (?:die|be (?:shot|killed|hanged|raped|beaten))\b",
        re.IGNORECASE,
    ),
    "a threat": re.compile(
        r"\b(?:i(?:'| a|')?(?:ll|m going to|m gonna)|i will|we(?:'ll| will)) (?:\w+ )?(?:kill|hurt|beat|stab|shoot|find and \w+|murder)"
        r" (?:you|u|him|her|them)\b",
        re.IGNORECASE,
    ),
    "an insult": re.compile(
        rf"\b(?:you(?:'re| are|r)?|u r|ur|he(?:'s| is)|she(?:'s| is)|they(?:'re| are)|these|those|what an?|such an?)"
        rf"(?: \w+){{0,3}} {INSULT}\b|\b(?:fuck|screw|damn) (?:you|u|off|them|him|her|all)\b|\bfuck(?:ing|in|er|ers) \w*{INSULT}\b"
        rf"|\b(?:stupid|dumb|filthy|dirty|pathetic|worthless) {INSULT}\b|\bstfu\b|\bshut the (?:fuck|hell) up\b"
        r"|\b(?:piece|sack|pieces) of (?:shit|crap|garbage|trash)\b|\bsuck my\b",
        re.IGNORECASE,
    ),
    "crude language": re.compile(CRUDE, re.IGNORECASE),
    "contempt of a group": re.compile(
        r"\b(?:all|these|those|most) (?:\w+ )?(?:women|men|blacks?|whites?|jews?|muslims?|christians?|gays?|immigrants?|foreigners?"
        rf"|liberals?|republicans?|democrats?)(?: \w+){{0,3}} (?:are|should be|must be)(?: \w+){{0,3}} "
        rf"(?:{INSULT}|animals|criminals|evil|deported|exterminated|killed|shot|inferior)\b"
        r"|\b(?:go back to (?:your|ur) (?:own )?country|subhumans?|untermensch\w*)\b",
        re.IGNORECASE,
    ),
}  # fmt: skip
"""Why a row is marked -> the form of words that marks it."""

HOW = "rules: forms of words (wishes of harm, threats, insults, crude language, contempt of groups)"


def toxic(text: str) -> list[str]:
    """The rules that the text meets."""
    return [name for name, pattern in RULES.items() if pattern.search(text)]
