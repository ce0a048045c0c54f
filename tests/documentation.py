"""The code blocks of documentation pages, and the commands in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
_FENCE = re.compile(
    r"(?P<marks>(?:<!-- [^\n]* -->\n)*)^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A code block with the comments above it: `<!-- key: value -->`."""

    language: str
    text: str
    marks: tuple[tuple[str, str], ...]

    def all(self, key: str) -> list[str]:
        """The values of a comment that may be repeated."""
        return [value for name, value in self.marks if name == key]

    def one(self, key: str) -> str | None:
        """The value of a comment, or None."""
        return next(iter(self.all(key)), None)

    def commands(self) -> list[list[str]]:
        """The words of its `bench` commands, without comments; lines end in \\ to continue."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [
            shlex.split(line.removeprefix("$ "), comments=True)[1:]
            for line in lines
            if line.removeprefix("$ ").startswith("bench ")
        ]


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in their order."""
    return [
        Block(
            found["language"],
            found["text"],
            tuple(re.findall(r"<!-- ([\w ]+?)(?:: (.*?))? -->", found["marks"])),
        )
        for found in _FENCE.finditer(page.read_text(encoding="utf-8"))
    ]
