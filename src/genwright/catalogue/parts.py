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
        "classification": "genwright.objectives.classify:Classification",
        "token-classification": "genwright.objectives.classify:TokenClassification",
        "contrastive": "genwright.objectives.contrast:Contrastive",
        "reward-model": "genwright.objectives.preference:Reward",
        "dpo": "genwright.objectives.preference:DPO",
        "kto": "genwright.objectives.preference:KTO",
        "orpo": "genwright.objectives.preference:ORPO",
        "grpo": "genwright.objectives.policy:GRPO",
        "ppo": "genwright.objectives.policy:PPO",
        "distillation": "genwright.objectives.distill:Distill",
        "gradient-ascent": "genwright.objectives.unlearn:GradientAscent",
        "gradient-difference": "genwright.objectives.unlearn:GradientDifference",
        "npo": "genwright.objectives.unlearn:NPO",
        "rmu": "genwright.objectives.unlearn:RMU",
        "generic-targets": "genwright.objectives.unlearn:GenericTargets",
    },
)

LAYOUTS = Registry(
    "layout",
    {
        "text": "genwright.data.layouts:Text",
        "answers": "genwright.data.layouts:Answers",
        "masked": "genwright.data.layouts_corrupted:MaskedText",
        "spans": "genwright.data.layouts_corrupted:Spans",
        "pairs": "genwright.data.layouts_paired:Pairs",
        "judged": "genwright.data.layouts_paired:Judged",
        "forget": "genwright.data.layouts_paired:Forget",
        "classes": "genwright.data.layouts_labelled:Classes",
        "tags": "genwright.data.layouts_labelled:Tags",
        "texts": "genwright.data.layouts_labelled:Texts",
        "prompts": "genwright.data.layouts_paired:Prompts",
    },
)

ADAPTERS = Registry(
    "adapter",
    {
        "full": "genwright.adapters.full:Full",
        "last-layers": "genwright.adapters.full:LastLayers",
        "head": "genwright.adapters.full:Head",
        "qat": "genwright.adapters.qat:QAT",
        "lora": "genwright.adapters.lora:LoRA",
        "rslora": "genwright.adapters.lora:RsLoRA",
        "dora": "genwright.adapters.lora:DoRA",
        "multilora": "genwright.adapters.multilora:MultiLoRA",
        "ia3": "genwright.adapters.ia3:IA3",
        "prompt-tuning": "genwright.adapters.soft:PromptTuning",
        "p-tuning": "genwright.adapters.soft:PTuning",
        "prefix-tuning": "genwright.adapters.soft:PrefixTuning",
    },
)

RUNGS = Registry(
    "rung",
    {
        "zero-shot": "genwright.improve.rungs:zero_shot",
        "few-shot": "genwright.improve.rungs:few_shot",
        "prompt-search": "genwright.improve.rungs:prompt_search",
        "lora-search": "genwright.improve.rungs:lora_search",
        "pre-training": "genwright.improve.rungs:pre_training",
        "preference": "genwright.improve.rungs:preference",
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
        "bits-per-token": "genwright.evaluate.metrics:BITS_PER_TOKEN",
        "bits-per-byte": "genwright.evaluate.metrics:BITS_PER_BYTE",
        "ndcg": "genwright.evaluate.metrics:NDCG",
        "pair-accuracy": "genwright.evaluate.metrics:PAIR_ACCURACY",
    },
)

ATTACKS = Registry(
    "attack",
    {
        "direct": "genwright.evaluate.redteam.attacks:Direct",
        "templates": "genwright.evaluate.redteam.attacks:Jailbreak",
        "injection": "genwright.evaluate.redteam.attacks:Injection",
        "crescendo": "genwright.evaluate.redteam.crescendo:Crescendo",
    },
)

SUITES = Registry(
    "suite form",
    {
        "choice": "genwright.evaluate.asking:CHOICE",
        "generation": "genwright.evaluate.asking:GENERATION",
        "perplexity": "genwright.evaluate.asking:PERPLEXITY",
        "lm-eval": "genwright.evaluate.lm:TASK",
        "code": "genwright.evaluate.coding:CODE",
        "calls": "genwright.evaluate.calls:CALLS",
        "instructions": "genwright.evaluate.instructions:INSTRUCTIONS",
        "retrieval": "genwright.evaluate.retrieval:RETRIEVAL",
        "judge": "genwright.evaluate.judging:JUDGE",
    },
)
