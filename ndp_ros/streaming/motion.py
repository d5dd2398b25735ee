# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The setpoints of one segment, computed from its response some ticks before they are due.

    [y; yd; ydd] = B · [y0; yd0; g; w (g - y0)]

with y0 and yd0 the setpoint that the segment starts from, or with w itself for a free forcing term.
B stays in shared memory and is read row by row, so that taking a segment over costs the same
whatever its duration, rate and N.

Sums over the columns of B are formed one column after the other, in single operations, so that
compiled code that does the same arrives at the same bits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.control.memory import fields
from ndp_ros.streaming.slots import Matrix, Response

Array = NDArray[np.float64]

AHEAD = 16
"""Rows that are computed at once."""


class Motion(ctypes.Structure):
    """The motion along one segment from the setpoint at which it was taken over.

    Attributes:
        length: Number of rows.
        ahead: The rows computed last (n, 3, dof).
        first: Index of the first of them.
    """

    _fields_ = fields(
        _version=int, _slot=int, _generation=int, _mark=int, length=int, _width=int, _skipped=int
    )

    def __init__(
        self,
        places: Sequence[Matrix],
        n_arm: int,
        lower: Array,
        upper: Array,
        max_basis: int,
    ) -> None:
        """Prepare every array that the loop needs.

        Args:
            places: Where responses lie.
            n_arm: Number of joints without the gripper.
            lower: Lower end of every joint's range (dof,); that of the gripper saturates it.
            upper: Likewise.
            max_basis: Largest N.
        """
        dof = len(lower)
        self._places = places
        self.columns = np.zeros((3 + max_basis, dof))
        self.units = np.ones((3, 1))
        self._n_arm, self._lower, self._upper = n_arm, lower, upper
        self._products = np.zeros((3 + max_basis, AHEAD, 3, dof))
        self._rows = np.zeros((AHEAD, 3, dof))
        self.ahead, self.first = self._rows[:0], 0
        # Compiled code binds a motion too: what is kept beside its fields belongs to a version.
        self._response: Response | None = None
        self._found_for = self._computed_for = -1

    def bind(self, segment: Any, response: Response, start: Array, stretch: float) -> None:
        """Start a segment at a setpoint (3, dof), its duration multiplied by ``stretch``."""
        n, duration = response.rows.shape[2] - 3, response.duration * stretch
        C, y, g, origin = self.columns, start[0], segment["g"], segment["origin"]
        if not np.isnan(origin[0]):
            # The goal is relative to the start: otherwise a segment that begins a few
            # milliseconds after its observation would travel that much less.
            g = g + (y - origin)
        C[0] = y
        np.multiply(start[1], duration, out=C[1])
        C[2] = g
        w = segment["w"][:, :n].T
        if segment["scaled"]:
            np.multiply(w, g - y, out=C[3 : 3 + n])
        else:
            C[3 : 3 + n] = w
        self.units[1], self.units[2] = 1.0 / duration, 1.0 / (duration * duration)
        self._slot, self._generation = int(segment["slot"]), int(segment["generation"])
        self._mark, self.length, self._width = response.mark, len(response.rows), 3 + n
        self._skipped = response.samples.size
        self._version += 1
        self._response, self._found_for = response, self._version

    def memory(self, name: str) -> dict[str, Any]:
        """Return the arrays and numbers that compiled code shares, by its names for them."""
        return {
            f"motion_{name}": self,
            f"columns_{name}": self.columns,
            f"units_{name}": self.units,
        }

    def _found(self) -> Response | None:
        """Return the response, or None if it has been replaced."""
        if self._found_for != self._version:
            self._response = self._places[self._slot].view(self._generation)
            self._found_for = self._version
        return self._response

    def samples(self) -> Array:
        """Return setpoints (dof, 3, n) spread over the horizon."""
        response = self._found()
        assert response is not None
        few = response.samples
        K, _, n = few.shape
        products = few.reshape(K, 1, 3 * n) * self.columns[:K, :, None]
        out: Array = np.add.reduce(products, axis=0).reshape(-1, 3, n)
        out *= self.units
        self._saturate_gripper(out.transpose(2, 1, 0))
        return out

    def holds(self, row: int, n: int = 1) -> bool:
        """Whether ``n`` rows from a row on are among those ahead."""
        if self._computed_for != self._version:
            return False
        return self.first <= row and row + n <= self.first + len(self.ahead)

    @property
    def intact(self) -> bool:
        """Whether the response is still in its place."""
        return self._places[self._slot].unchanged(self._mark)

    def compute(self, row: int) -> None:
        """Compute the rows from a row on, of a response that is still in its place."""
        response = self._found()
        if response is None:
            return
        B = response.rows[row : row + AHEAD]
        n, K = len(B), B.shape[2]
        products, self.ahead = self._products[:K, :n], self._rows[:n]
        columns = self.columns[:K, None, None]
        np.multiply(B.transpose(2, 0, 1)[..., None], columns, out=products)
        np.add.reduce(products, axis=0, out=self.ahead)
        self.ahead *= self.units
        self._saturate_gripper(self.ahead)
        self.first, self._computed_for = row, self._version

    def _saturate_gripper(self, out: Array) -> None:
        """Hold the gripper of setpoints (n, 3, dof) at the end of its range.

        A policy grips with a goal beyond it.
        """
        for joint in range(self._n_arm, out.shape[2]):
            low, high = self._lower[joint], self._upper[joint]
            y = out[:, 0, joint]
            beyond = (y > high) | (y < low)
            if beyond.any():
                np.clip(y, low, high, out=y)
                out[beyond, 1:, joint] = 0.0


class Hermite:
    """Quintic interpolation between two setpoints: y, yd and ydd agree at both ends."""

    # Rows: coefficients of u^0 ... u^5 that y, yd h and ydd h^2 at both ends contribute.
    _BASIS = np.array([
        [1.0, 0.0, 0.0, -10.0, 15.0, -6.0],
        [0.0, 0.0, 0.0, 10.0, -15.0, 6.0],
        [0.0, 1.0, 0.0, -6.0, 8.0, -3.0],
        [0.0, 0.0, 0.0, -4.0, 7.0, -3.0],
        [0.0, 0.0, 0.5, -1.5, 1.5, -0.5],
        [0.0, 0.0, 0.0, 0.5, -1.0, 0.5],
    ])  # fmt: skip

    def __init__(self, dof: int) -> None:
        self._ends = np.zeros((3, 2, dof))
        self._powers = np.zeros((3, 6))

    def __call__(self, ends: Array, u: float, h: float, out: Array) -> None:
        """Write y, yd, ydd (3, dof) at the share u of the step h [s] from the ends (2, 3, dof)."""
        self._ends[:] = ends.transpose(1, 0, 2)
        self._ends[1] *= h
        self._ends[2] *= h * h
        p = self._powers
        p[0] = (1.0, u, u**2, u**3, u**4, u**5)
        p[1] = (0.0, 1.0, 2 * u, 3 * u**2, 4 * u**3, 5 * u**4)
        p[2] = (0.0, 0.0, 2.0, 6 * u, 12 * u**2, 20 * u**3)
        p[1] /= h
        p[2] /= h * h
        np.dot(p @ self._BASIS.T, self._ends.reshape(6, -1), out=out)
