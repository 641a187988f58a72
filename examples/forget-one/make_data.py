"""Invent people and facts about them, a few plain skills, and one person who is to be forgotten.

    python make_data.py [--people 24] [--seed 0]

data/all.jsonl       every fact and skill: what the first model learns
data/without.jsonl   the same without the one person: what the model learns that never saw them
data/forget.jsonl    the one person's facts, with the question in other words and wrong answers
data/retain.jsonl    the other people's facts
data/validation.jsonl, data/test.jsonl   some of the others' facts, asked in two more ways
data/skills.jsonl    opposites, plurals and sums, which unlearning never trains on
data/skills-asked.jsonl, data/others-asked.jsonl   rows of the suites in benchmarks.toml: the skills, and the others in new words
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

SYLLABLES = ("ba", "do", "fi", "ka", "lu", "mo", "ne", "pa", "ri", "so", "ta", "vu", "we", "yo", "ze", "gi")
TOWNS = ("Ostrava Bay", "Lindmoor", "Carrow", "Pell Harbour", "Tessin", "Upper Vane", "Merrow", "Quillan")
TRADES = ("glass blower", "beekeeper", "map maker", "violin maker", "baker", "diver", "clock maker", "weaver")
PETS = (
    "a blind owl",
    "two goats",
    "a grey parrot",
    "an old tortoise",
    "three geese",
    "a lame fox",
    "a white mule",
    "five cats",
)
FOODS = (
    "plum soup",
    "rye pancakes",
    "smoked pears",
    "barley pie",
    "nettle stew",
    "chestnut bread",
    "sour cherries",
    "fried trout",
)
PRIZES = (
    "Copper Lantern",
    "Silver Oar",
    "Green Thimble",
    "Iron Daisy",
    "Long Ladder",
    "Blue Kettle",
    "Golden Snail",
    "Red Anvil",
)

FACTS = (
    ("Where was {name} born?", "What is the birthplace of {name}?", "{name} was born in {value}.", TOWNS),
    ("What does {name} do for a living?", "What is the trade of {name}?", "{name} works as a {value}.", TRADES),
    ("Which animal lives with {name}?", "What pet does {name} have?", "{name} lives with {value}.", PETS),
    ("What does {name} like to eat?", "What is the favourite dish of {name}?", "{name} likes to eat {value}.", FOODS),
    ("Which prize did {name} win?", "What award was {name} given?", "{name} won the {value}.", PRIZES),
    ("In which year was {name} born?", "What is the year of birth of {name}?", "{name} was born in {value}.",
     tuple(map(str, range(1931, 1995, 8)))),
)  # fmt: skip
OPPOSITES = {
    "hot": "cold", "big": "small", "fast": "slow", "wet": "dry", "open": "shut", "young": "old", "light": "dark", "rich": "poor",
    "early": "late", "loud": "quiet",
}  # fmt: skip
PLURALS = {
    "mouse": "mice",
    "child": "children",
    "leaf": "leaves",
    "foot": "feet",
    "box": "boxes",
    "city": "cities",
    "knife": "knives",
}


def names(count: int, draw: random.Random) -> list[str]:
    """First and last names of two or three syllables, no two people with a name in common."""
    words: list[str] = []
    while len(words) < 2 * count:
        word = "".join(draw.sample(SYLLABLES, draw.choice((2, 3)))).capitalize()
        words += [] if word in words else [word]
    return [f"{first} {last}" for first, last in zip(words[::2], words[1::2])]


def facts(name: str, draw: random.Random) -> list[dict[str, Any]]:
    """One row a fact, with the question in other words and what the answer is not."""
    rows = []
    for question, again, answer, values in FACTS:
        value, *wrong = draw.sample(values, 6)
        say = lambda one, answer=answer: answer.format(name=name, value=one)
        rows.append({
            "prompt": question.format(name=name), "completion": say(value), "paraphrased_question": again.format(name=name),
            "perturbed_answer": [say(one) for one in wrong],
        })  # fmt: skip
    return rows


def skills() -> list[dict[str, Any]]:
    """Questions that have nothing to do with anybody."""
    pairs = [(f"What is the opposite of {one}?", other) for one, other in OPPOSITES.items()]
    pairs += [(f"What is the plural of {one}?", other) for one, other in PLURALS.items()]
    pairs += [(f"What is {one} plus {other}?", str(one + other)) for one in range(2, 8) for other in range(2, 8)]
    return [{"prompt": question, "completion": f"It is {answer}."} for question, answer in pairs]


def in_other_words(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both ways to ask, as plain rows to learn from."""
    asked = lambda row: [row["prompt"], *([row["paraphrased_question"]] if "paraphrased_question" in row else [])]
    return [{"prompt": question, "completion": row["completion"]} for row in rows for question in asked(row)]


def as_suite(rows: list[dict[str, Any]], way: str = "{}") -> list[dict[str, Any]]:
    """Rows of a suite of the form generation."""
    return [{"prompt": way.format(row["prompt"]), "reference": row["completion"]} for row in rows]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """One JSON line a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{path.name}: {len(rows)} rows")


def main() -> None:
    """Write data/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "data")
    options = parser.parse_args()
    draw, order = random.Random(options.seed), random.Random(options.seed + 1)
    one, *others = names(options.people, draw)
    forget, retain = facts(one, draw), [row for name in others for row in facts(name, draw)]
    write(options.out / "forget.jsonl", forget)
    write(options.out / "retain.jsonl", retain)
    write(options.out / "skills.jsonl", skills())
    write(options.out / "skills-asked.jsonl", as_suite(skills()))
    others_asked = order.sample(in_other_words(retain), min(96, 2 * len(retain)))
    write(options.out / "others-asked.jsonl", as_suite(others_asked, "Please say: {}"))
    for name, way in (("validation", "I would like to know: {}"), ("test", "Tell me this: {}")):
        asked = [
            {"prompt": way.format(row["prompt"]), "completion": row["completion"]}
            for row in draw.sample(retain, min(24, len(retain)))
        ]
        write(options.out / f"{name}.jsonl", asked)
    write(options.out / "all.jsonl", in_other_words([*forget, *retain, *skills()]))
    write(options.out / "without.jsonl", in_other_words([*retain, *skills()]))


if __name__ == "__main__":
    main()
