"""The page of results: generated tables between markers, prose of people around them.

``<!-- fig5 -->`` and ``<!-- /fig5 -->``, each on a line of its own, enclose what
``results/fig5/fig5.md`` says; everything outside such pairs stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ndp_ros.errors import TrainingError
from ndp_ros.whole import write_whole

PAGE, RESULTS = Path("docs/results.md"), Path("results")


def update(names: Sequence[str], page: Path = PAGE, results: Path = RESULTS) -> list[str]:
    """Put the tables of studies into the page and return the names of those it has a place for.

    Args:
        names: The studies.
        page: The page; without it nothing happens.
        results: Folder of the studies' folders.

    Raises:
        TrainingError: If a pair of markers is broken.
    """
    if not page.is_file():
        return []
    before = text = page.read_text(encoding="utf-8")
    placed = []
    for name in names:
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
        if (text.count(start), text.count(end)) == (0, 0):
            continue
        pair = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
        found = pair.search(text)
        if text.count(start) != 1 or text.count(end) != 1 or found is None:
            raise TrainingError(f"{page}: expected one {start.strip()} before one {end.strip()}")
        table = results / name / f"{name}.md"
        body = f"Not run yet: `ndp reproduce {name} --scale short`.\n"
        if table.is_file():
            body = table.read_text(encoding="utf-8").strip() + "\n"
            picture = table.with_suffix(".png")
            if picture.is_file():
                body += f"\n![{name}](../{picture.as_posix()})\n"
        block = f"{start}\n{body}\n{end}"
        text = text[: found.start()] + block + text[found.end() :]
        placed.append(name)
    if text != before:
        write_whole(page, text)
    return placed
