"""Environments side by side compute what each computes alone, number for number."""

import numpy as np
import pytest

from ndp_ros.errors import TaskError
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import initial_tensors
from ndp_ros.tasks.pick import Pick
from ndp_ros.tasks.throw import Throw
from ndp_ros.tasks.together import Together
from ndp_ros.training.environment import TaskChoice, crowd
from ndp_ros.training.evaluation import make_actor, run_episode, run_episodes
from ndp_ros.training.experiment import RunConfig, make_spec

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
def test_side_by_side_is_alone_number_for_number(task, k, changes, scale):
    alone, joined = make(task, k, **changes), make(task, k, **changes)
    together = Together(joined)
    for seed, (a, b) in enumerate(zip(alone, joined, strict=True)):
        np.testing.assert_array_equal(a.reset(seed=seed)[0], b.reset(seed=seed)[0])
    rng, over = np.random.default_rng(0), False
    while not over:
        # Smooth and rough: the limits let some of it pass and stop some of it.
        actions = scale * rng.normal(size=(E, k, 7))
        by_step = rng.random() < 0.5
        if by_step:
            expected = [env.step(a) for env, a in zip(alone, actions, strict=True)]
            got = together.step(actions)
        else:
            wanted = [_setpoints(env, a) for env, a in zip(alone, actions, strict=True)]
            expected = [env.execute(w) for env, w in zip(alone, wanted, strict=True)]
            got = together.execute(wanted)
        for a, b in zip(expected, got, strict=True):
            assert_same(a, b)
        over = got[0][2]
    assert all(result[2] for result in got)


def _setpoints(env, action):
    wanted = np.zeros((len(env.segment_times), 3, 7))
    wanted[:, 0] = env.setpoint[0]
    return wanted + env.deviation(action)


def test_each_is_reset_and_stepped_on_its_own():
    alone, joined = make(Throw, 5), make(Throw, 5)
    together = Together(joined)
    action = np.random.default_rng(1).normal(size=(E, 5, 7))
    for envs in (alone, joined):
        for seed, env in enumerate(envs):
            env.reset(seed=seed)
    together.step(action)
    for env, a in zip(alone, action, strict=True):
        env.step(a)
    for envs in (alone, joined):
        envs[1].reset(seed=7)
    assert_same(alone[0].step(action[1]), joined[0].step(action[1]))
    for a, b in zip(
        [e.step(action[2]) for e in alone], together.step([action[2]] * E), strict=True
    ):
        assert_same(a, b)


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(TaskError, match="one configuration"):
        Together([Throw(k=5), Throw(k=4)])
    with pytest.raises(TaskError, match="no environments"):
        Together([])
    joined = make(Throw, 5)
    together = Together(joined)
    for env in joined:
        env.reset(seed=0)
    with pytest.raises(TaskError, match=r"\(5, 7\)"):
        together.step(np.zeros((E, 4, 7)))
    joined[2]._windows_left = 0
    with pytest.raises(TaskError, match="over"):
        together.step(np.zeros((E, 5, 7)))


@pytest.mark.parametrize("method", ["ndp", "ppo-multi"])
def test_episodes_side_by_side_are_those_run_alone(method):
    choice = TaskChoice("throw", 5, "default")
    envs = [choice.make() for _ in range(E)]
    spec = make_spec(RunConfig(task="throw", method=method), envs[0])
    tensors = initial_tensors(spec, 0)
    tensors["actor.2.bias"] = np.random.default_rng(0).normal(size=tensors["actor.2.bias"].shape)
    policy = ArrayPolicy(spec, tensors)
    seeds = [5, 3, 8, 2]  # one more than there are environments
    got = run_episodes(envs, crowd(envs), policy, seeds)
    alone = choice.make()
    for seed, episode in zip(seeds, got, strict=True):
        expected = run_episode(alone, make_actor(policy), seed)
        assert episode.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(episode[name], value, err_msg=name)
    assert len({episode["return"] for episode in got}) == len(seeds)
