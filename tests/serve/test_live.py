"""Experts come, change and go while requests run: with an engine that can be held, and with the real llama.cpp."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from genwright.base.errors import GenwrightError, UnknownName
from genwright.serve.answers import Answers, Thought
from genwright.serve.contracts import Decision, EngineRefused, Expert, Profile, Request, Route
from genwright.serve.experts import ExpertLibrary
from genwright.serve.keys import Keys
from genwright.serve.live import Holders, LiveLibrary, LiveRouter
from genwright.serve.pool import Pool
from genwright.serve.replies import Refusal


class Shelf:
    """A library in memory."""

    def __init__(self, **versions: str) -> None:
        self.named = {name: Expert(name, Path(name), version) for name, version in versions.items()}

    def experts(self):
        return tuple(self.named.values())

    def add(self, path: Path, name: str = "") -> Expert:
        self.named[name] = Expert(name, path, path.name)
        return self.named[name]

    def remove(self, name: str) -> None:
        if name not in self.named:
            raise UnknownName(f"There is no expert '{name}'.")
        del self.named[name]


class ByWord:
    """A router that was told names, and chooses the one that a question says."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def learn(self, experts) -> None:
        self.names = [expert.name for expert in experts]

    def route(self, request: Request, held: str | None) -> Route:
        return next(
            (Route(name, 1.0, 1.0, "fits") for name in self.names if name in request.last_user),
            Route(None, reason="nothing-fits"),
        )


def by_word() -> tuple[ByWord, Callable]:
    router = ByWord()
    return router, router.learn


def of(source) -> Callable[[Pool, Holders], LiveLibrary]:
    return lambda pool, holders: LiveLibrary(source, pool, holders)


def until(true: Callable[[], bool]) -> bool:
    """Whether it becomes true within ten seconds."""
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


def test_a_held_version_is_unloaded_after_its_last_request(serve_with, echo) -> None:
    shelf, echo.hold = Shelf(law="v1"), threading.Event()
    with serve_with(echo, library_of=of(shelf), make_router=by_word) as server, ThreadPoolExecutor() as pool:
        assert echo.loaded == ["law@v1"]
        running = pool.submit(server.chat, "law one two", stream=True)
        assert until(lambda: echo.running == 1)
        told = server.http.post("/admin/experts", json={"path": "v2", "name": "law"})
        assert told.json() == {"name": "law", "version": "v2", "path": "v2"}
        assert echo.loaded == ["law@v1", "law@v2"]  # the old one is held
        assert server.chat("law").json()["genwright"]["version"] == "v2"
        echo.hold.set()
        assert running.result().headers["x-genwright-expert"] == "law" and until(lambda: echo.loaded == ["law@v2"])
        assert [row["version"] for row in server.settled(2)] == ["v1", "v2"]


def test_a_removed_expert_is_gone_at_once_and_the_base_answers(serve_with, echo) -> None:
    with serve_with(echo, library_of=of(Shelf(law="v1", art="v1")), make_router=by_word) as server:
        assert server.chat("law").headers["x-genwright-expert"] == "law"
        assert server.http.delete("/admin/experts/law").json() == {"removed": "law"}
        assert server.chat("law").headers["x-genwright-reason"] == "nothing-fits"
        assert server.chat("x", model="law").status_code == 404
        assert [one["id"] for one in server.http.get("/v1/models").json()["data"]] == ["auto", "echo", "art"]
        assert until(lambda: echo.loaded == ["art@v1"])


def test_what_another_process_changes_is_followed(serve_with, echo, monkeypatch) -> None:
    monkeypatch.setattr("genwright.serve.live.LOOK_SECONDS", 0.01)
    shelf = Shelf()
    with serve_with(echo, library_of=of(shelf), make_router=by_word) as server:
        assert server.chat("law").headers["x-genwright-expert"] == "base"
        shelf.add(Path("v1"), "law")
        assert until(lambda: server.chat("law").headers["x-genwright-expert"] == "law")


def test_what_an_engine_refuses_is_told_and_the_version_before_stays(serve_with, echo) -> None:
    async def refuse(name, path, version):
        raise EngineRefused("ranks differ", 409)

    with serve_with(echo, library_of=of(Shelf(law="v1")), make_router=by_word) as server:
        echo.load_adapter = refuse
        told = server.http.post("/admin/experts", json={"path": "v2", "name": "law"})
        assert told.status_code == 409 and "ranks differ" in told.json()["error"]["message"]
        assert server.http.get("/admin/experts").json()["refused"] == {"law@v2": "ranks differ"}
        assert server.chat("law").json()["genwright"]["version"] == "v1"


