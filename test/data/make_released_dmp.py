# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Write released_dmp.json: golden roll-outs of the recursion that the paper's authors released.

The recursion is written out here step by step in plain Python, with nothing shared
with the package, from its published form: centres exp(-a_x linspace(0, 1, N)), widths
N^1.5 / (c a_x), forward Euler with the phase first, forcing term outside alpha(...),
and arrays in which velocity and acceleration stand one row late.

    python test/data/make_released_dmp.py
"""

import json
import math
import random
from pathlib import Path

CASES = [
    {"kernel": "gaussian", "n_basis": 6, "alpha": 15.0, "m": 40, "every": 1},
    {"kernel": "gaussian", "n_basis": 5, "alpha": 5.0, "m": 40, "every": 8},
    {"kernel": "gaussian", "n_basis": 30, "alpha": 25.0, "m": 300, "every": 10},
    {"kernel": "multiquadric", "n_basis": 6, "alpha": 10.0, "m": 40, "every": 4},
    {"kernel": "inverse_quadric", "n_basis": 6, "alpha": 10.0, "m": 40, "every": 4},
    {"kernel": "inverse_multiquadric", "n_basis": 6, "alpha": 10.0, "m": 40, "every": 4},
    {"kernel": "linear", "n_basis": 6, "alpha": 10.0, "m": 40, "every": 4},
]


def kernel(name, h, distance):
    r2 = h * distance * distance
    return {
        "gaussian": lambda: math.exp(-r2),
        "multiquadric": lambda: math.sqrt(1 + r2),
        "inverse_quadric": lambda: 1 / (1 + r2),
        "inverse_multiquadric": lambda: 1 / math.sqrt(1 + r2),
        "linear": lambda: r2,
    }[name]()


def unroll(name, n, alpha, m, y0, yd0, g, w):
    """Return the released Y, dY, ddY of one joint, each of m + 1 values."""
    a_x, dt, beta = 1.0, 1.0 / m, alpha / 4
    c = [math.exp(-a_x * (i / (n - 1))) for i in range(n)]
    h = [n**1.5 / ci / a_x for ci in c]
    x, y, z = 1.0, y0, yd0
    Y, dY, ddY = [y], [yd0], [z]
    for _ in range(m):
        x += -a_x * x * dt
        psi = [kernel(name, hi, x - ci) for hi, ci in zip(h, c, strict=True)]
        f = sum(wi * p for wi, p in zip(w, psi, strict=True)) * x * (g - y0) / sum(psi)
        dz = alpha * (beta * (g - y) - z) + f
        dy = z
        y, z = y + dy * dt, z + dz * dt
        Y.append(y)
        dY.append(dy)
        ddY.append(dz)
    return Y, dY, ddY


def main():
    draw = random.Random(20)
    out = []
    for case in CASES:
        joints = []
        for _ in range(2):
            start = {
                "y0": draw.uniform(-1, 1),
                "yd0": draw.uniform(-1, 1),
                "g": draw.uniform(-2, 2),
                "w": [draw.gauss(0, 50) for _ in range(case["n_basis"])],
            }
            Y, dY, ddY = unroll(case["kernel"], case["n_basis"], case["alpha"], case["m"], **start)
            # Row 0, every so many, and always the row after it, where the lag can be seen.
            rows = sorted({j for i in range(0, case["m"], case["every"]) for j in (i, i + 1)})
            arrays = {"Y": Y, "dY": dY, "ddY": ddY}
            chosen = {name: [values[i] for i in rows] for name, values in arrays.items()}
            joints.append(start | {"rows": rows} | chosen)
        out.append({"case": case, "joints": joints})
    path = Path(__file__).with_name("released_dmp.json")
    path.write_text(json.dumps(out, indent=None) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
