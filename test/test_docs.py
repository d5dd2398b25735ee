# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The documentation names what exists, is short where it must be, and its links lead somewhere."""

import ast
import functools
import re
from pathlib import Path

import pytest

from ndp_ros.training.logs import COLUMNS
from ndp_ros.training.methods import METHODS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "results/attempts")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "results").rglob("README.md")),
]
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")
LAYOUT = ROOT / "docs" / "layout.md"


@functools.cache
def names_in(path: Path) -> frozenset[str]:
    """Return every top-level name of a module, and those inside its classes as Class.name."""
    found = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                collect(node.body, f"{prefix}{node.name}.")
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(prefix + node.name)
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            found.update(prefix + t.id for t in targets if isinstance(t, ast.Name))

    collect(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return frozenset(found)


def layout_rows() -> list[tuple[str, Path]]:
    """Return (name, file) for each name that a row of the layout page gives beside its file."""
    rows = []
    for line in LAYOUT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and (link := LINK.search(cells[-1])):
            path = (LAYOUT.parent / link.group(1)).resolve()
            rows += [(name, path) for name in re.findall(r"`([A-Za-z_][\w.]*)`", cells[-2])]
    return rows


def test_the_layout_page_names_what_exists() -> None:
    rows = layout_rows()
    assert len(rows) > 25
    missing = [(name, path.name) for name, path in rows if name not in names_in(path)]
    assert not missing, missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path = page.parent / target
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor[1:] in slugs, f"{target}{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_in_the_text_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:ndp_ros|config|models|test|benchmarks|docs)/[\w./-]+)`", text):
        assert (ROOT / path).exists() or "TASK" in path, path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_text_is_wrapped_at_100_columns(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    long = [line for line in lines if len(line) > 100 and not line.startswith(("|", "!["))]
    assert not long, long


def test_the_readme_fits_on_three_screens() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def first_cells(page: Path, heading: str) -> list[str]:
    """Return the names in backticks of the first cells of the table below a heading."""
    _, _, below = page.read_text(encoding="utf-8").partition(f"\n{heading}\n")
    rows = re.findall(r"^\| (`.*?) \|", below.partition("\n#")[0], re.MULTILINE)
    return re.findall(r"`(\w[^`]*)`", " ".join(rows))


def test_the_page_on_training_defines_every_column_of_a_run_and_no_other() -> None:
    defined = first_cells(ROOT / "docs" / "training.md", "## Every logged column")
    assert sorted(defined) == sorted(COLUMNS)


def test_the_page_on_training_describes_every_method_and_no_other() -> None:
    assert sorted(first_cells(ROOT / "docs" / "training.md", "## Methods")) == sorted(METHODS)


def test_continuous_integration_selects_files_that_exist() -> None:
    selected = re.findall(r"test/\w+\.py", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert selected
    assert not [path for path in selected if not (ROOT / path).exists()]
