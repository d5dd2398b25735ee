# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A vectorised environment computes the numbers that each environment computes by itself."""

import numpy as np
import pytest

from ndp_ros.errors import TaskError
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import initial_tensors
from ndp_ros.tasks.arm_task import VectorArmTask
from ndp_ros.tasks.choice import TaskChoice
from ndp_ros.tasks.pick import Pick
from ndp_ros.tasks.throw import Throw, ThrowConfig
from ndp_ros.tasks.vector import vectorise
from ndp_ros.training.config import RunConfig, make_spec
from ndp_ros.training.evaluation import make_actor, run_episode, run_episodes

E = 3


def make(task, k, **changes):
    return [task(k=k, **changes) for _ in range(E)]


def assert_same(a, b):
    np.testing.assert_array_equal(a[0], b[0])
    assert a[1:4] == b[1:4]
    np.testing.assert_array_equal(a[4]["rewards"], b[4]["rewards"])
    assert a[4].keys() == b[4].keys()
    for name, value in a[4].get("outcome", {}).items():
        np.testing.assert_array_equal(value, b[4]["outcome"][name], err_msg=name)


@pytest.mark.parametrize(
    ("task", "k", "changes"),
    [
        (Throw, 5, {}),
        (Throw, 1, {"moving_bin": True}),
        (Throw, 5, {"scene": "throw-gen3"}),
        (Throw, 5, {"latency": 0.02}),
        (Throw, 1, {"latency": 0.045}),
        (Pick, 5, {}),
        (Pick, 5, {"preset": "released"}),
    ],
)
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_a_vector_gives_the_bits_of_single_environments(task, k, changes, scale):
    single, joined = make(task, k, **changes), make(task, k, **changes)
    vector = VectorArmTask(joined)
    for seed, (a, b) in enumerate(zip(single, joined, strict=True)):
        np.testing.assert_array_equal(a.reset(seed=seed)[0], b.reset(seed=seed)[0])
    rng, over = np.random.default_rng(0), False
    while not over:
        # Smooth and rough: the limits let some of it pass and stop some of it.
        actions = scale * rng.normal(size=(E, k, 7))
        by_step = rng.random() < 0.5
        if by_step:
            expected = [env.step(a) for env, a in zip(single, actions, strict=True)]
            got = vector.step(actions)
        else:
            wanted = [_setpoints(env, a) for env, a in zip(single, actions, strict=True)]
            expected = [env.execute(w) for env, w in zip(single, wanted, strict=True)]
            got = vector.execute(wanted)
        for a, b in zip(expected, got, strict=True):
            assert_same(a, b)
        over = got[0][2]
    assert all(result[2] for result in got)


def _setpoints(env, action):
    wanted = np.zeros((len(env.segment_times), 3, 7))
    wanted[:, 0] = env.setpoint[0]
    return wanted + env.deviation(action)


def test_each_environment_of_a_vector_is_reset_and_stepped_by_itself():
    single, joined = make(Throw, 5), make(Throw, 5)
    vector = VectorArmTask(joined)
    action = np.random.default_rng(1).normal(size=(E, 5, 7))
    for envs in (single, joined):
        for seed, env in enumerate(envs):
            env.reset(seed=seed)
    vector.step(action)
    for env, a in zip(single, action, strict=True):
        env.step(a)
    for envs in (single, joined):
        envs[1].reset(seed=7)
    assert_same(single[0].step(action[1]), joined[0].step(action[1]))
    for a, b in zip([e.step(action[2]) for e in single], vector.step([action[2]] * E), strict=True):
        assert_same(a, b)


def test_a_vector_of_different_environments_is_refused():
    with pytest.raises(TaskError, match="one configuration"):
        VectorArmTask([Throw(k=5), Throw(k=4)])
    with pytest.raises(TaskError, match="one configuration"):
        VectorArmTask(
            [Throw(config=ThrowConfig()), Throw(config=ThrowConfig(), scene="throw-gen3")]
        )
    with pytest.raises(TaskError, match="no environments"):
        VectorArmTask([])
    joined = make(Throw, 5)
    vector = VectorArmTask(joined)
    for env in joined:
        env.reset(seed=0)
    with pytest.raises(TaskError, match=r"\(5, 7\)"):
        vector.step(np.zeros((E, 4, 7)))
    over = False
    while not over:
        over = joined[2].step(np.zeros((5, 7)))[2]
    before = joined[0].setpoint[0]
    with pytest.raises(TaskError, match="over"):
        vector.step(np.ones((E, 5, 7)))
    np.testing.assert_array_equal(joined[0].setpoint[0], before)


@pytest.mark.parametrize("method", ["ndp", "ppo-multi"])
def test_episodes_of_a_vector_are_those_of_single_environments(method):
    choice = TaskChoice("throw", 5, "default")
    envs = [choice.make() for _ in range(E)]
    spec = make_spec(RunConfig(task="throw", method=method), envs[0])
    tensors = initial_tensors(spec, 0)
    tensors["actor.2.bias"] = np.random.default_rng(0).normal(size=tensors["actor.2.bias"].shape)
    policy = ArrayPolicy(spec, tensors)
    seeds = [5, 3, 8, 2]  # one more than there are environments
    got = run_episodes(vectorise(envs), policy, seeds)
    single = choice.make()
    for seed, episode in zip(seeds, got, strict=True):
        expected = run_episode(single, make_actor(policy), seed)
        assert episode.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(episode[name], value, err_msg=name)
    assert len({episode["return"] for episode in got}) == len(seeds)
