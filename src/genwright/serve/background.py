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


def sentences(count: int = 800, seed: int = 0) -> list[str]:
    """The same ones each time: single questions, and some of two in a row."""
    rng = random.Random(seed)
    pairs = [(frame, topic) for topic in TOPICS for frame in FRAMES]
    chosen = [frame.format(topic) for frame, topic in rng.sample(pairs, min(count, len(pairs)))]
    return [f"{one} {rng.choice(chosen)}" if place % 4 == 0 else one for place, one in enumerate(chosen)]
