"""Tables as papers write them: spellings, methods, lengths, batches that are not stated; what is left out is a documented default."""

from __future__ import annotations

import pytest

from genwright.base.errors import RecipeError, UnknownName
from genwright.catalogue.architectures import stated
from genwright.catalogue.device_names import place
from genwright.plan.published.frameworks import FRAMEWORKS, filled, lacks_bf16, on_device
from genwright.plan.published.row_training import FRAMEWORKS as WORDS
from genwright.plan.published.row_training import training_row
from genwright.plan.published.words import devices, length, rows_of_a_step
from genwright.plan.traced.setup import Setup
from genwright.plan.training import estimate_training

ROW = {"id": "a", "framework": "transformers", "model": "Llama-2-7b-hf", "adaptation": "full", "adapt_norm": "full", "device": "A100-80G"}  # fmt: skip


def setup(**more: str) -> Setup:
    return training_row({**ROW, **more}).setup


def test_every_word_for_a_framework_names_a_row() -> None:
    assert {name for _, name in WORDS} <= set(FRAMEWORKS)


@pytest.mark.parametrize(
    ("said", "framework"),
    [
        ("Megatron-LM", "megatron"),
        ("DeepSpeed ZeRO-3", "deepspeed"),
        ("PyTorch FSDP", "accelerate"),
        ("llm-foundry v0.3", "llm-foundry"),
        ("Colossal-AI", "colossalai"),
        ("xtuner 0.1.9", "xtuner"),
        ("ms-swift", "swift"),
        ("nanotron", "nanotron"),
        ("torchtitan", "torchtitan"),
        ("GPT-NeoX", "gpt-neox"),
        ("MaxText", "maxtext"),
        ("somebody's trainer", "transformers"),
    ],
)
def test_frameworks_as_papers_write_them(said: str, framework: str) -> None:
    assert setup(framework=said).framework == framework


@pytest.mark.parametrize(
    ("said", "adapter", "base"),
    [
        ("QLoRA", "lora", "nf4-double"),
        ("qlora (GPTQ int4 base)", "lora", "int4"),
        ("LoRA 8-bit", "lora", "int8"),
        ("PEFT prefix tuning", "prefix-tuning", ""),
        ("(IA)^3", "ia3", ""),
        ("QDoRA 4-bit", "dora", "nf4-double"),
        ("linear probing", "head", ""),
        ("freeze, fp8", "last-layers", ""),
        ("full", "full", ""),
    ],
)
def test_adaptations(said: str, adapter: str, base: str) -> None:
    found = setup(adaptation=said, adapt_norm="")
    assert (found.adapter, found.base) == (adapter, base)


def test_a_method_that_nobody_here_plans_is_planned_as_its_nearest_and_said() -> None:
    asked = training_row({**ROW, "adaptation": "LISA", "adapt_norm": ""})
    assert asked.setup.adapter == "lora" and any("lisa is planned" in note for note in asked.notes)
    lomo = setup(framework="LOMO", optimizer="LOMO", precision="fp16")
    assert (lomo.optimizer, lomo.precision, lomo.optimizer_in_backward) == ("sgd", "fp16-true", True)


def test_precision_stands_in_the_strategy_where_its_column_is_blank() -> None:
    assert setup(parallel="DDP fp16", n_devices="2").precision == "fp16"
    assert setup(parallel="DDP fp16", n_devices="2", precision="bf16").precision == "bf16"


def test_a_device_without_bf16_takes_fp16_where_nothing_is_asked_and_refuses_bf16_that_is() -> None:
    device = place("Tesla T4").device
    assert lacks_bf16(device) and not lacks_bf16(place("a100").device)
    found, notes = on_device(Setup(model="gpt2"), device)
    assert found.precision == "fp16" and "no bfloat16" in notes[0]
    with pytest.raises(RecipeError, match="bfloat16"):
        estimate_training(Setup(model="gpt2", precision="bf16"), device)
    assert setup(device="V100-32G", precision="bf16").precision == "fp16"


