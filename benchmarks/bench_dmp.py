"""How much the closed form saves: one matrix product against the m-step recursion.

Every figure is the CPU time of one thread of this process, the least over repeats that
alternate between the candidates, so that a busy machine changes both sides of a
ratio alike.

    python benchmarks/bench_dmp.py [--seconds 1.0]

Progress goes to standard error; standard output ends with one JSON object: for each
shape microseconds, and the ratio of the recursion to the closed form (``speed_up``)
and of the closed form to its bare matrix product (``over_bare_product``).
"""

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import replace

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch

from ndp_ros.dmp.basis import normalised_kernels, phase
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.layer import DmpLayer
from ndp_ros.dmp.response import response, response_uncached
from ndp_ros.dmp.segment import Segment

SHAPES = {
    "throw": {"batch": 2048, "dof": 9, "n_basis": 6, "alpha": 15.0, "m": 35, "k": 5},
    "digits": {"batch": 100, "dof": 2, "n_basis": 30, "alpha": 25.0, "m": 300, "k": 300},
    "one_state": {"batch": 1, "dof": 7, "n_basis": 6, "alpha": 15.0, "m": 35, "k": 5},
}


def least(candidates, seconds):
    """Return the least CPU time of each candidate [us], repeats alternating between them."""
    best = dict.fromkeys(candidates, float("inf"))
    for run in candidates.values():
        run()
    end = time.monotonic() + seconds * len(candidates)
    while time.monotonic() < end:
        for name, run in candidates.items():
            start = time.process_time_ns()
            run()
            once = max(time.process_time_ns() - start, 1)
            n = max(1, min(200, 2_000_000 // once))  # about 2 ms, against the clock's grain
            start = time.process_time_ns()
            for _ in range(n):
                run()
            best[name] = min(best[name], (time.process_time_ns() - start) / n / 1000)
    return {name: round(value, 2) for name, value in best.items()}


def unroll(config, k):
    """Return the recursion as plain torch: y at k of m steps, forcing terms in one product."""
    dt, stride = 1 / config.m, config.m // k
    x = (1 - config.a_x * dt) ** np.arange(1, config.m + 1)
    shape = torch.tensor((normalised_kernels(config, x) * x[:, None]).T, dtype=torch.float32)

    def roll_out(y0, yd0, g, w):
        y, yd, ys = y0, yd0, []
        forcing = (w @ shape) * (g - y0)[..., None]
        for f in forcing.unbind(-1):
            ydd = config.alpha * (config.beta * (g - y) - yd) + f
            y, yd = y + yd * dt, yd + ydd * dt
            ys.append(y)
        return torch.stack(ys[stride - 1 :: stride], 1)

    return roll_out


def training_shape(batch, dof, n_basis, alpha, m, k, seconds):
    """Time one shape, forward and with gradients."""
    config = replace(DmpConfig.preset("released"), n_basis=n_basis, alpha=alpha, m=m)
    leaves = [torch.randn(batch, dof) for _ in range(3)]
    leaves.append(torch.randn(batch, dof, n_basis))
    trained = [*leaves[:2], *(x.clone().requires_grad_() for x in leaves[2:])]
    cotangent = torch.randn(batch, k, dof)
    layer, recursion = DmpLayer(config, k), unroll(config, k)
    difference = (layer(*leaves) - recursion(*leaves)).abs().max() / layer(*leaves).abs().max()
    B = torch.tensor(response(config, np.arange(1, k + 1) / k)[0], dtype=torch.float32)
    C = torch.randn(B.shape[1], batch * dof)
    raw_alpha = torch.zeros(batch)

    def bare():
        return torch.mm(B, C) if k <= 32 else torch.mm(C.t(), B.t())

    def forward(run, *more):
        def call():
            with torch.no_grad():
                return run(*leaves, *more)

        return call

    def backward(run, *more):
        return lambda: torch.autograd.grad(run(*trained, *more), trained[2:], cotangent)

    times = least(
        {
            "forward": forward(layer),
            "forward_recursion": forward(recursion),
            "forward_learned_alpha": forward(layer, raw_alpha),
            "gradients": backward(layer),
            "gradients_recursion": backward(recursion),
            "gradients_learned_alpha": backward(layer, raw_alpha),
            "bare_product": bare,
        },
        seconds,
    )
    return {
        "us": times,
        "speed_up": {
            "forward": round(times["forward_recursion"] / times["forward"], 1),
            "gradients": round(times["gradients_recursion"] / times["gradients"], 1),
        },
        "over_bare_product": round(times["forward"] / times["bare_product"], 2),
        "largest_difference": float(difference),
    }


def streaming_shape(seconds, rate=5000, duration=0.05, dof=7):
    """Time one segment at 5 kHz: setpoints and their recursion, and building the response."""
    config = DmpConfig()
    rng = np.random.default_rng(0)
    segment = Segment(config, rng.normal(size=dof), rng.normal(size=(dof, 6)), duration)
    times = np.arange(int(rate * duration)) / rate
    y0 = np.zeros(dof)

    def recursion():
        dt, y, yd, rows = 1 / len(times), y0, y0, []
        s = segment.g - y0
        x = phase(config, times / duration)
        forcing = (normalised_kernels(config, x) * x[:, None]) @ segment.w.T * s
        for f in forcing:
            ydd = config.alpha * (config.beta * (segment.g - y) - yd) + f
            rows.append((y, yd, ydd))
            y, yd = y + yd * dt, yd + ydd * dt
        return np.array(rows)

    motion = segment.bind(y0, y0)
    out = least(
        {
            "setpoints": lambda: segment.bind(y0, y0).setpoints(times),
            "setpoints_recursion": recursion,
            "one_sample": lambda: motion.sample(0.0123),
            "response": lambda: response_uncached(config, times / duration),
            "response_5000_rows": lambda: response_uncached(config, np.linspace(0, 1, 5000)),
        },
        seconds,
    )
    return {
        "us": out,
        "speed_up": {"setpoints": round(out["setpoints_recursion"] / out["setpoints"], 1)},
    }


def main():
    """Run every shape and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="time per candidate [s]")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    result = {
        "machine": {"cpus": os.cpu_count(), "arch": platform.machine()},
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }
    for name, shape in SHAPES.items():
        print(f"{name}: {shape}", file=sys.stderr)
        result[name] = {"shape": shape, **training_shape(**shape, seconds=seconds)}
    print("segment at 5 kHz", file=sys.stderr)
    result["segment_5_khz"] = streaming_shape(seconds)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
