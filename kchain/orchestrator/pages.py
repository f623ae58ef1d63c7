"""Lists that come in pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kchain.errors import Unreachable

# 20 GB of output in files of some kilobytes; an endless list of new tokens ends here.
_MOST_PAGES = 10_000


def all_pages(doing: str, page_at: Callable[[str], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every page of a list.

    Args:
        doing: what is listed, for errors.
        page_at: the page of a token; "" is the first.

    Raises:
        Unreachable: a token comes twice, or the pages do not end.
    """
    token, seen = "", {""}
    for _ in range(_MOST_PAGES):
        page = page_at(token)
        yield page
        following = page.get("nextPageToken") or ""
        if not following:
            return
        token = str(following)
        if token in seen:
            break
        seen.add(token)
    raise Unreachable(f"the target lists {doing} without end", "repeat the command")