def test_an_expert_that_goes_while_a_request_is_thought_about(serve_with, echo) -> None:
    """Named: 404. Chosen by us: the base answers. Never an engine without its adapter."""
    shelf = Shelf(law="v1")

    class Slow(ByWord):
        def route(self, request, held):
            live._seen = {}  # what `refresh` does on the loop while this thread thinks
            return Route("law", 1.0, 1.0, "fits")

    live: LiveLibrary

    def library(pool, holders):
        nonlocal live
        live = LiveLibrary(shelf, pool, holders)
        return live

    with serve_with(echo, library_of=library, make_router=lambda: (Slow(), lambda experts: None)) as server:
        assert server.chat("law").headers["x-genwright-expert"] == "base"
        named = Thought(Request("chat", "law"), Route("law", reason="named"), shelf.named["law"], Profile(), Decision())
        with pytest.raises(Refusal, match="was removed"):
            Answers(server.parts).begin(named, None)


def test_only_who_may_changes_experts(serve_with, echo, tmp_path) -> None:
    keys = Keys(tmp_path / "keys.json")
    with serve_with(echo, library_of=of(Shelf(law="v1")), make_router=by_word, keys=keys) as server:
        ask = lambda **headers: server.http.get("/admin/experts", headers=headers)
        assert ask().status_code == 200
        assert "from this machine" in ask(origin="http://a.example").json()["error"]["message"]
        plain, admin = keys.make("ann"), keys.make("root", admin=True)
        assert ask().status_code == 401
        assert ask(authorization=f"Bearer {plain}").json()["error"]["code"] == "not_an_admin"
        assert ask(authorization=f"Bearer {admin}").json()["experts"][0]["name"] == "law"
        server.http.headers["authorization"] = f"Bearer {admin}"
        assert server.http.post("/admin/experts", json={"path": ""}).status_code == 400
        assert server.http.post("/admin/experts", content=b" " * 70_000).status_code == 413
        assert server.http.delete("/admin/experts/none").status_code == 404


def test_our_own_expert_answers_while_it_is_the_only_one() -> None:
    own = Expert("own", Path("own"), "v1")
    live = LiveLibrary(None, Pool([]), Holders(), own)
    router = LiveRouter(live, by_word)
    live._seen = live.wanted()
    assert router.route(Request("chat", "auto"), None) == Route("own", reason="only-one")
    live._seen = {}
    assert router.route(Request("chat", "auto"), None) == Route(None, reason="only-one")
    with pytest.raises(GenwrightError, match="no library of experts"):
        live.add(Path("x"))


def test_real_adapters_are_swapped_under_load_and_none_answers_for_another(tmp_path, serve_with) -> None:
    """Two adapters change places under one name while four clients ask: each answer is the one of the version that it names."""
    from tests.serve.test_llamacpp import adapter, write_model, write_tiny

    from genwright.serve.engines.llamacpp import LlamaCpp, LlamaSettings

    write_tiny(tmp_path / "model", "decoder", seed=3)
    write_model(tmp_path / "model", tmp_path / "model.gguf", "f32")
    folders = [adapter(tmp_path / "model", tmp_path / name, seed) for name, seed in (("a", 1), ("b", 2))]
    library = ExpertLibrary(tmp_path / "library")
    versions = [library.add(folder, "law").version for folder in reversed(folders)][::-1]
    engine = LlamaCpp(
        "tiny", LlamaSettings(tmp_path / "model.gguf", tmp_path, tmp_path / "model", context=128, threads=1)
    )
    body = {"model": "law", "max_tokens": 6, "temperature": 0, "ignore_eos": True}
    with serve_with(engine, library_of=of(library), model="tiny", context=128) as server, ThreadPoolExecutor(4) as pool:
        stop, seen = threading.Event(), []

        def client(number: int) -> None:
            while not stop.is_set():
                answer = server.chat("the red house", **body)
                seen.append(
                    (
                        answer.status_code,
                        answer.json()["genwright"]["version"],
                        answer.json()["choices"][0]["message"]["content"],
                    )
                )

        clients = [pool.submit(client, number) for number in range(4)]
        for turn in (1, 0):
            assert (
                server.http.post("/admin/experts", json={"path": str(folders[turn]), "name": "law"}).json()["version"]
                == versions[turn]
            )
            enough = len(seen) + 12
            assert until(lambda enough=enough: len(seen) > enough)
        stop.set()
        for one in clients:
            one.result()
        assert {status for status, _, _ in seen} == {200}
        by_version = {version: {text for _, told, text in seen if told == version} for version in versions}
        assert all(len(texts) == 1 for texts in by_version.values()) and len(set.union(*by_version.values())) == 2
        assert {row["outcome"] for row in server.records()} == {"done"}
