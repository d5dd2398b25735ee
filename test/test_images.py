# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Images as observations: fields of any space, gradients, and an NDP that learns from pixels."""

from pathlib import Path

import numpy as np
import pytest
from dot_task import Dot
from gymnasium.spaces import Box

from ndp_ros import load_policy
from ndp_ros.errors import TaskError
from ndp_ros.policies import PolicySpec, initial_tensors
from ndp_ros.tasks.choice import TaskChoice
from ndp_ros.tasks.spaces import fields_of, values_of
from ndp_ros.tasks.wrapper import NdpWrapper
from ndp_ros.training.config import PpoConfig, RunConfig, make_spec
from ndp_ros.training.logs import read_progress
from ndp_ros.training.run import train
from ndp_ros.training.warm_start import start_tensors

DOT = "dot_task:Dot-v0"


@pytest.mark.parametrize(
    ("shape", "image"),
    [
        ((9, 8, 3), (3, 9, 8)),
        ((3, 9, 8), (3, 9, 8)),
        ((9, 8), (1, 9, 8)),
        ((2, 9, 8, 3), (6, 9, 8)),
    ],
)
def test_an_image_has_its_channels_first_and_values_from_minus_one_to_one(
    shape: tuple[int, ...], image: tuple[int, ...]
) -> None:
    space = Box(0, 255, shape, np.uint8)
    (field,) = fields_of(space)
    assert (field.image, field.size) == (image, np.prod(image))
    value = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    value.flat[:2] = 0, 255
    (pixels,) = values_of(space, value).values()
    seen = pixels.reshape(image)
    first = {(9, 8, 3): value[..., 0], (3, 9, 8): value[0], (9, 8): value}.get(shape)
    first = value[0, ..., 0] if first is None else first
    np.testing.assert_allclose(seen[0], first / 127.5 - 1.0)
    assert (pixels.min(), pixels.max()) == (-1.0, 1.0)


def test_an_image_that_is_too_large_is_refused_with_what_makes_it_smaller() -> None:
    with pytest.raises(TaskError, match=r"world is an image of 96 x 200 pixels.*ResizeObservation"):
        fields_of(Box(0, 255, (96, 200, 3), np.uint8))


@pytest.mark.parametrize("method", ["ndp-td3", "dyn-e"])
def test_a_method_that_cannot_learn_from_images_names_those_that_can(method: str) -> None:
    config = RunConfig(task=DOT, method=method)
    words = f"world/camera of task .*Dot-v0 is an image, from which {method} does not learn: .*ndp,"
    with pytest.raises(TaskError, match=words):
        make_spec(config, config.choice.make())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dot") / "run"
    config = RunConfig(
        task=DOT,
        task_options=("speed=6.0",),
        hidden=(32, 32),
        samples=5600,
        workers=1,
        checkpoint_every=10,
        goal_gain=1.0,
        init_log_std=-0.5,
        final_log_std=-1.6,
        ppo=PpoConfig(batch_size=800, minibatches=4, epochs=6, learning_rate=2e-3, gamma=0.9),
    )
    train(config, folder, quiet=True)
    return folder


def test_an_ndp_learns_to_reach_what_only_a_picture_shows(run: Path) -> None:
    returns = [float(row["return"]) for row in read_progress(run)]
    # A setpoint that stays in the middle, the best without seeing, has a mean gap of 0.47.
    assert returns[0] < -4.7 < -4.2 < returns[-1]


def test_a_checkpoint_that_sees_moves_its_goal_with_the_dot(run: Path) -> None:
    policy = load_policy(run)
    env = NdpWrapper(Dot(), k=5, speed=6.0)
    goals, dots = [], []
    for seed in range(30):
        obs, _ = env.reset(seed=seed)
        goals.append(policy.parameters(obs)[0])
        dots.append(env.unwrapped.dot)
    for axis in range(2):
        seen = np.corrcoef(np.array(goals)[:, axis], np.array(dots)[:, axis])[0, 1]
        assert seen > 0.8


def test_a_run_starts_from_a_checkpoint_that_sees(run: Path) -> None:
    config = RunConfig(task=DOT, hidden=(32, 32), goal_gain=1.0, task_options=("speed=6.0",))
    spec: PolicySpec = make_spec(config, TaskChoice(DOT, 5, options=("speed=6.0",)).make())
    tensors, _ = start_tensors(spec, str(run))
    assert tensors.keys() == initial_tensors(spec, 0).keys()
    assert np.abs(tensors["actor.0.weight"][:, 4:]).min(axis=0).max() > 0.0
