# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Code of README and docs: its Python runs, its commands are taken, its messages are ours."""

import re
import shlex
from pathlib import Path

import pytest

import ndp_ros
from ndp_ros.cli import SUBCOMMANDS
from ndp_ros.commands.arguments import OneLineParser

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").rglob("README.md")),
]
WHOLE = {"own_task.md": "test_own_task.py", "CONTRIBUTING.md": "shows what not to write"}
"""Pages whose Python makes sense as a whole, with the test that runs it, or none."""
ENDS = {"|", ">", "&", "&&", ";"}
"""Words at which a command of ndp ends on its line."""


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)


def shell_lines(page: Path) -> list[str]:
    """Return the lines of a page that are not Python, continuations joined."""
    text = re.sub(r"^```python\n.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    text = text.replace("\\\n", " ")
    return [line.strip().removeprefix("$ ") for line in text.splitlines()]


def quoted(page: Path) -> list[str]:
    """Return the commands of ndp inside a page's sentences, which may leave arguments out."""
    return re.findall(r"`(ndp [a-z][^`\n]*)`", page.read_text(encoding="utf-8"))


def commands(program: str) -> list[tuple[str, str]]:
    """Return (page, command) of every line that begins with a program, each command once."""
    found = {}
    for page in PAGES:
        for line in shell_lines(page):
            line = re.sub(r"^(\w+=\S+ )+", "", line)
            if line.startswith(f"{program} ") and "`" not in line:
                found.setdefault(line, page.name)
    return [(page, line) for line, page in found.items()]


def snippets() -> list:
    """Return (page, code) of every Python block that runs by itself."""
    return [
        pytest.param(page, code, id=f"{page.stem}-{n}")
        for page in PAGES
        if page.name not in WHOLE
        for n, code in enumerate(blocks(page, "python"))
    ]


@pytest.mark.parametrize(("page", "code"), snippets())
def test_the_python_of_a_page_runs(
    page: Path, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page.name, "exec"), {"__name__": "__main__"})


def taken(command: str) -> None:
    """Parse a command line of ``ndp`` without running it."""
    words = shlex.split(command, comments=True)[1:]
    words = words[: next((i for i, word in enumerate(words) if word in ENDS), len(words))]
    name, *arguments = [word.rstrip(";") for word in words]
    assert name in SUBCOMMANDS, command
    parser = OneLineParser(f"ndp {name}")
    SUBCOMMANDS[name].configure(parser)
    parser.parse_args(arguments)


def test_ndp_takes_every_command_of_the_pages(capsys: pytest.CaptureFixture[str]) -> None:
    # Of what is left, `ndp --help` and `ndp COMMAND` name no command.
    whole = [pair for pair in commands("ndp") if re.match(r"ndp [a-z]", pair[1])]
    parts = [(page.name, line) for page in PAGES for line in quoted(page)]
    assert len(whole) > 50
    wrong = []
    for page, line in dict.fromkeys(whole + parts):
        if "..." in line or "|" in line:
            continue
        try:
            taken(line)
        except SystemExit as end:
            said = capsys.readouterr().err
            if end.code and not ("are required" in said and (page, line) in parts):
                wrong.append(f"{page}: {line}: {said}")
    assert not wrong, "\n".join(wrong)


def test_every_target_of_make_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for _, line in commands("make") for word in line.split("#")[0].split()[1:]}
    assert {"sim", "test", "docs"} <= named
    assert {name for name in named if name.isalpha() and name.islower()} <= targets


def test_each_message_that_is_explained_is_one_of_the_code() -> None:
    code = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "ndp_ros").rglob("*.py"))
    # Parts of a message in neighbouring literals are one text.
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `(.*?)` \|", page, re.MULTILINE)
    assert len(messages) > 15
    parts = [part.strip(" :,;[]()") for message in messages for part in message.split("...")]
    assert not [part for part in parts if part not in code]


def test_the_reference_has_every_public_name() -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"::\s+ndp_ros\.(\w+)$", page, re.MULTILINE))
    assert documented == set(ndp_ros.__all__) - {"__version__"}


def test_all_pages_are_on_the_site() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert "@others@" in index  # by which the build names every other page
    for page in ("README", "CONTRIBUTING", "CHANGELOG", "examples/README", "results/README"):
        assert f"../{page}\n" in index or f"<../{page}>\n" in index
