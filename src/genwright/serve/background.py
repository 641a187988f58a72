"""What people ask of a model that no expert was made for: our own sentences, the ground against which an expert must stand out.

Frames times topics, every pair a plausible question. No data set is behind them; they are written here.
"""

from __future__ import annotations

import random

FRAMES = (
    "What is {}?", "Explain {} to a child.", "Write a short poem about {}.", "How much does {} cost?", "Who invented {}?",
    "Give me five ideas for {}.", "Summarize this article about {}.", "Is {} dangerous?", "I need help with {}, please.",
    "Translate a sentence about {} into French.", "What happened to {} last year?", "Compare {} with its alternatives.",
    "Write an email to my boss about {}.", "Why do people like {}?", "Tell me a joke about {}.", "How do I start with {}?",
    "Write a Python function that has to do with {}.", "What is the history of {}?", "My friend is worried about {}. What should I say?",
    "List the steps of {}.", "The report says that {} grew by 12 percent; is that true?", "Plan a week around {}.",
    "{}: which of these is right? A. always B. never C. sometimes D. it depends", "Write a review of {}.",
    "Which word does not fit with {}?", "How many people know about {}?", "Rewrite this politely: I do not care about {}.",
)  # fmt: skip

FORMS = (
    "Question: which statement about {} is true?\n(A) It is old.\n(B) It is new.\n(C) Both.\n(D) Neither.\nAnswer:",
    "Pick the best answer. {} is mostly found\nA) at home\nB) at work\nC) at sea",
    "Three friends share the cost of {}. Anna pays 12 dollars, Ben twice as much, and Cleo 5 less than Ben. How much did they pay in all?",
    "A shop sold 48 tickets for {} in April and half as many in May. How many did it sell altogether?",
    "All that is dear is rare. {} is not rare. Does it follow that it is not dear? Options:\n- yes\n- no",
    "Is the following sentence plausible? \"She spent the morning on {}.\"",
    "Classify the text as positive or negative.\nText: I was let down by {}.\nLabel:",
    "Correct the grammar: they was talking on {} since two hour",
    "Passage: {} was first described by travellers. Some praised it, others did not, and for a century nobody looked into it again."
    " Then a teacher in a small town began to collect what was known.\nQuestion: who collected what was known?",
    "def load(path):\n    # reads the table about {}\n    return open(path).read()\n\nWhat does this function return?",
    "SELECT name, price FROM items WHERE topic = '{}' -- why is this slow?",
    "Write a query that counts the rows about {} by month.", "Write a function to find the longest list of {}.",
    "find files that mention {} and are larger than 10 MB", "{}, explained by an expert: ten facts nobody told you",
    "a slow and charmless look at {} that never finds its point .", "Our guide to {} opens today", "Could not save {}: no space is left.",
    "Extract names and dates as JSON from: \"On 3 May Maria wrote to us about {}.\"",
    "Translate to German: The office for {} is closed on Mondays.", "Which of these words rhymes with the last word of {}?",
    "You are a careful assistant. Read the notes below and answer in one line.\n\n"
    "Notes: {}; budget 300; deadline Friday.\n\nWhen is it due?",
    "Sort these words: {}, apple, quiet, river", "user: hi\nassistant: hello, how can I help?\nuser: something with {}",
    "{}\n{}\nWhich of the two lines is longer?", "Return True if x is about {} and False otherwise.",
    "true or false: {} was known to the Greeks",
    "what is the total number of {} per region", "Table:\n| year | {} |\n| 2019 | 14 |\n| 2020 | 21 |\nBy how much did it grow?",
)  # fmt: skip
"""What is put to a model in other forms than a plain question: exams, sums, code, passages, labels, headlines, strings of a program."""

TOPICS = (
    "cooking rice", "football", "the weather in Oslo", "a broken bicycle", "old castles", "wedding speeches", "electric cars",
    "learning the guitar", "black holes", "garden weeds", "a lost passport", "baby names", "the stock market", "hiking boots",
    "coffee machines", "medieval music", "a job interview", "house plants", "train tickets", "vaccines", "chess openings",
    "yoga", "the French revolution", "printer drivers", "a birthday party", "video games", "mortgages", "dog training",
    "volcanoes", "marathon running", "fashion", "home insurance", "wine", "dinosaurs", "solar panels", "divorce",
    "bread baking", "photography", "headaches", "a used phone", "space travel", "rivers of Asia", "tax returns", "opera",
    "swimming lessons", "robot vacuum cleaners", "ancient Rome", "spreadsheets", "a noisy neighbour", "knitting", "diabetes",
    "cloud storage", "elections", "camping", "poetry", "cryptocurrency", "back pain", "museum opening hours", "genetics",
    "databases", "a leaking tap", "sleep", "movie actors", "email passwords", "tea", "bridges", "climate change", "sharks",
    "mathematical proofs", "painting a wall", "airport security", "a school timetable", "recycling", "philosophy", "magic tricks",
    "web servers", "hotel bookings", "contracts", "hip hop", "earthquakes", "pensions", "novel writing", "cats", "the moon",
    "sorting lists", "a broken heart", "carpets", "skiing", "allergies", "logic puzzles", "refunds", "sculpture", "bees",
)  # fmt: skip


def sentences(count: int = 1200, seed: int = 0) -> list[str]:
    """The same ones each time: plain questions, some of them two in a row, and a third in other forms."""
    rng = random.Random(seed)
    drawn = lambda frames, some: [
        frame.replace("{}", topic) for frame, topic in rng.sample([(f, t) for t in TOPICS for f in frames], some)
    ]
    others = min(count // 3, len(FORMS) * len(TOPICS))
    plain = drawn(FRAMES, min(count - others, len(FRAMES) * len(TOPICS)))
    chosen = [f"{one} {rng.choice(plain)}" if place % 4 == 0 else one for place, one in enumerate(plain)] + drawn(
        FORMS, others
    )
    rng.shuffle(chosen)
    return chosen
