"""Takes known secrets out of text that agents wrote. Pure.

What is masked is each line of each secret that is text, as it stands: not its base64, not a part of it. Lines shorter
than `LEAST` characters stay, as masking `1` or `true` would tell more than it hides and spoil every line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

LEAST = 6
MASKED = "***"


class Mask:
    """Made once for a set of contents, and applied to many lines."""

    def __init__(self, contents: Iterable[bytes]) -> None:
        hidden = {line for content in contents for line in _lines(content)}
        longest_first = sorted(hidden, key=lambda line: (-len(line), line))  # one may be a part of another
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def apply(self, text: str) -> str:
        """The text with `***` in the place of each."""
        return text if self._pattern is None else self._pattern.sub(MASKED, text)


def _lines(content: bytes) -> Iterable[str]:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return ()
    return (line for each in text.splitlines() if len(line := each.strip()) >= LEAST)
