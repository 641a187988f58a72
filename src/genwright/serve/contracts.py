"""What the parts of the server say to each other: plain frozen values and small protocols, nothing heavy.

    request -> Profiler.classify -> Guard.check_input -> Router.route -> Engine.generate -> Guard.check_output -> answer

The gateway works with none of router, guard and profiler present. Each part is a pure function of what it is given and of
a conversation's `state`, which the gateway keeps for it and never looks into.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

Message = dict[str, Any]
Kind = Literal["chat", "completion", "embedding"]

AUTO = "auto"
"""The model name that asks the router to choose."""

BASE = "base"
"""The model name of the base without an expert, beside its own name."""


@dataclass(frozen=True)
class Request:
    """One accepted request, as every part sees it."""

    kind: Kind
    model: str
    """As the client named it: "auto", an expert, "base" or the base's own name."""
    messages: tuple[Message, ...] = ()
    """The conversation; of a completion, one user message with the prompt."""
    key: str = ""
    """The API key's name, never the key. Empty where no keys are asked for."""
    conversation: str = ""
    """The client's own id of the conversation, or a hash of its first turns: the same for each turn of one dialogue."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """The body without `model` and `messages`: max_tokens, temperature, stream, tools, ..."""

    @property
    def last_user(self) -> str:
        """The text of the newest user turn."""
        return next((text_of(message) for message in reversed(self.messages) if message.get("role") == "user"), "")


def text_of(message: Message) -> str:
    """A message's text: `content` is a string, or a list of parts of which the text ones are joined."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        str(part["text"]) for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)
    )


@dataclass(frozen=True)
class Route:
    """Who answers, and why."""

    expert: str | None
    """None: the base."""
    score: float = 0.0
    """Of the chosen expert, between -1 and 1 for a cosine."""
    margin: float = 0.0
    """To the next best."""
    reason: str = ""
    """One of a few words: named, fits, nothing-fits, held, moved, only-one, not-allowed."""


class Router(Protocol):
    """Chooses the expert of a query."""

    def route(self, request: Request, held: str | None) -> Route:
        """`held`: the expert that the conversation has so far (None: the base, or no turn yet). At most 5 ms."""
        ...


Action = Literal["allow", "warn", "redact", "block", "route"]


@dataclass(frozen=True)
class Decision:
    """What a guard says."""

    action: Action = "allow"
    label: str = ""
    """What was seen: harmful, injection, personal-data, escalation, ..."""
    score: float = 0.0
    text: str = ""
    """The redacted text (redact), the safe reply (block, route) or the warning (warn)."""


class Guard(Protocol):
    """Looks at what goes in and at what comes out. `state` belongs to the conversation; the guard reads and changes it."""

    window: int
    """Characters of output that are looked at before they are released; 0: output is not looked at."""

    def check_input(self, request: Request, state: dict[str, Any]) -> Decision:
        """Before anything runs. "redact": `text` replaces the newest user turn."""
        ...

    def check_output(self, window: str, state: dict[str, Any]) -> Decision:
        """Before a piece of output is released. "redact": `text` replaces the window; "block", "route": `text` ends the answer."""
        ...


@dataclass(frozen=True)
class Profile:
    """What kind of application is calling, and what this request will probably cost."""

    name: str = ""
    """content-creation, prompt-engineering, summarization, chatbot, ..."""
    phase: Literal["", "prompt-heavy", "generation-heavy"] = ""
    expected_tokens: float | None = None
    """Generated tokens expected."""
    expected_joules: float | None = None
    max_tokens: int | None = None
    """The profile's limit on generated tokens, applied where the request has none."""
    ttft_seconds: float | None = None
    """Target: time to the first token."""
    tpot_seconds: float | None = None
    """Target: time per token."""


class Profiler(Protocol):
    """Recognises profiles and predicts."""

    def classify(self, request: Request, history: Sequence[Mapping[str, Any]]) -> Profile:
        """`history`: newest last, the meter's records of this key (at most a few dozen)."""
        ...


