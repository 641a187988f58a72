from genwright.plan.published.config_hub import EVERYTHING, config_hub


def test_a_named_configuration_states_what_its_file_does():
    assert config_hub("see config_hub/finetune/phi-2/lora.yaml", 4) == {
        "accumulate": 2,
        "rank": 8,
        "targets": EVERYTHING,
    }
    assert config_hub("see config_hub/finetune/llama-2-7b/qlora.yaml", 2, devices=4) == {
        "accumulate": 4,
        "rank": 32,
        "targets": ("q", "v"),
    }
    assert config_hub("see config_hub/finetune/tiny-llama/qlora.yaml", 8)["targets"] == EVERYTHING
    full = config_hub("see config_hub/finetune/tiny-llama/full.yaml", 4, devices=4)
    assert full == {"accumulate": 8, "count": 1, "strategy": "single"}
    assert config_hub("see config_hub/finetune/phi-2/full.yaml", 4, devices=4) == {
        "accumulate": 1,
        "count": 2,
        "strategy": "zero3",
    }
    assert config_hub("r=8 alpha=16", 4) == {}
