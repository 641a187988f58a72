"""HTML made of values, so that text is escaped because it is text and not because somebody remembered to.

>>> tag("p", "a < b", class_="note")
'<p class="note">a &lt; b</p>'
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

VOID = {"meta", "br", "hr"}


class Html(str):
    """Markup that is already safe. Only `tag` and `join` make it."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """An element. Children that are not Html are escaped; None and False children and attributes are left out.

    `class_` is class, `stroke_width` is stroke-width, `viewBox` stays as it is.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[Any]) -> Html:
    """Children side by side, escaped unless they are Html."""
    kept = (child for child in children if child is not None and child is not False)
    return Html("".join(child if isinstance(child, Html) else html.escape(str(child)) for child in kept))
