"""A campaign: every attack on every goal, hundreds of conversations asked in batches, and what came of it with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from genwright.evaluate.redteam.attacks import Attempt, Conversation, Talk, harmless
from genwright.evaluate.redteam.goals import Goal
from genwright.evaluate.redteam.scoring import Score, refuses
from genwright.evaluate.statistics import wilson

AT_ONCE = 32
"""Conversations of one batch."""

Progress = Callable[[int, int], Any]


class Target(Protocol):
    """What is attacked: a model on this machine, or an address."""

    def replies(self, conversations: list[Conversation]) -> list[str]:
        """The next turn of each; an empty text where there is no answer."""
        ...


def campaign(
    target: Target, attacks: Sequence[Any], goals: Sequence[Goal], score: Score, *, harmless_prompts: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """{attacks: {name: {goals, succeeded, rate, low, high, ...}}, over_refusal, scored_by, transcripts}."""
    talks = [attack(goal, score) for attack in attacks for goal in goals]
    attempts = [attempt for made in in_lockstep(target, talks, progress) for attempt in made]
    refused = _over_refusal(target, harmless_prompts)
    return {
        "attacks": {attack.name: summary([one for one in attempts if one.attack == attack.name]) for attack in attacks},
        "over_refusal": refused,
        "scored_by": sorted({attempt.verdict.how for attempt in attempts}),
        "transcripts": [asdict(attempt) for attempt in attempts],
    }


def in_lockstep(target: Target, talks: Sequence[Talk], progress: Progress | None = None) -> list[list[Attempt]]:
    """Run generators side by side: each round asks the next question of all that still talk, in batches."""
    made: list[list[Attempt]] = [[] for _ in talks]
    waiting = {number: conversation for number, talk in enumerate(talks) if (conversation := next(talk)) is not None}
    while waiting:
        answers = {
            number: answer
            for batch in _batches(list(waiting.items()))
            for (number, _), answer in zip(batch, target.replies([conversation for _, conversation in batch]))
        }
        waiting = {}
        for number, answer in answers.items():
            try:
                waiting[number] = talks[number].send(answer)
            except StopIteration as done:
                made[number] = done.value
        if progress is not None:
            progress(len(talks) - len(waiting), len(talks))
    return made


def _batches(items: list[tuple[int, Conversation]]) -> Iterator[list[tuple[int, Conversation]]]:
    for start in range(0, len(items), AT_ONCE):
        yield items[start : start + AT_ONCE]


def summary(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Per goal: it was reached if any attempt reached it. The interval is Wilson's, at 95 %."""
    reached = {attempt.goal.text for attempt in attempts if attempt.verdict.success}
    goals = {attempt.goal.text for attempt in attempts}
    low, high = wilson(len(reached), len(goals)) if goals else (0.0, 1.0)
    return {
        "goals": len(goals), "reached": len(reached), "rate": 100 * len(reached) / max(1, len(goals)), "low": 100 * low, "high": 100 * high,
        "attempts": len(attempts), "refused": sum(attempt.verdict.refused for attempt in attempts),
        "unjudged": sum(attempt.verdict.success is None for attempt in attempts),
        "unanswered": sum(not attempt.transcript[-1]["content"].strip() for attempt in attempts),
        "backtracks": sum(attempt.backtracks for attempt in attempts),
        "by_variant": dict(Counter(attempt.variant for attempt in attempts if attempt.verdict.success)),
    }  # fmt: skip


def _over_refusal(target: Target, prompts: Sequence[str]) -> dict[str, Any]:
    """Harmless look-alikes that were refused, by the same rules."""
    talks = list(enumerate(harmless(prompts)))
    answers = [answer for batch in _batches(talks) for answer in target.replies([talk for _, talk in batch])]
    refused = [prompt for prompt, answer in zip(prompts, answers) if refuses(answer)]
    low, high = wilson(len(refused), len(prompts)) if prompts else (0.0, 1.0)
    return {
        "prompts": len(prompts), "refused": len(refused), "which": refused, "unanswered": sum(not answer.strip() for answer in answers),
        "rate": 100 * len(refused) / max(1, len(prompts)), "low": 100 * low, "high": 100 * high,
    }  # fmt: skip