def test_a_device_of_which_only_the_memory_is_known() -> None:
    asked = training_row({**ROW, "device": "a 48GB GPU"})
    assert asked.placed.device.memory_gb == 48 and any("times say little" in note for note in asked.notes)
    with pytest.raises(UnknownName, match="device"):
        training_row({**ROW, "device": "Jetson"})


def test_numbers_as_tables_write_them() -> None:
    assert (length("8K"), length("2,048"), length("")) == (8192, 2048, 0)
    assert (devices("2x8"), devices("64"), devices("", 4)) == (16, 64, 4)
    assert (rows_of_a_step("1,024", 2048), rows_of_a_step("4M tokens", 4096)) == (1024, 1024)


def test_degrees_and_strategy_are_read_from_one_column() -> None:
    found = setup(framework="Megatron-LM", parallel="TP8 PP=4, ZeRO-1", n_devices="64", precision="bf16")
    assert (found.tensor_degree, found.pipeline_degree, found.data_degree, found.strategy) == (8, 4, 2, "zero1")


def test_a_microbatch_that_is_not_stated_is_of_a_usual_size() -> None:
    """1024 rows over 8 devices are 128 a device: accumulated, not taken at once; 8 rows over 8 devices are."""
    found = setup(framework="llm-foundry", global_batch="1024", seq_len="2048", n_devices="8")
    assert found.micro_batch * found.accumulate == 128 and found.micro_batch * found.seq_len <= 16384
    assert setup(framework="llm-foundry", global_batch="8", seq_len="2048", n_devices="8").accumulate == 1


def test_a_quantised_base_is_recomputed_as_peft_does() -> None:
    assert setup(adaptation="QLoRA", adapt_norm="qlora").recompute == "full"
    assert setup(adaptation="QLoRA", adapt_norm="qlora", activation_ckpt="no").recompute == "none"


def test_short_tasks_have_short_rows() -> None:
    assert setup(objective="seq classification").seq_len == 128
    assert setup(notes="command shows --block_size 12 (likely truncated 128/1024)").seq_len == 128


def test_megatron_deepspeed_gathers_float32_gradients_only_with_the_bf16_optimizer() -> None:
    known = {
        name: filled(Setup(model="gpt2", framework="megatron-deepspeed", precision=name))[1]
        for name in ("bf16", "fp16")
    }
    assert known["bf16"].gradient_buffer == "fp32" and known["bf16"].whole_gradients
    assert not known["fp16"].gradient_buffer and known["fp16"].gradient_copies == (4, 4)
    split = filled(Setup(model="gpt2", framework="megatron-deepspeed", precision="fp16", strategy="zero1", count=2))[1]
    assert split.gradient_copies == (2, 4)


def test_the_vocabulary_of_a_stated_gpt_is_what_its_layers_leave() -> None:
    """181e9 - 12 x 72 x 14336^2 = 3.4e9 = 239 thousand x 14336: BLOOM's; 176e9 of GPT-3's 96 layers leaves GPT-2's."""
    one = stated("GPT 181B", "NHIDDEN=14336 / NLAYERS=72")
    assert (one.config["n_embd"], one.config["n_layer"], one.config["vocab_size"]) == (14336, 72, 250880)
    assert stated("GPT 174.6B", "hidden=12288, layers=96").config["vocab_size"] == 50304


def test_a_count_alone_is_planned_as_a_gpt_and_a_vision_model_is_not() -> None:
    found = stated("Turing-NLG 17.2B")
    assert found.parameters == pytest.approx(17.2e9, rel=0.03) and "not stated" in found.note
    for name in ("Llama3.2-11B-Vision", "Mixtral 9x9B", "whisper 1.5B"):
        with pytest.raises(UnknownName):
            stated(name)
    assert stated("Qwen3-4B-Thinking-2507").name == "qwen3-4b" and stated("Qwen1half-7B-Chat").name == "qwen1.5-7b"


