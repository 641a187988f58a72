"""FLOPs of one optimiser step, counted on the real step, over the floor: for every method. Deterministic, no clock.

    python -m benchmarks.work          prints the table and writes benchmarks/results/work.json

The models are tiny but have the shape of large ones: documents of 32 to 64 tokens, blocks of SmolLM2-135M. `tests/engine/test_work.py`
holds each ratio to 1.05.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from genwright.adapters.full import Full, Head, LastLayers
from genwright.adapters.ia3 import IA3
from genwright.adapters.lora import LoRA, RsLoRA
from genwright.adapters.multilora import MultiLoRA
from genwright.adapters.soft import PrefixTuning, PromptTuning
from genwright.data.collate import Batch, Item, collate_items
from genwright.engine.build import Built, build
from genwright.engine.recipe import Recipe
from genwright.engine.step import train_step
from genwright.models.attention import documents, tokens_of
from genwright.models.families import Head as OnBody
from genwright.models.load import build_model
from genwright.objectives.classify import Classification
from genwright.objectives.language import (
    ROUND_DOCUMENT,
    ROUND_LABELS,
    ROUND_TOKENS,
    Instruction,
    Masked,
    SpanCorruption,
)
from genwright.objectives.policy import GRPO
from genwright.objectives.preference import DPO
from genwright.parallel.norm import global_norm
from genwright.plan import floor
from genwright.plan.here.tracker import Tracker

RESULT = Path(__file__).parent / "results" / "work.json"
VOCABULARY = 1024
DECODER = {"vocab_size": VOCABULARY, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 2,
           "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 1024}  # fmt: skip
"""Two blocks of SmolLM2-135M."""
ENCODER = {"vocab_size": VOCABULARY, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4,
           "num_attention_heads": 4, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # fmt: skip
BOTH = {
    "vocab_size": VOCABULARY,
    "d_model": 256,
    "d_kv": 64,
    "d_ff": 1024,
    "num_layers": 3,
    "num_heads": 4,
    "dropout_rate": 0.0,
}
CONFIGS: dict[str, dict[str, Any]] = {"llama": DECODER, "bert": ENCODER, "t5": BOTH}
LLAMA = floor.body_of(DECODER)
WIDTH = 576
CLASSES = ("a", "b", "c")
RANK, VIRTUAL = 8, 16
EVEN, LONG = (64,) * 2, (384,)
RAGGED = (17, 64, 33, 21, 50, 35)
SQUARE = "attention multiplies a causal document's whole square, and a shared prompt's once a branch"


@dataclass(frozen=True)
class Case:
    """A method on rows, and its floor for them."""

    name: str
    objective: Any
    adapter: Any
    items: Sequence[Item]
    floor: float
    model: str = "llama"
    trains: bool = True
    packing: bool = True
    labels: tuple[str, ...] = field(default=())
    pays: float = 0
    """FLOPs above the floor that are known to the last one and named in `why`; 0 where nobody asked."""
    why: str = ""


def text(length: int, learned: int) -> Item:
    """A document whose last `learned` tokens are labels."""
    places = range(length - learned, length)
    ids = [3 + place % 1000 for place in range(length)]
    return Item(ids, length, [place - 1 for place in places], [ids[place] for place in places], [0] * learned)


def answered(prompt: int, answers: Sequence[int], counts: dict[str, float], **columns: Any) -> Item:
    """A prompt that stands once, and its answers, all of whose tokens are labels."""
    ids = [3 + place % 1000 for place in range(prompt + sum(answers))]
    positions, sequences, start = [], [], prompt
    for number, length in enumerate(answers):
        positions += [prompt - 1, *range(start, start + length - 1)]
        sequences += [number] * length
        start += length
    return Item(ids, (prompt, *answers), positions, ids[prompt:], sequences, len(answers), counts, columns)


def squares(rows: Sequence[Any]) -> float:
    """FLOPs of a step's pairs that attention by plain products multiplies and nobody sees, padding of groups included."""
    layout = documents([rows], sum(map(tokens_of, rows)), round_to=ROUND_DOCUMENT)
    multiplied = sum(group.slots_GL.shape[0] * group.slots_GL.shape[1] ** 2 for group in layout.groups)
    return 12 * LLAMA.layers * LLAMA.attended * (multiplied - sum(map(floor.seen_pairs, rows)))


