# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""One style for every picture: :func:`picture` opens a figure in it and writes the file.

A method has one colour in all pictures, :data:`METHOD_COLOURS`; :func:`looks` gives every curve of
a picture a colour and a line style of its own.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_ros.errors import ConfigError
from ndp_ros.files import write_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg", ".pdf")
"""Formats of a picture, by the ending of its path."""

PALETTE = (
    "#1f6feb",
    "#e8590c",
    "#2f9e44",
    "#c2255c",
    "#7048e8",
    "#0c8599",
    "#a0522d",
    "#868e96",
    "#b59f00",
    "#343a40",
)
"""Colours in the order in which curves take them; neighbours differ also in brightness."""

METHOD_COLOURS = {
    "ndp": PALETTE[0],
    "ppo": PALETTE[1],
    "ppo-multi": PALETTE[2],
    "vices": PALETTE[3],
    "vices-pos": "#f06595",
    "vices-low-freq": "#7a1f3d",
    "dyn-e": PALETTE[4],
    "ndp-td3": "#22b8cf",
    "bc-ndp": "#1c4e9c",
    "bc-nn": "#f59f00",
    "nn": "#f59f00",
}
"""The colour of each method in every picture, by its name on the command line."""

PLANNED, MEASURED, ERROR = PALETTE[0], "#343a40", PALETTE[3]
"""Colours of a setpoint, of a measurement, and of the difference between them."""
OBJECT, GOAL = PALETTE[1], PALETTE[2]
"""Colours of the object that is moved, and of the place where it belongs."""

_BASELINE = "default"
"""Label of the unchanged NDP in an ablation."""
_LINES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D")
_DPI = 200
_STYLE: Any = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#868e96",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 6),
    "grid.color": "#dee2e6",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "xtick.color": "#495057",
    "ytick.color": "#495057",
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "figure.titlesize": 11.0,
    "figure.titleweight": "bold",
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class Look:
    """How a curve is drawn.

    Attributes:
        colour: Colour of line and band.
        line: Line style of matplotlib.
        marker: Marker of single points.
    """

    colour: str
    line: str = "-"
    marker: str = "o"


@contextlib.contextmanager
def picture(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Open a figure [in] in the style; it is written when the block ends without an error.

    The ending of the path, one of :data:`PICTURES`, determines the format; 6.4 in fill a page.

    Raises:
        ConfigError: If the file cannot be written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        data = io.BytesIO()
        try:
            figure.savefig(data, format=path.suffix[1:].lower(), dpi=_DPI)
            write_output(path, data.getvalue())
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise ConfigError(f"cannot write {path}: {error}") from error


def looks(labels: Sequence[str]) -> dict[str, Look]:
    """Return a look for each label, no two the same.

    A label that begins with a method, such as ``throw ndp`` or ``NDP, k = 5``, takes its colour.
    Where all labels belong to one method, as in an ablation, they take the palette in order.
    """
    methods = {label: method_in(label) for label in labels}
    known = {method for method in methods.values() if method}
    if len(known) < 2 and len(methods) > 1:
        methods = dict.fromkeys(methods, "")
    taken: dict[str, int] = {}
    found: dict[str, Look] = {}
    others = [c for c in PALETTE if c not in {METHOD_COLOURS[m] for m in methods.values() if m}]
    colours = {label: METHOD_COLOURS[m] for label, m in methods.items() if m}
    for number, label in enumerate(label for label in methods if label not in colours):
        colours[label] = others[number % len(others)]
    for label in methods:
        number = taken.get(colours[label], 0)
        taken[colours[label]] = number + 1
        found[label] = Look(colours[label], _line(number), _MARKERS[number % len(_MARKERS)])
    return found


def _line(number: int) -> Any:
    """Return the line style of the nth curve of one colour; dashes grow after the named ones."""
    return _LINES[number] if number < len(_LINES) else (0, (number, 1.5, 1, 1.5))


def method_in(label: str) -> str:
    """Return the method that a label names, or an empty text."""
    words = re.findall(r"[a-z0-9-]+", label.lower().partition(",")[0])
    if words == [_BASELINE]:
        return "ndp"
    return next((word for word in words if word in METHOD_COLOURS), "")


def thousands(axis: Any) -> None:
    """Label the ticks of an axis of matplotlib by SI prefixes: 200 k, 1.2 M."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(6))
    axis.set_major_formatter(EngFormatter(sep=" "))
