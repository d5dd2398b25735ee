# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A policy as an ONNX graph computes what the policy computes, for any number of observations."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from ndp_ros import checkpoint, load_policy
from ndp_ros.errors import CheckpointError, ConfigError
from ndp_ros.paths import find_checkpoint

pytest.importorskip("onnx", reason="needs the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")

from ndp_ros.policies import onnx as export  # noqa: E402


@pytest.fixture(scope="module")
def programs():
    """Return the graphs exported so far: each takes torch seconds."""
    return {}


@pytest.fixture(autouse=True)
def export_once(programs, monkeypatch):
    """Let torch make a program for each kind of policy once."""
    made = torch.onnx.export

    def once(graph, example, **options):
        kind = (graph.names, graph(*example)[0].shape)
        if kind not in programs:
            programs[kind] = made(graph, example, **options)
        return programs[kind]

    monkeypatch.setattr(torch.onnx, "export", once)


@pytest.mark.parametrize("name", ["jaco_throw", "jaco_throw_action", "jaco_throw_ppo"])
def test_a_policy_runs_without_this_package(name):
    saved = checkpoint.load(find_checkpoint(name))
    session = onnxruntime.InferenceSession(export.to_onnx(saved.spec, saved.tensors))
    assert session.get_inputs()[0].shape[0] == "batch"
    policy = load_policy(find_checkpoint(name))
    obs = np.random.default_rng(1).normal(0.0, 0.3, (5, session.get_inputs()[0].shape[1]))
    outputs = session.run(None, {"obs": obs.astype(np.float32)})
    found = dict(zip([o.name for o in session.get_outputs()], outputs, strict=True))
    for row, one in enumerate(obs):
        np.testing.assert_allclose(found["actions"][row], policy.actions(one), atol=1e-5)
        if saved.spec.method == "ndp":
            g, w = policy.parameters(one)
            np.testing.assert_allclose(found["goal"][row], g, atol=1e-5)
            np.testing.assert_allclose(found["weights"][row], w, rtol=1e-3, atol=1e-3)
    described = json.loads(session.get_modelmeta().custom_metadata_map["ndp_ros.spec"])
    assert described["joint_names"] == list(saved.spec.joint_names)


def test_a_graph_that_differs_from_the_policy_is_refused():
    saved = checkpoint.load(find_checkpoint("jaco_throw_ppo"))
    export.to_onnx(saved.spec, saved.tensors)
    other = {n: a + (0.01 if "actor" in n else 0.0) for n, a in saved.tensors.items()}
    with pytest.raises(CheckpointError, match="computes other actions"):
        export.to_onnx(saved.spec, other)


def test_an_ablation_with_a_learned_alpha_is_not_exported():
    saved = checkpoint.load(find_checkpoint("jaco_throw_action"))
    with pytest.raises(ConfigError, match="learned its alpha"):
        export.to_onnx(dataclasses.replace(saved.spec, learned_alpha=True), saved.tensors)