def pair(prompt: int, answer: int) -> Item:
    """DPO's row, its reference stored."""
    return answered(prompt, (answer, answer), {"pairs": 1.0}, reference_D=torch.zeros(2))


def group(prompt: int, answer: int, size: int) -> Item:
    """GRPO's row, after a round of rollouts."""
    return answered(prompt, (answer,) * size, {}, old_N=torch.zeros(size * answer), advantage_D=torch.ones(size))


def hidden_tokens(length: int, masked: int) -> Item:
    """Masked language modelling's row."""
    return Item([5] * length, length, range(masked), [7] * masked, [0] * masked)


def source_and_target(source: int, target: int) -> Item:
    """Span corruption's row: the text with its sentinels, and what they hide."""
    return Item([5] * target, target, range(target), [7] * target, [0] * target, source_ids=[6] * source)


def cases() -> list[Case]:
    """Every method once, on rows whose sizes need no rounding; then what rounding and padding cost."""
    return [*_adapters(), *_objectives(), *_layouts()]


def _adapters() -> list[Case]:
    rows = [text(length, 16) for length in EVEN]
    work = floor.work_of(EVEN, 32)
    lora, one = LLAMA.adapter(RANK), Instruction()
    in_front = floor.work_of([(VIRTUAL, *EVEN)], 32)
    seen = floor.work_of(EVEN, 32, prefix=VIRTUAL)
    made = {
        "full": (Full(), floor.full(LLAMA, work)),
        "last-layers": (LastLayers(layers=1), floor.last_layers(LLAMA, work, 1)),
        "head": (Head(), floor.head_only(LLAMA, work)),
        # The first block's A reads what needs no gradient: neither q, k, v nor their A pass one on.
        "lora": (LoRA(rank=RANK), floor.adapted(LLAMA, work, lora, lowest=LLAMA.lowest + 3 * WIDTH * RANK)),
        "rslora": (RsLoRA(rank=RANK), floor.adapted(LLAMA, work, lora, lowest=LLAMA.lowest + 3 * WIDTH * RANK)),
        "multilora": (
            MultiLoRA(parallel=2, rank=RANK // 2),
            floor.adapted(LLAMA, work, lora, lowest=LLAMA.lowest + 3 * WIDTH * RANK),
        ),
        "ia3": (IA3(), floor.adapted(LLAMA, work, lowest=LLAMA.lowest)),
        "prompt-tuning": (PromptTuning(tokens=VIRTUAL), floor.adapted(LLAMA, in_front)),
        "prefix-tuning": (PrefixTuning(tokens=VIRTUAL), floor.adapted(LLAMA, seen, lowest=LLAMA.lowest)),
    }
    evaluation = Case("evaluation", one, Full(), rows, floor.forward(LLAMA, work), trains=False)
    return [evaluation, *(Case(name, one, adapter, rows, least) for name, (adapter, least) in made.items())]


def _objectives() -> list[Case]:
    in_pairs, in_groups = [(64, 32, 32)], [(64, *(32,) * 4)]
    pairs, groups = floor.work_of(in_pairs, 64), floor.work_of(in_groups, 128)
    of_pairs, of_groups = {"pays": squares(in_pairs), "why": SQUARE}, {"pays": squares(in_groups), "why": SQUARE}
    classes = floor.body_of(DECODER, head=3 * WIDTH)
    texts = floor.work_of(EVEN, len(EVEN))
    lora, lowest = LLAMA.adapter(RANK), LLAMA.lowest + 3 * WIDTH * RANK
    dpo, grpo = [pair(64, 32)], [group(64, 32, 4)]
    one_label = [Item([5] * length, length, [length - 1], [1], [0]) for length in EVEN]
    return [
        Case("classification, full", Classification(), Full(), one_label, floor.full(classes, texts), labels=CLASSES),
        Case(
            "classification, head", Classification(), Head(), one_label, floor.head_only(classes, texts), labels=CLASSES
        ),
        Case("dpo, full", DPO(), Full(), dpo, floor.full(LLAMA, pairs), **of_pairs),
        Case("dpo, lora", DPO(), LoRA(rank=RANK), dpo, floor.adapted(LLAMA, pairs, lora, lowest=lowest), **of_pairs),
        Case("grpo, full", GRPO(), Full(), grpo, floor.full(LLAMA, groups), **of_groups),
        Case(
            "grpo, lora", GRPO(), LoRA(rank=RANK), grpo, floor.adapted(LLAMA, groups, lora, lowest=lowest), **of_groups
        ),
        Case("masked", Masked(), Full(), [hidden_tokens(64, 16)] * 2, _masked_floor(), model="bert"),
        Case("span-corruption", SpanCorruption(), Full(), [source_and_target(96, 32)] * 4, _spans_floor(), model="t5"),
    ]


def _masked_floor() -> float:
    """BERT's head is a dense layer and the vocabulary: both only where a token is hidden."""
    block = (*((256, 256),) * 4, (256, 1024), (1024, 256))
    return floor.full(floor.Body(block, 4, 256, 256 * 256 + 256 * VOCABULARY), floor.work_of(EVEN, 32, causal=False))


def _spans_floor() -> float:
    square, feed = (256, 256), ((256, 1024), (1024, 256))
    encoder = floor.Body((*(square,) * 4, *feed), 3, 256, 0)
    decoder = floor.Body((*(square,) * 6, *feed), 3, 256, 256 * VOCABULARY)
    return floor.encoder_decoder(encoder, decoder, 3 * 2 * 256 * 256, [96] * 4, [32] * 4)


def _layouts() -> list[Case]:
    """Rounding: 32 tokens and 32 labels, 16 tokens of a document; below 1 % in a microbatch of 2,048 tokens."""
    ragged, long = [text(length, 16) for length in RAGGED], [text(length, 64) for length in LONG]
    labels, spare = 16 * len(RAGGED), -sum(RAGGED) % ROUND_TOKENS
    least = floor.full(LLAMA, floor.work_of(RAGGED, labels))
    padded = 6 * LLAMA.weights * (max(RAGGED) * len(RAGGED) - sum(RAGGED)) + squares(RAGGED)
    rounded = 6 * LLAMA.weights * spare + 6 * LLAMA.head * (-labels % ROUND_LABELS) + squares(RAGGED)
    return [
        Case(
            "ragged, packed",
            Instruction(),
            Full(),
            ragged,
            least,
            pays=rounded,
            why="sizes rounded up, and the squares",
        ),
        Case(
            "ragged, padded",
            Instruction(),
            Full(),
            ragged,
            least,
            packing=False,
            pays=padded,
            why="rows are padded to the longest",
        ),
        Case(
            "long",
            Instruction(),
            Full(),
            long,
            floor.full(LLAMA, floor.work_of(LONG, 64)),
            pays=squares(LONG),
            why=SQUARE,
        ),
    ]


def built_for(case: Case) -> tuple[Built, list[Batch]]:
    """The case made ready, in float32, and its microbatches."""
    config = AutoConfig.for_model(case.model, pad_token_id=0, **CONFIGS[case.model])
    config.architectures = ["BertForMaskedLM"] if case.model == "bert" else None
    recipe = Recipe(case.objective, case.adapter, "fp32", 1, len(case.items), 1e-3, labels=case.labels)
    load = lambda dtype, attention: build_model(config, dtype, attention, OnBody(case.objective.head, case.labels))
    packing = case.packing and case.model != "t5"
    return build(recipe, load), collate_items(case.items, packing=packing, capacity=1 << 20, pad_id=0)


def run(built: Built, batches: Sequence[Batch], *, trains: bool) -> None:
    """One optimiser step; or the objective alone."""
    if trains:
        train_step(built.model, built.optimizer, built.objective, batches, max_norm=1.0, global_norm=global_norm)
        return
    with torch.no_grad():
        for batch in batches:
            built.objective(built.model, batch)


def counted(case: Case) -> float:
    """FLOPs of the case's matrix products and attention, as they run."""
    built, batches = built_for(case)
    with Tracker() as tracker:
        run(built, batches, trains=case.trains)
    return float(sum(event.flops for event in tracker.events))


def table(say: Callable[[str], Any] = print) -> list[dict[str, Any]]:
    """One row a case."""
    rows = []
    for case in cases():
        done = counted(case)
        rows.append(
            {
                "method": case.name,
                "counted": done,
                "floor": case.floor,
                "ratio": round(done / case.floor, 4),
                "pays": case.pays,
                "why": case.why,
            }
        )
        say(f"{case.name:24} {done / 1e9:8.3f} / {case.floor / 1e9:8.3f} GFLOP = {done / case.floor:.4f}   {case.why}")
    return rows


def main() -> None:
    """Count, print, write."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        RESULT.write_text(json.dumps({"torch": torch.__version__, "methods": table()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
