# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp bench dmp``: time the DMP layer against its bare matrix product, the recursion and peers.

Every figure is CPU time of one thread of this process: the minimum over repeats that alternate
between the contestants, so that a busy machine affects both sides of a ratio. ProDMP and DMP of
mp-pytorch and the DMP of movement-primitives take part where they are installed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ndp_ros.dmp.basis import normalised_kernels, phase
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.layer import DmpLayer
from ndp_ros.dmp.learned_alpha import ALPHA_RANGE
from ndp_ros.dmp.response import response
from ndp_ros.dmp.segment import Segment

SHAPES: dict[str, dict[str, Any]] = {
    "throw": {"batch": 2048, "dof": 9, "n_basis": 6, "alpha": 15.0, "m": 35, "k": 5},
    "digits": {"batch": 100, "dof": 2, "n_basis": 30, "alpha": 25.0, "m": 300, "k": 300},
    "one_state": {"batch": 1, "dof": 7, "n_basis": 6, "alpha": 15.0, "m": 35, "k": 5},
}


_MODULES = {"mp_pytorch": "mp", "movement_primitives": "dmp"}
"""The modules of the packages that take part where they can be imported."""


def least(candidates: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Return the minimum CPU time of each candidate [us]; repeats alternate between them."""
    best = dict.fromkeys(candidates, float("inf"))
    for run in candidates.values():
        run()
    end = time.monotonic() + seconds * len(candidates)
    while time.monotonic() < end:
        for name, run in candidates.items():
            start = time.process_time_ns()
            run()
            once = max(time.process_time_ns() - start, 1)
            n = max(1, min(200, 2_000_000 // once))  # about 2 ms, well above the clock's resolution
            start = time.process_time_ns()
            for _ in range(n):
                run()
            best[name] = min(best[name], (time.process_time_ns() - start) / n / 1000)
    return {name: round(value, 2) for name, value in best.items()}


def unroll(config: DmpConfig, k: int) -> Callable[..., Tensor]:
    """Return eq. (4) as a plain torch recursion: y at k of m steps, forcing in one product."""
    dt, stride = 1 / config.m, config.m // k
    x = np.power(1 - config.a_x * dt, np.arange(1, config.m + 1, dtype=np.float64))
    shape = torch.tensor((normalised_kernels(config, x) * x[:, None]).T, dtype=torch.float32)

    def roll_out(y0: Tensor, yd0: Tensor, g: Tensor, w: Tensor) -> Tensor:
        y, yd, ys = y0, yd0, []
        forcing = (w @ shape) * (g - y0)[..., None]
        for f in forcing.unbind(-1):
            ydd = config.alpha * (config.beta * (g - y) - yd) + f
            y, yd = y + yd * dt, yd + ydd * dt
            ys.append(y)
        return torch.stack(ys[stride - 1 :: stride], 1)

    return roll_out


def training_shape(
    batch: int,
    dof: int,
    n_basis: int,
    alpha: float,
    m: int,
    k: int,
    seconds: float,
    compiled: bool = False,
) -> dict[str, Any]:
    """Time one shape, forward and with gradients."""
    config = replace(DmpConfig.preset("released"), n_basis=n_basis, alpha=alpha, m=m)
    leaves = [torch.randn(batch, dof) for _ in range(3)]
    leaves.append(torch.randn(batch, dof, n_basis))
    trained = [*leaves[:2], *(x.clone().requires_grad_() for x in leaves[2:])]
    cotangent = torch.randn(batch, k, dof)
    layer, recursion = DmpLayer(config, k, ALPHA_RANGE), unroll(config, k)
    difference = (layer(*leaves) - recursion(*leaves)).abs().max() / layer(*leaves).abs().max()
    B = torch.tensor(response(config, np.arange(1, k + 1) / k)[0], dtype=torch.float32)
    C = torch.randn(B.shape[1], batch * dof)
    raw_alpha = torch.zeros(batch)

    def bare() -> Tensor:
        return torch.mm(B, C) if k <= 32 else torch.mm(C.t(), B.t())

    def forward(run: Callable[..., Tensor], *more: Tensor) -> Callable[[], object]:
        def call() -> Tensor:
            with torch.no_grad():
                return run(*leaves, *more)

        return call

    def backward(run: Callable[..., Tensor], *more: Tensor) -> Callable[[], object]:
        return lambda: torch.autograd.grad(run(*trained, *more), trained[2:], cotangent)

    # As NdpPolicy passes it: N is not the fastest axis.
    strided = leaves[3].permute(2, 0, 1).contiguous().permute(1, 2, 0)
    contestants = {
        "forward": forward(layer),
        "forward_strided_w": lambda: layer(*leaves[:3], strided),
        "forward_recursion": forward(recursion),
        "forward_learned_alpha": forward(layer, raw_alpha),
        "gradients": backward(layer),
        "gradients_recursion": backward(recursion),
        "gradients_learned_alpha": backward(layer, raw_alpha),
        "bare_product": bare,
        **peers(config, k, leaves),
    }
    if compiled:
        contestants["forward_torch_compile"] = forward(torch.compile(layer, fullgraph=True))
    times = least(contestants, seconds)
    return {
        "us": times,
        "speed_up": {
            kind: round(times[f"{kind}_recursion"] / times[kind], 1)
            for kind in ("forward", "gradients")
        },
        "over_bare_product": round(times["forward"] / times["bare_product"], 2),
        "largest_difference": float(difference),
    }


def peers(config: DmpConfig, k: int, leaves: list[Tensor]) -> dict[str, Callable[[], object]]:
    """Return the roll-outs of other packages of the same shape, where they are installed."""
    y0, yd0, g, w = leaves
    batch, dof, n = w.shape
    found: dict[str, Callable[[], object]] = {}
    if not _missing("mp_pytorch"):
        from mp_pytorch.mp import MPFactory

        options: dict[str, float] = {"num_basis": n, "basis_bandwidth_factor": 2}
        options |= {"num_basis_outside": 0, "alpha": 25, "alpha_phase": 2, "dt": 1 / config.m}
        options |= {"weights_scale": 1.0, "goal_scale": 1.0}
        # Its DMP integrates from time to time, so it is asked for all m; ProDMP is a closed form.
        steps = {"dmp": config.m, "prodmp": k}
        zeros = torch.zeros(batch)
        params = torch.cat((w, g[..., None]), -1).reshape(batch, -1)
        for kind in steps:
            times = torch.linspace(0, 1, steps[kind] + 1).expand(batch, -1)
            peer = MPFactory.init_mp(kind, options, num_dof=dof, tau=1)

            def run(peer: Any = peer, times: Tensor = times) -> object:
                with torch.no_grad():
                    start = {"init_time": zeros, "init_pos": y0, "init_vel": yd0}
                    peer.update_inputs(times=times, params=params, **start)
                    return peer.get_traj_pos()

            found[f"forward_mp_pytorch_{kind}"] = run
    if batch == 1 and not _missing("movement_primitives"):
        from movement_primitives.dmp import DMP

        one = DMP(n_dims=dof, dt=1 / k, n_weights_per_dim=n, int_dt=1 / config.m)
        one.configure(start_y=y0[0].double().numpy(), goal_y=g[0].double().numpy())
        one.set_weights(w[0].double().numpy().ravel())
        found["forward_movement_primitives"] = one.open_loop
    return found


def _missing(package: str) -> str:
    """Return why a contestant cannot be measured here; empty if it can."""
    try:
        importlib.import_module(f"{package}.{_MODULES[package]}")
    except ImportError as error:
        return f"{package} is left out: {error} (pip install 'ndp_ros[bench]')"
    return ""


def streaming_shape(
    seconds: float, rate: int = 5000, duration: float = 0.05, dof: int = 7
) -> dict[str, Any]:
    """Time one segment at 5 kHz: setpoints, their recursion, and the response matrix."""
    config = DmpConfig()
    rng = np.random.default_rng(0)
    segment = Segment(config, rng.normal(size=dof), rng.normal(size=(dof, 6)), duration)
    times = np.arange(int(rate * duration)) / rate
    y0 = np.zeros(dof)

    def recursion() -> NDArray[np.float64]:
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
            "response": lambda: response(config, times / duration),
            "response_5000_rows": lambda: response(config, np.linspace(0, 1, 5000)),
        },
        seconds,
    )
    return {
        "us": out,
        "speed_up": {"setpoints": round(out["setpoints_recursion"] / out["setpoints"], 1)},
    }


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="time per contestant and shape (default: 1)"
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="let torch.compile(layer, fullgraph=True) take part: a C++ compiler and a minute",
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def main(args: argparse.Namespace) -> int:
    """Run every shape and print the figures."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    out = sys.stderr if args.json else sys.stdout
    left_out = [why for name in _MODULES if (why := _missing(name))]
    result: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "arch": platform.machine()},
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "left_out": left_out,
    }
    for why in left_out:
        sys.stderr.write(f"{why}\n")
    for name, shape in SHAPES.items():
        row = training_shape(**shape, seconds=args.seconds, compiled=args.compile)
        result[name] = {"shape": shape, **row}
        out.write(f"{name} {shape}\n")
        for contestant, us in row["us"].items():
            out.write(f"  {contestant:28} {us:10.1f} us\n")
        out.write(f"  forward: {row['over_bare_product']:.2f} x the bare product\n")
        out.write(f"  {row['speed_up']['forward']:.0f} x as fast as the recursion\n")
    result["segment_5_khz"] = streaming_shape(args.seconds)
    torch.set_num_threads(threads)
    if args.json:
        sys.stdout.write(json.dumps(result) + "\n")
    return 0
