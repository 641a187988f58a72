from genwright.plan.config_hub import EVERYTHING, config_hub


def test_a_named_configuration_states_what_its_file_does():
    assert config_hub("see config_hub/finetune/phi-2/lora.yaml", 4) == {
        "accumulate": 2,
        "rank": 8,
        "targets": EVERYTHING,
    }
    assert config_hub("see config_hub/finetune/llama-2-7b/lora.yaml", 2) == {
        "accumulate": 4,
        "rank": 32,
        "targets": ("q", "v"),
    }
    assert config_hub("see config_hub/finetune/tiny-llama/qlora.yaml", 8)["targets"] == EVERYTHING
    assert config_hub("see config_hub/finetune/tiny-llama/full.yaml", 4) == {"accumulate": 8}
    assert config_hub("r=8 alpha=16", 4) == {}