def test_a_rank_keeps_what_is_as_wide_as_the_stream_and_a_part_of_the_rest() -> None:
    from genwright.plan.traced.pieces import Change, Segment, Weight
    from genwright.plan.traced.trace_setup import _divided

    changes = [Change(0, number, size, part) for number, (size, part) in enumerate(((100, "activations"), (400, "activations"), (80, "logits and loss")))]  # fmt: skip
    segment = Segment("forward", 0, 0, changes, [])
    weights = [Weight("w", 0, 0, 10**6, True, 2.0, False, False)]
    kept = [change.bytes for change in _divided([segment], weights, 4, 100)[0][0].changes]
    assert kept == [100, 100, 20]
    assert [change.bytes for change in _divided([segment], weights, 4, 0)[0][0].changes] == [25, 100, 20]


@pytest.mark.parametrize(
    ("said", "base"),
    [("int8 (gptq)", "int8"), ("int4 (gptq)", "int4"), ("int4 (bnb)", "nf4-double"), ("QLoRA 8-bit", "int8")],
)
def test_bits_are_read_before_the_name_of_a_quantiser(said: str, base: str) -> None:
    assert setup(adaptation="LoRA", adapt_norm="lora", precision=said).base == base


def test_float8_is_of_products_beside_bf16_and_parts_of_a_stage_are_counted() -> None:
    found = setup(
        framework="NeMo", precision="FP8-CS", parallel="TP4 PP8 VP5", tp="4", pp="8", n_devices="64", device="H100"
    )
    assert (found.precision, found.options) == ("bf16", {"eight_bit_products": True, "virtual_stages": 5})
    assert setup(parallel="PP 8, interleaved 1F1B", pp="8", n_devices="8").options == {"virtual_stages": 2}
    assert setup(parallel="VP5").options == {}  # no pipeline, no parts of a stage


def test_a_pipeline_whose_microbatch_is_not_stated_takes_single_rows() -> None:
    piped = setup(framework="Megatron-LM", seq_len="2048", global_batch="2304", tp="8", pp="8", n_devices="1536")
    assert (piped.micro_batch, piped.accumulate) == (1, 96)


def test_nobody_had_attention_in_one_kernel_before_it_was_published() -> None:
    early, late = ({"framework": "nanoGPT", "source_date": day} for day in ("2022-12-29", "2024-01-01"))
    assert (setup(**early).attention, setup(**late).attention) == ("eager", "")
    assert setup(framework="Megatron-LM", source_date="2021-04").attention == "eager"
    assert (
        setup(framework="Megatron-LM", source_date="2022-12").attention == ""
    )  # FlashAttention itself was there by then
    assert setup(framework="Megatron-LM", source_date="2021-04", attention="flash").attention == "flash"


def test_float32_where_a_library_is_told_nothing_and_the_device_has_room() -> None:
    """PEFT's README: T0_3B takes 47.14 GB whole and 14.4 GB with LoRA, which 2 bytes a weight cannot."""
    adapted = {"framework": "PEFT", "model": "bigscience/T0_3B", "adaptation": "LoRA", "adapt_norm": "lora"}
    assert setup(**adapted).precision == "fp32"
    assert setup(**adapted, precision="bf16").precision == "bf16"
    assert setup(**adapted | {"adaptation": "QLoRA"}).precision == ""
    assert (
        setup(**adapted | {"model": "Llama-2-70b-hf"}).precision == ""
    )  # its weights alone would not fit: somebody said 16 bits
    assert setup(framework="Axolotl").precision == ""


def test_rows_below_a_cap_vary() -> None:
    assert not setup(seq_len="2048", seq_len_kind="cap").packing
    assert setup(seq_len="2048", seq_len_kind="exact").packing


def test_maxtexts_own_batch_is_lowered_to_what_a_slice_holds() -> None:
    """`per_device_batch_size` is 12; a usual microbatch is of at most 16,384 tokens, and 16 GB hold fewer."""
    rows = lambda device, model="Llama-2-7b-hf": (
        setup(framework="MaxText", model=model, seq_len="2048", n_devices="256", device=device).micro_batch
    )
    assert rows("TPU v5p") == 8
    assert 1 <= rows("TPU v5e") < rows("TPU v5p")
    assert rows("TPU v5e", "Llama-2-70b-hf") == 1
