"""The parts a recipe is made of, by name: one row adds one. A row is a string, so a name costs no import."""

from __future__ import annotations

from genwright.base.registry import Registry

OBJECTIVES = Registry(
    "objective",
    {
        "causal": "genwright.objectives.language:Causal",
        "instruction": "genwright.objectives.language:Instruction",
        "masked": "genwright.objectives.language:Masked",
        "span-corruption": "genwright.objectives.language:SpanCorruption",
    },
)

LAYOUTS = Registry(
    "layout",
    {
        "text": "genwright.data.layouts:Text",
        "answers": "genwright.data.layouts:Answers",
        "masked": "genwright.data.layouts:MaskedText",
        "spans": "genwright.data.layouts:Spans",
        "pairs": "genwright.data.layouts:Pairs",
        "classes": "genwright.data.layouts:Classes",
        "texts": "genwright.data.layouts:Texts",
        "prompts": "genwright.data.layouts:Prompts",
    },
)

ADAPTERS = Registry(
    "adapter",
    {
        "full": "genwright.adapters.full:Full",
        "last-layers": "genwright.adapters.full:LastLayers",
        "head": "genwright.adapters.full:Head",
        "lora": "genwright.adapters.lora:LoRA",
    },
)

RUNGS = Registry(
    "rung",
    {
        "zero-shot": "genwright.improve.rungs:zero_shot",
        "few-shot": "genwright.improve.rungs:few_shot",
        **dict.fromkeys(ADAPTERS, "genwright.improve.rungs:trained"),
    },
)

METRICS = Registry(
    "metric",
    {
        "exact-match": "genwright.evaluate.metrics:EXACT_MATCH",
        "f1": "genwright.evaluate.metrics:F1",
        "rouge-1": "genwright.evaluate.metrics:ROUGE_1",
        "rouge-2": "genwright.evaluate.metrics:ROUGE_2",
        "rouge-l": "genwright.evaluate.metrics:ROUGE_L",
        "chrf": "genwright.evaluate.metrics:CHRF",
        "bleu": "genwright.evaluate.metrics:BLEU",
        "accuracy": "genwright.evaluate.metrics:ACCURACY",
        "command-path": "genwright.evaluate.metrics:COMMAND_PATH",
    },
)