@dataclass(frozen=True)
class Expert:
    """One adapter of the library. A changed adapter has a new version, and so a new path: no cache can be stale."""

    name: str
    path: Path
    """A `peft` folder."""
    version: str
    """The first characters of the hash of its files."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """expert.json: task, base, licence, rows, centroids' file, scores."""

    @property
    def served_name(self) -> str:
        """The engine's name of it: one name a version."""
        return f"{self.name}@{self.version}"


class Library(Protocol):
    """The experts that can be chosen. Iteration order is the order of names."""

    def experts(self) -> Sequence[Expert]:
        """All, by name."""
        ...

    def get(self, name: str) -> Expert | None:
        """One, or None."""
        ...

    def add(self, path: Path, name: str = "") -> Expert:
        """Take in an adapter's folder; the same name replaces. Errors: ModelError for what is no adapter of this base."""
        ...

    def remove(self, name: str) -> None:
        """Forget one. Errors: UnknownName."""
        ...


@dataclass(frozen=True)
class Usage:
    """Tokens, as the engine counts them."""

    prompt: int = 0
    """All prompt tokens, cached ones included."""
    cached: int = 0
    generated: int = 0


@dataclass(frozen=True)
class Chunk:
    """A piece of an answer. A whole answer (no stream) is one chunk."""

    data: Mapping[str, Any]
    """The engine's own JSON in OpenAI's shape."""
    text: str = ""
    tokens: int = 0
    """Generated tokens in this piece, as far as they are known."""
    usage: Usage | None = None
    """The totals so far; the last chunk of a finished answer always has them."""
    decode_seconds: float | None = None
    """Of a whole answer: from its first token to its last, where the engine tells."""


@dataclass(frozen=True)
class EngineMetrics:
    """What an engine says of itself now."""

    running: int = 0
    waiting: int = 0
    adapters: tuple[str, ...] = ()
    """served_names that are loaded."""
    memory_bytes: int = 0
    restarts: int = 0


@runtime_checkable
class Engine(Protocol):
    """A server of one base model with adapters, in another process or at another address. Methods are coroutines."""

    name: str
    """llamacpp, vllm or remote."""
    model: str
    """The base's name."""
    ours: bool
    """Whether its process is ours to start again."""
    restarts: int

    @property
    def alive(self) -> bool:
        """False only when a process of ours has ended: it is then started again."""
        ...

    async def start(self) -> None:
        """Begin; returns once the process runs or the address is known. Errors: EngineDown."""
        ...

    async def ready(self) -> bool:
        """Whether the first token can be produced now."""
        ...

    def generate(self, kind: Kind, body: Mapping[str, Any], expert: Expert | None) -> AsyncIterator[Chunk]:
        """Run a request. Closing the iterator cancels it in the engine at once. Errors: EngineDown, EngineRefused."""
        ...

    async def embed(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """/v1/embeddings, body and answer in OpenAI's shape. Errors: EngineDown, EngineRefused."""
        ...

    async def load_adapter(self, name: str, path: Path, version: str) -> None:
        """Make an adapter available, requests running on. Errors: EngineDown, EngineRefused."""
        ...

    async def unload(self, name: str, version: str) -> None:
        """Drop it once nothing runs on it."""
        ...

    async def cancel(self, request_id: str) -> None:
        """Stop a request by the id in `body["request_id"]`; unknown ids are ignored."""
        ...

    async def metrics(self) -> EngineMetrics:
        """Numbers for /metrics."""
        ...

    def cpu_seconds(self) -> float:
        """CPU time that its processes have used so far; 0 where none is ours."""
        ...

    async def stop(self) -> None:
        """End the process and everything it started."""
        ...


class EngineDown(Exception):
    """The engine is not there now; the request may be tried again. `retry_after` in seconds."""

    def __init__(self, text: str, retry_after: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class EngineRefused(Exception):
    """The engine looked at the request and said no; `status` is HTTP's and 4xx is the client's own fault."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status
