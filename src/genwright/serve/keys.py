"""API keys: what stands on the disk is a salted hash, a name, and what the key may do.

    hash = scrypt(key, salt)     and beside it the first letters, by which the one row to try is found

Limits count over windows that slide: requests in a minute, tokens in a day, dollars in thirty days. A request is let in by
what was used so far and what those that run may still use; what it used itself counts afterwards, however it ended. So a key goes
over its limit by one request at most, however many it sends at a time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from genwright.base.errors import BadRequest
from genwright.base.files import write_atomic

PREFIX = "gw-"
LETTERS = 11
"""Of the key, kept in the open to find its row: the prefix and 8 letters; 35 more stay secret."""

GRAINS = 1000
"""Into which a window is cut: amounts of one grain leave together, so that a busy key takes no more memory than a quiet one."""

MINUTE, DAY, MONTH = 60.0, 86_400.0, 30 * 86_400.0


@dataclass(frozen=True)
class Key:
    """What is known of one key."""

    name: str
    begins: str
    salt: str
    hash: str
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    usd_per_month: float | None = None
    experts: tuple[str, ...] | None = None
    """Experts that it may use; None: all. The base may always be used."""
    admin: bool = False
    """Whether it may add and remove experts."""


class Keys:
    """The keys of one server, in a file that is read again when it changes."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._changed = 0
        self._keys: dict[str, Key] = {}
        self._proven: dict[bytes, str] = {}

    def all(self) -> dict[str, Key]:
        """Name -> key."""
        changed = self.path.stat().st_mtime_ns if self.path.exists() else 0
        if changed != self._changed:
            told = json.loads(self.path.read_text()) if changed else []
            self._keys = {one["name"]: Key(**{**one, "experts": _names(one["experts"])}) for one in told}
            self._changed, self._proven = changed, {}
        return self._keys

    def make(
        self, name: str, *, requests_per_minute: int | None = None, tokens_per_day: int | None = None,
        usd_per_month: float | None = None, experts: tuple[str, ...] | None = None, admin: bool = False,
    ) -> str:  # fmt: skip
        """A new key, told once. Errors: BadRequest when the name is taken."""
        if name in self.all():
            raise BadRequest(f"There is a key '{name}' already.", do="choose another name, or remove it first")
        secret = PREFIX + secrets.token_urlsafe(32)
        salt = secrets.token_hex(16)
        limits = (requests_per_minute, tokens_per_day, usd_per_month, experts, admin)
        self._write({**self.all(), name: Key(name, secret[:LETTERS], salt, _hash(secret, salt), *limits)})
        return secret

    def remove(self, name: str) -> None:
        """Errors: BadRequest for a name that no key has."""
        if name not in self.all():
            raise BadRequest(f"There is no key '{name}'.", wanted=f"one of {', '.join(self.all()) or 'none'}")
        self._write({other: key for other, key in self.all().items() if other != name})

    def who(self, secret: str) -> Key | None:
        """The key that a client showed, or None. The slow hash is computed once for a key that was right."""
        keys = self.all()
        if not secret:
            return None
        quick = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
        if quick in self._proven:
            return keys.get(self._proven[quick])
        for key in keys.values():
            if secret.startswith(key.begins) and hmac.compare_digest(_hash(secret, key.salt), key.hash):
                self._proven[quick] = key.name
                return key
        return None

    def _write(self, keys: dict[str, Key]) -> None:
        write_atomic(self.path, json.dumps([asdict(key) for key in keys.values()], indent=1))
        self.path.chmod(0o600)


def shown(authorization: str) -> str:
    """The secret of an Authorization header: "Bearer gw-..."; empty where there is none."""
    scheme, _, secret = authorization.partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def _hash(secret: str, salt: str) -> str:
    return hashlib.scrypt(secret.encode("utf-8", "surrogatepass"), salt=bytes.fromhex(salt), n=2**12, r=8, p=1).hex()


def _names(told: list[str] | None) -> tuple[str, ...] | None:
    return None if told is None else tuple(told)


@dataclass
class Window:
    """Amounts of the last `seconds`."""

    seconds: float
    amounts: deque[tuple[float, float]] = field(default_factory=deque)
    sum: float = 0.0

    def add(self, now: float, amount: float) -> None:
        """Count an amount."""
        self._forget(now)
        if not self.amounts or now - self.amounts[-1][0] >= self.seconds / GRAINS:
            self.amounts.append((now, 0.0))
        began, before = self.amounts[-1]
        self.amounts[-1] = (began, before + amount)
        self.sum += amount

    def used(self, now: float) -> float:
        """What counts now."""
        self._forget(now)
        return self.sum if self.amounts else 0.0

    def free_in(self, now: float) -> float:
        """Seconds until the oldest amount no longer counts."""
        return max(1.0, self.amounts[0][0] + self.seconds - now) if self.amounts else 1.0

    def _forget(self, now: float) -> None:
        while self.amounts and self.amounts[0][0] <= now - self.seconds:
            self.sum -= self.amounts.popleft()[1]


class Limits:
    """Who used how much lately."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._used: dict[str, tuple[Window, Window, Window]] = {}
        self._held: dict[str, tuple[float, float]] = {}

    def refuse(self, key: Key, tokens: float = 0, usd: float = 0.0) -> tuple[str, float] | None:
        """(what is used up, seconds until some of it is free), or None when the request may come in: it then counts, and `tokens` and
        `usd`, what it may use, are held for it until `release`.
        """
        windows, now = self._of(key.name), self.clock()
        held = self._held.get(key.name, (0, 0.0))
        for window, running, limit, what in (
            (windows[0], 0, key.requests_per_minute, "requests in a minute"),
            (windows[1], held[0], key.tokens_per_day, "tokens in a day"),
            (windows[2], held[1], key.usd_per_month, "dollars in 30 days"),
        ):
            if limit is not None and window.used(now) >= limit:
                return f"this key has used its {limit:g} {what}", window.free_in(now)
            if limit is not None and window.used(now) + running >= limit:
                return f"what this key runs now may use up its {limit:g} {what}", 1.0
        windows[0].add(now, 1)
        self._held[key.name] = (held[0] + tokens, held[1] + usd)
        return None

    def release(self, key: str, tokens: float, usd: float) -> None:
        """What was held for a request that is over."""
        held = self._held.pop(key, (0, 0.0))
        if held[0] > tokens or held[1] > usd:
            self._held[key] = (max(0, held[0] - tokens), max(0.0, held[1] - usd))

    def spent(self, key: str, tokens: int, usd: float, at: float | None = None) -> None:
        """What a request took."""
        when = self.clock() if at is None else at
        self._of(key)[1].add(when, tokens)
        self._of(key)[2].add(when, usd)

    def _of(self, key: str) -> tuple[Window, Window, Window]:
        return self._used.setdefault(key, (Window(MINUTE), Window(DAY), Window(MONTH)))
