"""The code blocks of README and docs.

A block of the language `sh` or `python` is run by a test, unless the line before it is a comment
`<!-- not run: REASON -->`.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
LANGUAGES = {"sh", "python", "diff", "text", "yaml", "{toctree}", "{eval-rst}"}
_FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>\S*)\n(?P<code>.*?)```", re.S
)


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: Path
    language: str
    code: str
    reason: str | None
    """Why it is not run; None if it is."""

    @property
    def is_run(self) -> bool:
        """Whether a test runs it."""
        return self.language in ("sh", "python") and self.reason is None

    def commands(self) -> Iterator[Sequence[str]]:
        """The words of each command of a shell block, without variables before it."""
        for line in self.code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words.pop(0)
            if words:
                yield words


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    return [
        Block(page, found["language"], found["code"], found["reason"])
        for found in _FENCE.finditer(page.read_text())
    ]
