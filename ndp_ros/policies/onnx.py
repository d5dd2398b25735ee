# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Export a policy to ONNX, checked against the torch policy and the one on arrays.

The graph maps raw observations ``(batch, n_obs)``, float32 with a dynamic batch, to ``actions``
``(batch, k, dof)`` [rad per control step] and, for an NDP, to ``goal`` ``(batch, dof)`` [rad] and
``weights`` ``(batch, dof, N)``. It needs the extra ``onnx``.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ndp_ros.config import to_mapping
from ndp_ros.errors import CheckpointError, ConfigError
from ndp_ros.observation import observation_size
from ndp_ros.policies import make_policy
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import Tensors
from ndp_ros.policies.spec import PolicySpec

_BATCHES = (1, 2, 17)
"""Numbers of observations with which an export is checked."""
_TOLERANCE = 1e-4
"""Largest difference of an output from the other two, relative to the largest output."""


class _Graph(nn.Module):
    """The outputs of a policy that are exported."""

    unit: Tensor

    def __init__(self, spec: PolicySpec, tensors: Tensors) -> None:
        super().__init__()
        self.policy = make_policy(spec, tensors)
        self.names = ("actions", "goal", "weights") if spec.method == "ndp" else ("actions",)
        self.register_buffer("unit", torch.tensor(spec.action_scale, dtype=torch.float32))

    def forward(self, obs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in the order of ``names``."""
        actions = self.policy.means(obs) * self.unit
        if len(self.names) == 1:
            return (actions,)
        return (actions, *self.policy.parameters_of(obs))  # type: ignore[operator]


def to_onnx(spec: PolicySpec, tensors: Tensors) -> bytes:
    """Return a policy as an ONNX model, whose metadata holds the specification as JSON.

    Raises:
        ConfigError: If the policy learned its alpha.
        CheckpointError: If ONNX Runtime computes other outputs than torch or numpy.
    """
    import onnx

    if spec.learned_alpha:
        raise ConfigError("a policy that learned its alpha is an ablation and is not exported")
    graph = _Graph(spec, tensors).eval()
    example = torch.zeros(2, observation_size(spec.observation))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            graph,
            (example,),
            input_names=["obs"],
            output_names=list(graph.names),
            dynamic_shapes={"obs": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = "ndp_ros.spec", json.dumps(to_mapping(spec))
    onnx.checker.check_model(model)
    data = io.BytesIO()
    onnx.save(model, data)
    _compare(data.getvalue(), graph, ArrayPolicy(spec, tensors))
    return data.getvalue()


def _compare(model: bytes, graph: _Graph, arrays: ArrayPolicy) -> None:
    """Compare outputs on random observations of several batch sizes.

    Raises:
        CheckpointError: If any differ.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    rng, deviation = np.random.default_rng(0), np.sqrt(arrays.variance)
    for n in _BATCHES:
        noise = rng.standard_normal((n, len(arrays.mean)))
        obs = (arrays.mean + deviation * noise).astype(np.float32)
        found = session.run(list(graph.names), {"obs": obs})
        with torch.inference_mode():
            by_torch = [tensor.numpy() for tensor in graph(torch.from_numpy(obs))]
        by_numpy: list[NDArray[Any]] = [arrays.means(obs) * graph.unit.numpy()]
        if len(graph.names) > 1:
            by_numpy += arrays.parameters_of(obs)
        rows = zip(graph.names, found, by_torch, by_numpy, strict=True)
        for name, value, *others in rows:
            size = max(1e-3, float(np.abs(value).max()))
            if max(np.abs(value - other).max() for other in others) > _TOLERANCE * size:
                raise CheckpointError(f"the ONNX model computes other {name} than the policy")
