"""Scores of answers against references, 0 to 100, by the field's libraries. A metric is one row of the table below."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from genwright.base.errors import BadRequest

Texts = Sequence[str]


@dataclass(frozen=True)
class Metric:
    """`one(prediction, reference)` scores a row; `whole` scores a corpus where that is more than the mean of its rows."""

    name: str
    title: str
    one: Callable[[str, str], float]
    whole: Callable[[Texts, Texts], float] | None = None
    higher_is_better: bool = True
    reads: bool = False
    """Whether the score is read off the model (`improve.reading.READERS`), which writes no answer."""

    def per_row(self, predictions: Texts, references: Texts) -> list[float]:
        """One score a row. Errors: BadRequest when the lists differ in length or are empty."""
        _check(predictions, references)
        return [self.one(prediction, reference) for prediction, reference in zip(predictions, references)]

    def corpus(self, predictions: Texts, references: Texts) -> float:
        """One score for all rows."""
        if self.whole is None:
            scores = self.per_row(predictions, references)
            return sum(scores) / len(scores)
        _check(predictions, references)
        return self.whole(predictions, references)


def _check(predictions: Texts, references: Texts) -> None:
    if len(predictions) != len(references) or not predictions:
        raise BadRequest(
            "Predictions and references do not pair up.", wanted="equally many, at least one",
            found=f"{len(predictions)} predictions, {len(references)} references",
        )  # fmt: skip


def _exact(prediction: str, reference: str) -> float:
    return 100.0 * (prediction.strip() == reference.strip())


def _normalised(text: str) -> list[str]:
    """Lower case, without punctuation and English articles, split at white space (Rajpurkar 2016, SQuAD)."""
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def _f1(prediction: str, reference: str) -> float:
    said, wanted = _normalised(prediction), _normalised(reference)
    if not said or not wanted:
        return 100.0 * (said == wanted)
    shared = sum((Counter(said) & Counter(wanted)).values())
    return 200.0 * shared / (len(said) + len(wanted))


def command_path(command: str) -> str:
    """The words of a command before its first option: "az vm create" of "az vm create -n a --no-wait"."""
    return " ".join(re.split(r"\s-", f" {command}".replace("\n", " "))[0].split())


def _command_path(prediction: str, reference: str) -> float:
    return 100.0 * (command_path(prediction) == command_path(reference))


def _rouge(kind: str) -> Callable[[str, str], float]:
    def score(prediction: str, reference: str) -> float:
        from rouge_score.rouge_scorer import RougeScorer

        return 100.0 * float(RougeScorer([kind], use_stemmer=True).score(reference, prediction)[kind].fmeasure)

    return score


def _chrf(prediction: str, reference: str) -> float:
    from sacrebleu.metrics import CHRF as SacreCHRF

    return float(SacreCHRF().sentence_score(prediction, [reference]).score)


def _chrf_corpus(predictions: Texts, references: Texts) -> float:
    from sacrebleu.metrics import CHRF as SacreCHRF

    return float(SacreCHRF().corpus_score(list(predictions), [list(references)]).score)


def _bleu(prediction: str, reference: str) -> float:
    from sacrebleu.metrics import BLEU as SacreBLEU

    return float(SacreBLEU(effective_order=True).sentence_score(prediction, [reference]).score)


def _bleu_corpus(predictions: Texts, references: Texts) -> float:
    from sacrebleu.metrics import BLEU as SacreBLEU

    return float(SacreBLEU().corpus_score(list(predictions), [list(references)]).score)


EXACT_MATCH = Metric("exact-match", "Exact match", _exact)
F1 = Metric("f1", "F1 of words", _f1)
ROUGE_1 = Metric("rouge-1", "ROUGE-1", _rouge("rouge1"))
ROUGE_2 = Metric("rouge-2", "ROUGE-2", _rouge("rouge2"))
ROUGE_L = Metric("rouge-l", "ROUGE-L", _rouge("rougeL"))
CHRF = Metric("chrf", "chrF", _chrf, _chrf_corpus)
BLEU = Metric("bleu", "BLEU", _bleu, _bleu_corpus)
ACCURACY = Metric(
    "accuracy", "Accuracy of labels", lambda said, wanted: 100.0 * (said.strip().lower() == wanted.strip().lower())
)
COMMAND_PATH = Metric("command-path", "Right command", _command_path)


def _no_answer(prediction: str, reference: str) -> float:
    raise BadRequest("This is read off a model, not off answers.", do="choose another metric for answers")


BITS_PER_TOKEN = Metric("bits-per-token", "Bits per token", _no_answer, higher_is_better=False, reads=True)
BITS_PER_BYTE = Metric("bits-per-byte", "Bits per byte", _no_answer, higher_is_better=False, reads=True)
NDCG = Metric("ndcg", "nDCG of the right answer", _no_answer, reads=True)
PAIR_ACCURACY = Metric("pair-accuracy", "Pairs put right", _no_answer, reads=True)


def perplexity(total_log_probability: float, num_tokens: int) -> float:
    """exp(-log p / tokens), log p in nats over all tokens counted. Errors: BadRequest without tokens."""
    if num_tokens < 1 or math.isnan(total_log_probability):
        raise BadRequest(
            "There is nothing to take a perplexity of.", wanted="at least one token", found=f"{num_tokens} tokens"
        )
    return math.exp(-total_log_probability / num_tokens)
