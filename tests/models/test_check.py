"""Files that lie about themselves are named and refused, before anything opens them."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from genwright.base.errors import ModelError
from genwright.models.check import check_adapter_folder, check_folder, check_gguf, check_safetensors


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def header(path: Path, values: object, data: bytes = b"") -> Path:
    text = json.dumps(values).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def tensor(begin: int, end: int, shape: tuple[int, ...] = (2,), dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_good_folder_passes_and_says_what_it_ignores(folder: Path) -> None:
    assert check_folder(folder) == []
    (folder / "pytorch_model.bin").write_bytes(b"")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vision": {"_attn_implementation": "x/y"}}))
    assert [note.split(" is ignored")[0] for note in check_folder(folder)] == [
        "vision._attn_implementation in config.json", "pytorch_model.bin",
    ]  # fmt: skip


def test_a_folder_that_asks_for_remote_code(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": "mine.Mine"}}')
    with pytest.raises(ModelError, match=r"asks to run code of its own \(auto_map in tokenizer_config\.json\)"):
        check_folder(folder)


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        check_folder(folder)


def test_weights_only_as_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only as pytorch_model\.bin[\s\S]*save_pretrained"):
        check_folder(folder)


@pytest.mark.parametrize("keep", [0, 5, 8, 100, -1])
def test_a_cut_file(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model\.safetensors is cut short or damaged"):
        check_folder(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"a": tensor(0, 16)},
        {"a": tensor(-8, 0)},
        {"a": tensor(8, 0)},
        {"a": tensor(0, 8, (3,))},
        {"a": tensor(0, 8, (1 << 40, 1 << 40))},
        {"a": {"dtype": "F32"}},
        {"a": 1},
        [1],
    ],
)
def test_a_header_that_lies(tmp_path: Path, values: object) -> None:
    with pytest.raises(ModelError, match="is cut short or damaged"):
        check_safetensors(header(tmp_path / "a.safetensors", values, bytes(8)))


def test_a_true_header(tmp_path: Path) -> None:
    values = {"__metadata__": {"format": "pt"}, "a": tensor(0, 8), "b": tensor(8, 12, (2, 1), "BF16")}
    assert check_safetensors(header(tmp_path / "a.safetensors", values, bytes(12))) == {"a", "b"}


def test_a_header_longer_than_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    with pytest.raises(ModelError, match="a header of 4611686018427387904 bytes"):
        check_safetensors(tmp_path / "a.safetensors")


def sharded(folder: Path, places: dict[str, str], files: dict[str, list[str]]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    for name, tensors in files.items():
        save_file({tensor: torch.zeros(1) for tensor in tensors}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


ONE, TWO, THREE = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2, 3))


def test_shards_and_index_agree(tmp_path: Path) -> None:
    assert check_folder(sharded(tmp_path, {"a": ONE, "b": TWO}, {ONE: ["a"], TWO: ["b"]})) == []


@pytest.mark.parametrize(
    ("places", "files", "message"),
    [
        ({"a": ONE, "b": TWO}, {ONE: ["a"]}, "lacks weight files that its index names"),
        ({"a": ONE}, {ONE: ["a"], THREE: ["b"]}, "has weight files that its index does not name"),
        ({"a": ONE, "b": ONE}, {ONE: ["a"]}, "lacks tensors that its index names"),
        ({"a": "../../etc/passwd"}, {ONE: ["a"]}, "lacks weight files that its index names"),
        ({"a": 1}, {ONE: ["a"]}, "has no weight_map"),
    ],
)
def test_shards_and_index_disagree(tmp_path: Path, places, files, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_folder(sharded(tmp_path, places, files))


def test_shards_without_an_index(tmp_path: Path) -> None:
    sharded(tmp_path, {}, {ONE: ["a"]})
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(ModelError, match="has shards but no index"):
        check_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not JSON"), ("[1]", "is not a JSON object"), ("\udcff", "is not JSON")]
)
def test_a_broken_config(folder: Path, text: str, message: str) -> None:
    (folder / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ModelError, match=message):
        check_folder(folder)


def test_adapters(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no adapter folder"):
        check_adapter_folder(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"only as adapter_model\.bin"):
        check_adapter_folder(tmp_path)
    header(tmp_path / "adapter_model.safetensors", {"a": tensor(0, 80)}, bytes(8))
    with pytest.raises(ModelError, match="is cut short or damaged"):
        check_adapter_folder(tmp_path)


def test_a_good_gguf_file(tiny_gguf: Path) -> None:
    assert check_gguf(tiny_gguf) == sum(count for _, count in TINY_GGUF)


TINY_GGUF = [("embeddings", 32 * 48), ("blocks", 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 64 + 2 * 32)), ("norm", 32)]


def test_no_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ModelError, match="is no GGUF file"):
        check_gguf(tmp_path / "a.gguf")


def test_a_gguf_file_of_another_version(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 1, 0, 0))
    with pytest.raises(ModelError, match="version 1"):
        check_gguf(tmp_path / "a.gguf")


@pytest.mark.parametrize("share", [0.0001, 0.001, 0.01, 0.05, 0.1, 0.5, 0.99])
def test_a_gguf_file_cut_anywhere(tiny_gguf: Path, tmp_path: Path, share: float) -> None:
    whole = tiny_gguf.read_bytes()
    (tmp_path / "a.gguf").write_bytes(whole[: max(4, int(len(whole) * share))])
    with pytest.raises(ModelError, match="is cut short or damaged"):
        check_gguf(tmp_path / "a.gguf")


HUGE = 1 << 60


@pytest.mark.parametrize(
    "body",
    [
        struct.pack("<QQ", HUGE, 0),
        struct.pack("<QQ", 0, HUGE),
        struct.pack("<QQQ", 0, 1, HUGE) + bytes(64),
        struct.pack("<QQQ", 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 4, HUGE) + bytes(64),
        struct.pack("<QQQ", 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 8, HUGE) + bytes(64),
        struct.pack("<QQQ", 0, 1, 1) + b"k" + struct.pack("<I", 99) + bytes(64),
        struct.pack("<QQQ", 0, 1, 1) + b"k" + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 50,
        struct.pack("<QQQ", 0, 1, 17) + b"general.alignment" + struct.pack("<II", 4, 0) + bytes(64),
        struct.pack("<QQQ", 1, 0, 1) + b"t" + struct.pack("<I", 1 << 30) + bytes(64),
        struct.pack("<QQQ", 1, 0, 1) + b"t" + struct.pack("<IQIQ", 1, HUGE, 0, 0) + bytes(64),
        struct.pack("<QQQ", 1, 0, 1) + b"t" + struct.pack("<IQIQ", 1, 4, 0, HUGE) + bytes(64),
        struct.pack("<QQQ", 1, 0, 1) + b"t" + struct.pack("<IQIQ", 1, 4, 9999, 0) + bytes(64),
    ],
)
def test_a_gguf_file_that_lies(tmp_path: Path, body: bytes) -> None:
    """Lengths far beyond the file, unknown types, nested lists without end: an error at once, and no memory taken."""
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + struct.pack("<I", 3) + body)
    with pytest.raises(ModelError, match="is cut short or damaged"):
        check_gguf(tmp_path / "a.gguf")
