"""The pages of docs/ as programs, commands and expected outputs.

A `python` block is the file whose name in backquotes is the first in the paragraph before it. A `sh` block is commands, one a line; the `text`
block right behind it is what the last of them prints.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from tests.scripts import ROOT

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"`(\w+\.(?:py|ini))`")
ADDRESS = "127.0.0.1:8000"


@dataclass
class Page:
    """What one page has."""

    files: dict[str, str] = field(default_factory=dict)
    commands: list[list[str]] = field(default_factory=list)
    printed: list[tuple[list[str], str]] = field(default_factory=list)  # (command, its output)

    def write(self, directory: Path) -> None:
        """All files of the page into a directory."""
        for name, text in self.files.items():
            (directory / name).write_text(text)

    def starting(self, word: str) -> list[list[str]]:
        """The commands whose first word that is."""
        return [command for command in self.commands if command[0] == word]


def page(name: str) -> Page:
    """Read docs/`name`."""
    text = (ROOT / "docs" / name).read_text()
    found, end = Page(), 0
    for block in _BLOCK.finditer(text):
        language, body = block.groups()
        if language in ("python", "ini"):
            paragraph = text[end : block.start()].strip().rsplit("\n\n", 1)[-1]
            named = _FILE.search(paragraph)
            assert named, f"{name}: a program without a file name: {body[:60]!r}"
            found.files[named[1]] = body
        elif language == "sh":
            found.commands += [shlex.split(line, comments=True) for line in body.splitlines() if line.strip()]
        elif language == "text":
            found.printed.append((found.commands[-1], body))
        end = block.end()
    return found
