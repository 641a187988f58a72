"""Why a model said that: one answer taken apart, with a number beside every picture that says how far to trust it.

The thing explained is a score f of the prompt's tokens: a decoder's log-probability of its answer, a classifier's log-probability of
its class. Attribution is by captum: integrated gradients (Sundararajan 2017, arXiv 1703.01365) from a baseline of `baseline_id`
embeddings, which add up to f(prompt) - f(baseline) (completeness); feature ablation, f(prompt) - f(prompt with one token replaced);
and Shapley values by sampled orders, which add up too.

Legend: B rows, T tokens of the prompt, A tokens of the answer, V vocabulary, H width, L layers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genwright.base.errors import BadRequest, MissingExtra
from genwright.models.attention import ordinary_attention
from genwright.models.surgery import layers_of

Tokens = list[int]
RANDOM_ORDERS = 8
"""Orders of tokens drawn by chance that a faithfulness number is compared with."""


@dataclass(frozen=True)
class Case:
    """One answer of one model: what stood before it, and which number is explained."""

    model: Any
    tokenizer: Any
    prompt: Tokens
    answer: Tokens
    """Of a decoder; of a classifier, empty."""
    target: int = -1
    """A classifier's class."""
    fixed: tuple[bool, ...] = ()
    """Which tokens of the prompt are the template's or special: they are not taken away."""

    @property
    def baseline_id(self) -> int:
        """What stands for "nothing": the mask, or the token that ends a text, or padding.

        Padding comes last: its embedding is often untrained, or zero, where a norm turns sharply and no integral converges.
        """
        ids = (getattr(self.tokenizer, f"{name}_token_id", None) for name in ("mask", "eos", "pad"))
        return int(next(one for one in ids if one is not None))

    @property
    def free(self) -> list[int]:
        """Places of the prompt that may be taken away."""
        return [place for place in range(len(self.prompt)) if not (self.fixed and self.fixed[place])]

    def embedded(self, ids_BT: Tensor) -> Tensor:
        """Tokens as the model's own embeddings, [B, T, H]."""
        embedded_BTH: Tensor = self.model.get_input_embeddings()(ids_BT)
        return embedded_BTH

    def score(self, prompt_BTH: Tensor) -> Tensor:
        """The score f of each row, [B]: the sum of the answer's log-probabilities, or the class's."""
        if not self.answer:
            output = self.model(inputs_embeds=prompt_BTH, **self._class_places(prompt_BTH))
            logits_BC: Tensor = getattr(
                output, "logits", output
            )  # a decoder's head that reads at places gives them bare
            return logits_BC.float().log_softmax(-1)[:, self.target]
        answer_1A = torch.tensor([self.answer], device=prompt_BTH.device)
        answer_BAH = self.embedded(answer_1A).expand(len(prompt_BTH), -1, -1)
        whole_BTH = torch.cat([prompt_BTH, answer_BAH.to(prompt_BTH.dtype)], 1)
        logits_BAV = self.model(inputs_embeds=whole_BTH, use_cache=False).logits[:, len(self.prompt) - 1 : -1]
        log_p_BAV = logits_BAV.float().log_softmax(-1)
        return log_p_BAV.gather(-1, answer_1A[..., None].expand(len(prompt_BTH), -1, -1)).sum((1, 2))

    def _class_places(self, prompt_BTH: Tensor) -> dict[str, Tensor]:
        """Where a decoder's class head reads; an encoder pools by itself."""
        if not hasattr(getattr(self.model, "forward", None), "model"):
            return {}
        size = prompt_BTH.shape[1]
        return {"positions_D": torch.arange(len(prompt_BTH), device=prompt_BTH.device) * size + size - 1}

    @torch.no_grad()
    def scores(self, prompts: Sequence[Tokens], at_once: int = 16) -> list[float]:
        """The score f of other prompts of the same length."""
        found: list[float] = []
        for start in range(0, len(prompts), at_once):
            found += self.score(self.embedded(torch.tensor(prompts[start : start + at_once]))).tolist()
        return found


def _captum() -> Any:
    try:
        import captum.attr
    except ImportError:
        raise MissingExtra("captum", "judge", "Saying which tokens mattered") from None
    return captum.attr


