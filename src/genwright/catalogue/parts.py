"""The parts a recipe is made of, by name: one row adds one. A row is a string, so a name costs no import."""

from __future__ import annotations

from genwright.base.registry import Registry

OBJECTIVES = Registry(
    "objective",
    {
        "causal": "genwright.objectives.language:Causal",
        "instruction": "genwright.objectives.language:Instruction",
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
