"""Every command, and every option of it, that the documentation writes down is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import typer

from ionbed.cli import app

ROOT = Path(__file__).parent.parent
IONBED = typer.main.get_command(app)


def lines_of(text: str) -> list[str]:
    """Return the calls of ionbed in a page: what stands after a prompt, and what is set as code within a sentence."""
    text = text.replace("\\\n", " ")
    calls = re.findall(r"^ *\$ (ionbed .*)$", text, re.MULTILINE) + re.findall(r"`(ionbed [a-z][^`\n]*)`", text)
    return [re.split(r" # |[|>]", call)[0] for call in calls]


def unknown_words(call: str) -> list[str]:
    """Return the commands and options of a call that there are not."""
    command, words = IONBED, shlex.split(call)[1:]
    while words and not words[0].isupper() and (commands := getattr(command, "commands", None)):
        if not words[0].startswith("-"):
            if words[0] not in commands:
                return words[:1]
            command = commands[words[0]]
        words = words[1:]
    known = {"--help"}.union(*(parameter.opts for parameter in command.params))
    known.update(*(parameter.secondary_opts for parameter in command.params))
    return [word for word in words if word.startswith("--") and word.split("=")[0] not in known]


def test_every_command_and_option_of_the_documentation_is_there() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    calls = [(page.name, call) for page in pages for call in lines_of(page.read_text(encoding="utf-8"))]
    assert len(calls) > 200
    wrong = [(name, call, words) for name, call in calls if (words := unknown_words(call))]
    assert not wrong
    assert unknown_words("ionbed serach library") == ["serach"]
    assert unknown_words("ionbed index build x --ouput y") == ["--ouput"]
