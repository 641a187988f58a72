"""The FLOP floor against published numbers and torch's own counter."""

import json

from genwright.plan.floor import body_of, lora_parts, work_of

SMOLLM2 = {
    "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64,
    "num_hidden_layers": 30, "vocab_size": 49152,
}  # fmt: skip


def lora_floor(config, *, rank, lengths, learned):
    return lora_parts(body_of(config), work_of(lengths, learned), rank)


def test_of_smollm2_by_hand():
    parts = lora_floor(SMOLLM2, rank=16, lengths=[3], learned=2)
    assert parts["body"] == 4 * 106_168_320 * 3  # all 134.5 M weights less the head's and the norms'
    assert parts["head"] == 4 * 49152 * 576 * 2
    assert parts["adapter"] == 6 * 4_884_480 * 3  # peft's own count of trained parameters at rank 16
    assert parts["attention"] == 3 * 30 * 4 * 576 * (1 + 2 + 3)
    assert parts["total"] == sum(parts[name] for name in ("body", "head", "adapter", "attention"))


def test_two_documents_attend_less_than_one_as_long():
    one = lora_floor(SMOLLM2, rank=16, lengths=[100], learned=50)
    two = lora_floor(SMOLLM2, rank=16, lengths=[50, 50], learned=50)
    assert two["attention"] < one["attention"]
    assert {name: one[name] for name in ("body", "head", "adapter")} == {
        name: two[name] for name in ("body", "head", "adapter")
    }


def test_is_what_torch_counts_for_the_same_products():
    """A LoRA step of a tiny Llama that scores only learned positions, without its attention."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        num_hidden_layers=3, vocab_size=64, use_cache=False,
    )  # fmt: skip
    model = get_peft_model(
        LlamaForCausalLM(config), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    learned = torch.tensor([5, 6, 7, 8])
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.arange(10)[None], logits_to_keep=learned).logits.sum().backward()
    products = sum(
        flops
        for operation, flops in counter.get_flop_counts()["Global"].items()
        if str(operation) in ("aten.mm", "aten.addmm")
    )
    parts = lora_floor(json.loads(config.to_json_string()), rank=4, lengths=[10], learned=4)
    ours = parts["body"] + parts["head"] + parts["adapter"]
    # The lowest layer's q, k and v need no gradient of their inputs: neither through the base nor through A.
    lowest = 2 * 10 * sum(32 * outputs + 4 * 32 for outputs in (32, 16, 16))
    assert products == ours - lowest
