"""The server put together from a project: which engine, keys by command, TLS, what examples and policies do, what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from genwright.base.errors import BadRequest, GenwrightError
from genwright.cli import main
from genwright.project.spec import spec_from_text
from genwright.serve.contracts import Chunk, Usage
from genwright.serve.house import _source, build, chosen_engine
from genwright.serve.keys import Keys

PROJECT = '[project]\nname = "tiny"\n[scope]\ntask = "chat"\n[data]\ntrain = "rows.jsonl"\n'


def spec(serve: str = "", integrate: str = ""):
    return spec_from_text(f"{PROJECT}[serve]\n{serve}\n[integrate]\n{integrate}\n", Path("genwright.toml"))


@pytest.mark.parametrize(
    ("serve", "integrate", "gpu", "vllm", "chosen"),
    [
        ("", "", False, True, "llamacpp"), ("", "", True, False, "llamacpp"), ("", "", True, True, "vllm"),
        ("", 'engine = "llamacpp"', True, True, "llamacpp"), ('url = "http://a"', "", True, True, "remote"),
        ('engine = "vllm"', "", False, False, "vllm"), ('engine = "llamacpp"\nurl = "http://a"', "", True, True, "llamacpp"),
    ],
)  # fmt: skip
def test_the_engine_is_chosen_by_machine_and_plan(serve, integrate, gpu, vllm, chosen) -> None:
    assert chosen_engine(spec(serve, integrate), lambda: gpu, lambda: vllm) == chosen


def test_a_remote_engine_needs_an_address() -> None:
    with pytest.raises(BadRequest, match="needs an address"):
        chosen_engine(spec('engine = "remote"'))


def test_quantize_without_an_engine_that_reads_it_is_told() -> None:
    with pytest.raises(GenwrightError, match=r"integrate\.quantize has no effect"):
        spec(integrate='quantize = "q8_0"')


def test_a_policy_without_a_guard_and_a_guard_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no guard to tell"):
        build(spec('url = "http://a"\npolicy = "p.toml"'), tmp_path)
    with pytest.raises(BadRequest, match="nothing to serve"):
        build(spec(), tmp_path)


def test_nothing_is_claimed_of_the_energy_of_an_engine_elsewhere(tmp_path: Path) -> None:
    house = build(spec('url = "http://a"'), tmp_path)
    try:
        assert house.answers.parts.split.meter.source == "none" and house.answers.parts.split.window()["joules"] == 0.0
    finally:
        house.answers.parts.meter.close()
        house.answers.close()


def test_a_library_of_another_base_is_refused(tmp_path: Path) -> None:
    asked = spec(f'library = "{tmp_path}"')
    served = lambda is_base: _source(asked, tmp_path, "llamacpp", SimpleNamespace(is_base=is_base, model=tmp_path))
    index = {"base": "b", "base_digest": "0" * 12, "experts": {}}
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert served(False) is None
    (tmp_path / "index.json").write_text(json.dumps({**index, "experts": {"law": "v1"}}))
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    for is_base in (False, True):
        with pytest.raises(BadRequest, match="is not their base"):
            served(is_base)


def test_keys_are_made_listed_and_removed_by_command(tmp_path: Path, capsys) -> None:
    (tmp_path / "genwright.toml").write_text(PROJECT)
    serve = lambda *words: main(["serve", "--project", str(tmp_path), "--json", *words])
    assert serve("--add-key", "ann", "--limit", "tokens_per_day=9", "--experts", "law,art", "--admin") == 0
    told = json.loads(capsys.readouterr().out)
    keys = Keys(tmp_path / ".genwright" / "serve" / "keys.json")
    key = keys.who(told["key"])
    assert key is not None and (key.tokens_per_day, key.experts, key.admin) == (9, ("law", "art"), True)
    assert serve("--keys") == 0
    listed = capsys.readouterr().out
    assert told["key"] not in listed and json.loads(listed)[0]["name"] == "ann"
    assert serve("--remove-key", "ann") == 0 and keys.who(told["key"]) is None
    capsys.readouterr()
    for words, said in ((("--limit", "x=1"), "of a new key"), (("--admin",), "of a new key"), (("--port", "70000"), "no port 70000"),
                        (("--add-key", "bob", "--limit", "mood=1"), "is no limit")):  # fmt: skip
        assert serve(*words) == 2
        assert said in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_tls_by_file(serve_with, echo, tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-keyout", str(key),
         "-out", str(certificate), "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    with serve_with(echo, tls=(certificate, key)) as server:
        assert server.chat("one two").json()["choices"][0]["message"]["content"] == "one two"
        with pytest.raises(httpx.HTTPError):
            httpx.get(server.url.replace("https", "http") + "/health")


def test_examples_are_set_before_the_question_of_the_base_and_metered(serve_with, echo) -> None:
    """A result that is a prompt with examples: the engine sees them, the client does not pay attention to them."""
    shown = [{"role": "user", "content": "old"}, {"role": "assistant", "content": "answer"}]
    with serve_with(echo, examples=lambda messages: [*shown, *messages]) as server:
        assert server.chat("new question").status_code == 200
        assert [one["content"] for one in echo.asked[-1][0]["messages"]] == ["old", "answer", "new question"]


def test_calls_of_tools_are_metered_whole_and_streamed(serve_with, echo) -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "look", "arguments": "{"}}
    more = {"index": 0, "function": {"arguments": "}"}}

    async def calls(kind, body, expert):
        if body.get("stream"):
            for one in (call, more):
                yield Chunk(
                    {"choices": [{"index": 0, "delta": {"tool_calls": [one]}, "finish_reason": None}]},
                    "",
                    1,
                    Usage(4, 0, 2),
                )
        else:
            yield Chunk(
                {
                    "choices": [
                        {"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": [call, call]}}
                    ]
                },
                "",
                2,
                Usage(4, 1, 2),
            )

    echo.generate = calls
    with serve_with(echo) as server:
        assert server.chat("look").json()["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "look"
        assert "look" in server.chat("look", stream=True).text
        rows = server.settled(2)
    assert [(row["tool_calls"], row["generated_tokens"], row["cached_tokens"]) for row in rows] == [
        (2, 2, 1),
        (1, 2, 0),
    ]