def integrated_gradients(case: Case, steps: int = 32) -> tuple[list[float], float]:
    """(each token's part, how far their sum is from f(prompt) - f(baseline), as a share of it). Gauss-Legendre, `steps` points.

    Tokens that are fixed have no part: they are the same in the baseline.
    """
    inputs_1TH = case.embedded(torch.tensor([case.prompt])).detach()
    baseline = [token if place not in case.free else case.baseline_id for place, token in enumerate(case.prompt)]
    baseline_1TH = case.embedded(torch.tensor([baseline])).detach()
    method = _captum().IntegratedGradients(case.score, multiply_by_inputs=True)
    with torch.enable_grad():
        parts_1TH = method.attribute(inputs_1TH, baselines=baseline_1TH, n_steps=steps, internal_batch_size=8)
    parts = parts_1TH.sum(-1)[0].tolist()
    full, empty = case.scores([case.prompt, baseline])
    return parts, abs(sum(parts) - (full - empty)) / max(abs(full - empty), 1e-9)


def ablation(case: Case) -> list[float]:
    """The score f(prompt) - f(prompt with the token replaced by the baseline's), of each token."""
    return _perturbed(case, _captum().FeatureAblation)


def shapley(case: Case, orders: int = 8, seed: int = 0) -> list[float]:
    """Each token's mean gain when tokens are put back in `orders` orders drawn by chance (Castro 2009; captum's sampling).

    In every order the gains add up to f(prompt) - f(baseline), so the parts do (efficiency), and tokens that stand for each other
    share what ablation would give to neither.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _perturbed(case, _captum().ShapleyValueSampling, n_samples=orders)


@torch.no_grad()
def _perturbed(case: Case, method: Any, **options: Any) -> list[float]:
    """What a perturbation method of captum gives each token; those that are fixed are never replaced and have no part."""
    free = case.free
    rest, mask_1T = list(case.prompt), torch.zeros(1, len(case.prompt), dtype=torch.long)
    for number, place in enumerate(free):
        mask_1T[0, place], rest[place] = number + 1, case.baseline_id
    score = lambda ids_BT: case.score(case.embedded(ids_BT))
    parts_1T = method(score).attribute(
        torch.tensor([case.prompt]), baselines=torch.tensor([rest]), feature_mask=mask_1T, perturbations_per_eval=16, **options
    )  # fmt: skip
    return [float(value) for value in parts_1T[0]]


def faithfulness(case: Case, parts: Sequence[float], seed: int = 0, points: int = 12) -> dict[str, Any]:
    """Deletion and insertion curves (Petsiuk 2018, arXiv 1806.07421), and the same of orders drawn by chance.

    Deletion takes tokens away, the most important first: a faithful order makes f fall at once (a small area). Insertion puts them
    back into an empty prompt: a large area. Areas are means of (f - f(empty)) / (f(prompt) - f(empty)) over `points` prompts.
    `gain` is how much better than chance: mean random area less deletion's, and insertion's less the mean random one.
    """
    full, empty = case.scores([case.prompt, _without(case, case.free)])
    scale = lambda curve: [(value - empty) / (full - empty) if full != empty else 0.0 for value in curve]
    order = sorted(case.free, key=lambda place: -parts[place])
    curves = {
        "deletion": scale(_curve(case, order, points, True)),
        "insertion": scale(_curve(case, order, points, False)),
    }
    draw = random.Random(seed)
    orders = [draw.sample(case.free, len(case.free)) for _ in range(RANDOM_ORDERS)]
    random_areas = {
        name: _mean([_mean(scale(_curve(case, one, points, name == "deletion"))) for one in orders]) for name in curves
    }
    areas = {name: _mean(curve) for name, curve in curves.items()}
    gain = {
        "deletion": random_areas["deletion"] - areas["deletion"],
        "insertion": areas["insertion"] - random_areas["insertion"],
    }
    return {"curves": curves, "areas": areas, "random_areas": random_areas, "gain": gain}


def _without(case: Case, places: Sequence[int]) -> Tokens:
    taken = set(places)
    return [case.baseline_id if place in taken else token for place, token in enumerate(case.prompt)]


def _curve(case: Case, order: Sequence[int], points: int, deleting: bool) -> list[float]:
    """Scores after the first 0, ..., all tokens of the order are taken away, or put back."""
    counts = sorted({round(step * len(order) / max(1, points - 1)) for step in range(points)})
    return case.scores([_without(case, order[:count] if deleting else order[count:]) for count in counts])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@torch.no_grad()
def tokens_of(case: Case, top: int = 5) -> list[dict[str, Any]]:
    """Of each answer token: its probability, the entropy of its distribution in bits, and the likeliest instead."""
    logits_AV = _logits(case, case.model)
    log_p_AV = logits_AV.float().log_softmax(-1)
    entropies = entropy_bits(log_p_AV).tolist()
    found = []
    for log_p_V, token, bits in zip(log_p_AV, case.answer, entropies):
        likely = log_p_V.topk(min(top, len(log_p_V)))
        instead = [
            [case.tokenizer.decode([i]), math.exp(value)]
            for i, value in zip(likely.indices.tolist(), likely.values.tolist())
        ]
        chance = math.exp(float(log_p_V[token]))
        found.append(
            {"token": case.tokenizer.decode([token]), "probability": chance, "entropy_bits": bits, "likeliest": instead}
        )
    return found


def entropy_bits(log_p_AV: Tensor) -> Tensor:
    """The sum of -p log2 p of each row. Of V equal chances: log2 V."""
    return -(log_p_AV.exp() * log_p_AV.nan_to_num(neginf=0.0)).sum(-1) / math.log(2)


def _logits(case: Case, model: Any) -> Tensor:
    ids_1T = torch.tensor([[*case.prompt, *case.answer]])
    logits_AV: Tensor = model(input_ids=ids_1T, use_cache=False).logits[0, len(case.prompt) - 1 : -1]
    return logits_AV


@torch.no_grad()
def logit_lens(case: Case) -> list[dict[str, Any]]:
    """What each layer would have said: its states through the final norm and the head (nostalgebraist 2020).

    The last layer's are the model's own logits. Of each answer token at each layer: the likeliest token, and the rank (from 1) and
    probability of the one that was said. Errors: BadRequest for a model without layers or a head.
    """
    head = case.model.get_output_embeddings()
    blocks, norm = layers_of(case.model)
    if head is None:
        raise BadRequest("This model has no head to read layers through.", wanted="a decoder")
    return [_read(case, states_AH, depth) for depth, states_AH in enumerate(lens_logits(case, blocks, norm, head))]


@torch.no_grad()
def lens_logits(case: Case, blocks: Sequence[Any], norm: Any, head: Any) -> list[Tensor]:
    """Logits [A, V] of the embeddings and of each block, through norm and head."""
    seen: list[Tensor] = []
    into = lambda _, inputs, named: seen.append(inputs[0] if inputs else named["hidden_states"])
    out_of = lambda _, inputs, output: seen.append(_tensor(output))
    handles = [blocks[0].register_forward_pre_hook(into, with_kwargs=True)]
    handles += [block.register_forward_hook(out_of) for block in blocks]
    try:
        _logits(case, case.model)
    finally:
        for handle in handles:
            handle.remove()
    places = slice(len(case.prompt) - 1, len(case.prompt) + len(case.answer) - 1)
    return [head(norm(states[0, places]) if norm is not None else states[0, places]) for states in seen]


def _tensor(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _read(case: Case, logits_AV: Tensor, depth: int) -> dict[str, Any]:
    p_AV = logits_AV.float().softmax(-1)
    said = torch.tensor(case.answer)[:, None]
    own_A1 = p_AV.gather(-1, said)
    return {
        "layer": depth, "says": [case.tokenizer.decode([token]) for token in p_AV.argmax(-1).tolist()],
        "rank": (1 + (p_AV > own_A1).sum(-1)).tolist(), "probability": own_A1[:, 0].tolist(),
    }  # fmt: skip


def explain(
    case: Case, *, steps: int = 32, seed: int = 0, say: Callable[[str], Any] = lambda text: None
) -> dict[str, Any]:
    """Everything that needs no training rows. Errors: BadRequest for an empty prompt or nothing said; MissingExtra."""
    if not case.free or (not case.answer and case.target < 0):
        raise BadRequest("There is nothing to explain.", wanted="a question and an answer of one token or more")
    with ordinary_attention(case.model):
        say("integrated gradients")
        gradients, gap = integrated_gradients(case, steps)
        say("ablation")
        ablated = ablation(case)
        say("Shapley values")
        shared = shapley(case, seed=seed)
        say("faithfulness")
        found: dict[str, Any] = {
            "prompt": [case.tokenizer.decode([token]) for token in case.prompt],
            "fixed": [place not in case.free for place in range(len(case.prompt))],
            "score": case.scores([case.prompt])[0],
            "attributions": {
                "integrated gradients": {"parts": gradients, "incompleteness": gap, "faithfulness": faithfulness(case, gradients, seed)},
                "feature ablation": {"parts": ablated, "faithfulness": faithfulness(case, ablated, seed)},
                "Shapley values": {"parts": shared, "faithfulness": faithfulness(case, shared, seed)},
            },
        }  # fmt: skip
        if case.answer:
            say("layers")
            found |= {"tokens": tokens_of(case), "layers": logit_lens(case)}
    return found
