# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Build the documentation site: ``make docs`` (Sphinx, MyST, furo), without any network."""

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from sphinx.util.inspect import TypeAliasForwardRef

from ndp_ros.cli import SUBCOMMANDS
from ndp_ros.commands.arguments import OneLineParser

ROOT = Path(__file__).resolve().parents[1]

project = "ndp_ros"
author = "the ndp_ros authors"
copyright = author  # noqa: A001
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]

# The whole repository is the source: pages link to each other, to results and to code as on a
# page of the repository.
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "examples/README.md",
    "examples/*/README.md",
    "results/**.md",
    "models/checkpoints/*/README.md",
]
exclude_patterns = [".*", "out", "runs", "build", "install", "log", "**/node_modules"]
suppress_warnings = ["myst.header"]  # a card of a checkpoint begins with its table

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 4
myst_url_schemes = ("http", "https", "mailto")

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_preserve_defaults = True
TypeAliasForwardRef.__repr__ = lambda self: self.name  # as it is shown inside other types
autodoc_type_aliases = {name: name for name in ("Array", "ArrayLike", "Observation", "Tensors")}
napoleon_use_rtype = False

highlight_language = "bash"  # of a block that names none

html_theme = "furo"
html_title = "ndp_ros"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f6feb", "color-brand-content": "#1f6feb"},
    "dark_css_variables": {"color-brand-primary": "#6ea8fe", "color-brand-content": "#6ea8fe"},
}
copybutton_exclude = ".linenos, .gp"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


SOURCES = (".c", ".csv", ".json", ".py", ".xml", ".yaml")
"""Files that a page may link to and that get a page of their own."""
INSIDE = {
    "results/README": "attempts\n*/*\n../models/checkpoints/*/README",
    "examples/README": "*/README",
}
"""Pages that others are below, and which."""
_linked: set[str] = set()


def _complete(_app: Any, page: str, source: list[str]) -> None:
    """Add what the site shows beyond the text of a page: other pages, titles, help."""
    text = source[0]
    if page == root_doc:
        named = {"index", *re.findall(r"^(?:.*<)?([a-z_]+)>?$", text, re.MULTILINE)}
        pages = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))
        others = [page for page in pages if page not in named]
        text = text.replace("@others@\n", "".join(f"{page}\n" for page in others))
    elif page in INSIDE:
        text += f"\n\n```{{toctree}}\n:hidden:\n:glob:\n\n{INSIDE[page]}\n```\n"
    elif page == "docs/commands":
        text = text.replace("@help@\n", _help())
    elif text.startswith("|"):
        text = f"# {page.rsplit('/')[-1]}: every row\n\n{text}"
    source[0] = text


def _help() -> str:
    """Return a section with the whole help of each command."""
    os.environ |= {"COLUMNS": "96", "NO_COLOR": "1"}
    sections = []
    for name, command in SUBCOMMANDS.items():
        parser = OneLineParser(f"ndp {name}", f"{command.summary.capitalize()}.")
        command.configure(parser)
        with contextlib.redirect_stdout(io.StringIO()) as text:
            parser.print_all()
        sections.append(f"## ndp {name}\n\n```text\n{text.getvalue()}```\n")
    return "\n".join(sections)


def _link_sources(app: Any, doctree: Any) -> None:
    """Let links to source files lead to a page that shows the file."""
    from docutils import nodes
    from sphinx import addnodes

    page = app.env.docname
    for node in list(doctree.findall(addnodes.download_reference)):
        path = (ROOT / page).parent / node["reftarget"]
        name = str(Path(os.path.normpath(path)).relative_to(ROOT))
        if name.endswith(SOURCES):
            _linked.add(name)
            uri = app.builder.get_relative_uri(page, f"source/{name}")
            node.replace_self(nodes.reference("", "", *node.children, refuri=uri, internal=True))


def _name_pages(app: Any, doctree: Any, page: str) -> None:
    """Show the title of a page where a link shows the name of its file."""
    from docutils import nodes

    for node in doctree.findall(nodes.reference):
        if node.get("internal") and node.astext().endswith(".md") and "refuri" in node:
            path = Path(page).parent / node["refuri"].partition("#")[0]
            title = app.env.titles.get(os.path.normpath(path).removesuffix(".html"))
            if title is not None:
                node.children = [nodes.inline("", title.astext())]


def _source_pages(app: Any) -> Iterator[tuple[str, dict[str, str], str]]:
    """Yield a page for each source file that others link to."""
    for name in sorted(_linked):
        code = (ROOT / name).read_text(encoding="utf-8")
        language = {"py": "python", "csv": "text"}.get(name.rsplit(".")[-1], name.rsplit(".")[-1])
        shown = app.builder.highlighter.highlight_block(code, language, location=name)
        yield f"source/{name}", {"title": name, "body": f"<h1>{name}</h1>{shown}"}, "page.html"


def _inline(translator: Any, node: Any) -> None:
    translator.body.append(convert(node.astext()))


def _block(translator: Any, node: Any) -> None:
    # A row of an aligned block is a formula of its own.
    text = re.sub(r"\\(begin|end)\{aligned\}|&", "", node.astext())
    rows = [row for row in text.split("\\\\") if row.strip()]
    translator.body.append('<div class="math-block">')
    translator.body.extend(convert(row, display="block") for row in rows)
    translator.body.append("</div>")


def _nothing(_translator: Any, _node: Any) -> None:
    return


def _skip_node(visit: Any) -> Any:
    """Return a visitor that writes a formula and passes over its text."""
    from docutils.nodes import SkipNode

    def visitor(translator: Any, node: Any) -> None:
        visit(translator, node)
        raise SkipNode

    return visitor


def setup(app: Any) -> None:
    """Write formulas as MathML, which browsers show without a script; add pages and links."""
    app.connect("source-read", _complete)
    app.connect("doctree-read", _link_sources, priority=100)  # before downloads are collected
    app.connect("doctree-resolved", _name_pages)
    app.connect("html-collect-pages", _source_pages)
    app.add_html_math_renderer(
        "mathml", (_skip_node(_inline), _nothing), (_skip_node(_block), _nothing)
    )
