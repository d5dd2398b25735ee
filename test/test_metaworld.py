# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Meta-World: the fast path changes no number, and the tasks keep the environment contract."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import weakref

import gymnasium
import metaworld
import mujoco
import numpy as np
import pytest
from conftest import draws
from gymnasium.envs.mujoco import MujocoEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from metaworld import policies as experts
from metaworld.env_dict import MT50_V3
from metaworld.utils import reward_utils
from scipy.spatial.transform import Rotation

from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.segment import Segment
from ndp_ros.errors import TaskError
from ndp_ros.observation import field_slice
from ndp_ros.tasks.metaworld import scene as metaworld_scene
from ndp_ros.tasks.metaworld.config import HORIZON
from ndp_ros.tasks.metaworld.environment import CONTROL_DT, MetaWorld
from ndp_ros.tasks.metaworld.fast import compiled, quaternion
from ndp_ros.tasks.metaworld.registry import MT50, TASKS, gymnasium_id
from ndp_ros.tasks.metaworld.rewards import tolerance
from ndp_ros.tasks.metaworld.scene import (
    WorldMemory,
    benchmark_goals,
    draw_goal,
    make_simulation,
    set_goal,
)
from ndp_ros.tasks.metaworld.scripts import Script

OPEN, CLOSED = -0.05, 0.05


@pytest.fixture
def make():
    made = []

    def build(*args, **kwargs):
        made.append(MetaWorld(*args, **kwargs))
        return made[-1]

    yield build
    for env in made:
        env.close()


def seek(rng, obs):
    """Return a native action that often goes to the object, so that contacts happen."""
    action = rng.uniform(-1.2, 1.2, 4)
    if rng.random() < 0.6:
        action[:3] = 10 * (obs[4:7] - obs[:3])
    return action.astype(np.float32)


def assert_same_episode(stock, fast, seed, steps):
    ours, theirs = (np.random.default_rng(seed) for _ in range(2))
    obs = draw_goal(stock, theirs)
    np.testing.assert_array_equal(draw_goal(fast, ours), obs)
    rng = np.random.default_rng([seed, 1])
    for t in range(steps):
        action = seek(rng, obs)
        obs, reward, terminated, truncated, info = stock.step(action)
        fast_obs, *rest, fast_info = fast.step(action)
        np.testing.assert_array_equal(fast_obs, obs, err_msg=f"step {t}")
        assert rest == [reward, terminated, truncated], f"step {t}"
        assert fast_info == info, f"step {t}"


# The fast path.


@pytest.fixture
def one_compiler(monkeypatch):
    """Let the stock environment start from a copy of the model that the fast one compiled."""

    def initialize(self):
        model = copy.copy(compiled(self.fullpath))
        return model, mujoco.MjData(model)

    monkeypatch.setattr(MujocoEnv, "_initialize_simulation", initialize)


@pytest.mark.parametrize("task", TASKS)
def test_fast_environment_is_bit_identical_to_the_stock_one(task, one_compiler):
    stock, fast = make_simulation(task, "v2", stock=True), make_simulation(task, "v2")
    for seed, reward in enumerate(("v2", "v1")):
        stock.reward_function_version = fast.reward_function_version = reward
        assert_same_episode(stock, fast, seed, steps=40)
    stock.close()
    fast.close()


def test_stock_classes_stay_untouched_beside_the_fast_ones():
    import metaworld.envs.sawyer_push_v3 as module

    assert module.Rotation is Rotation
    assert module.reward_utils is reward_utils
    assert module.np is np
    assert MT50_V3["push-v3"].__module__ == module.__name__


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_quaternion_equals_that_of_the_general_rotation_class(q):
    matrix = Rotation.from_quat(q).as_matrix()
    np.testing.assert_array_equal(quaternion(matrix), Rotation.from_matrix(matrix).as_quat())


@given(
    st.floats(-10, 10),
    st.floats(-1, 1),
    st.floats(0, 2),
    st.just(0.0) | st.floats(1e-6, 3),
    st.sampled_from(("long_tail", "gaussian", "linear", "tanh_squared")),
)
def test_tolerance_equals_the_benchmarks(x, lower, width, margin, sigmoid):
    arguments = ((lower, lower + width), margin, sigmoid)
    expected = reward_utils.tolerance(x, *arguments)
    assert tolerance(x, *arguments) == expected
    assert tolerance(np.float64(x), *arguments) == expected


def test_tolerance_refuses_what_the_benchmark_refuses():
    for bounds, margin in (((1, 0), 1.0), ((0, 1), -1.0)):
        with pytest.raises(ValueError):
            tolerance(0.5, bounds, margin)


def test_closed_simulation_leaves_no_memory_behind():
    sim = make_simulation("push", "v2")
    draw_goal(sim, np.random.default_rng(0))
    gone = weakref.ref(sim)
    sim.close()
    del sim
    gc.collect()
    assert gone() is None


# Way points and native actions.


def test_one_action_a_step_is_the_benchmark_itself(make):
    env = make("push", k=1)
    env.reset(seed=3)
    sim = make_simulation("push", "v2", stock=True)
    draw_goal(sim, np.random.Generator(np.random.PCG64(3)))
    rng = np.random.default_rng(0)
    for _ in range(80):
        action = rng.uniform(-1, 1, 4)
        obs, reward, *_ = env.step(action[None])
        native = np.append(action[:3], obs[3] / 0.05).astype(np.float32)
        native_obs, native_reward, *_ = sim.step(native)
        np.testing.assert_array_equal(obs[field_slice(env.fields, "world")], native_obs)
        assert reward == native_reward
    sim.close()


def test_setpoint_is_where_the_mocap_body_is(make):
    env = make("reach", k=5)
    obs, _ = env.reset(seed=0)
    start = obs[:4].copy()
    obs, *_ = env.step(np.full((5, 4), 0.5))
    np.testing.assert_allclose(obs[:4] - start, 5 * 0.5 * 0.01, atol=1e-8)
    np.testing.assert_allclose(obs[4:8], 0.5 * 0.01 / CONTROL_DT, rtol=1e-5)


def test_displacement_over_one_unit_is_caught_up_within_the_segment(make):
    env = make("reach", k=5)
    obs, _ = env.reset(seed=0)
    start = obs[:3].copy()
    action = np.zeros((5, 4))
    action[0, :3] = 3.0
    obs, *_ = env.step(action)
    np.testing.assert_allclose(obs[:3] - start, 0.03, atol=1e-8)


def test_a_rest_of_a_displacement_is_dropped_at_the_end_of_the_segment(make):
    env = make("reach", k=2)
    obs, _ = env.reset(seed=0)
    start = obs[:3].copy()
    obs, *_ = env.step(np.full((2, 4), 3.0))
    np.testing.assert_allclose(obs[:3] - start, 0.02, atol=1e-8)
    obs, *_ = env.step(np.zeros((2, 4)))
    np.testing.assert_allclose(obs[:3] - start, 0.02, atol=1e-8)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_setpoint_keeps_inside_the_workspace_and_below_its_speed_limit(seed):
    env = MetaWorld("push", k=5)
    obs, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    drift = rng.uniform(-2, 2, 4)
    for _ in range(8):
        before = obs[:4]
        obs, *_ = env.step(rng.uniform(-2, 2, (5, 4)) + drift)
        assert (np.abs(obs[:4] - before) <= 5 * 0.01 + 1e-7).all()
        assert (np.abs(obs[4:8]) <= 0.01 / CONTROL_DT + 1e-9).all()
        assert OPEN <= obs[3] <= CLOSED
        assert (obs[:3] >= [-0.5, 0.4, 0.05]).all() and (obs[:3] <= [0.5, 1.0, 0.5]).all()
    env.close()


def test_segment_of_an_ndp_and_its_displacements_take_the_same_path(make):
    rng = np.random.default_rng(1)
    by_action, by_setpoints = make("push", k=5), make("push", k=5)
    obs, _ = by_action.reset(seed=7)
    by_setpoints.reset(seed=7)
    for _ in range(6):
        g = obs[:4] + rng.normal(0, 0.05, 4)
        segment = Segment(DmpConfig(), g, rng.normal(0, 30, (4, 6)), 5 * CONTROL_DT)
        setpoints = segment.bind(obs[:4], obs[4:8]).setpoints(by_setpoints.segment_times)
        steps = np.diff(setpoints[:, 0], axis=0, prepend=obs[None, :4]) / 0.01
        obs, reward, *_ = by_setpoints.execute(setpoints)
        other, other_reward, *_ = by_action.step(steps)
        where = [*range(4), *range(8, 47)]  # the velocity is given on one path only
        np.testing.assert_array_equal(obs[where], other[where])
        assert reward == other_reward
        limit = 0.01 / CONTROL_DT
        inside = (obs[:3] > [-0.5, 0.4, 0.05]) & (obs[:3] < [0.5, 1.0, 0.5])
        expected = np.clip(setpoints[-1, 1, :3], -limit, limit)
        np.testing.assert_allclose(obs[4:7][inside], expected[inside])


# The world inside a segment.


def push_the_puck(env, windows):
    """Drive the open hand down and through the puck; return all rewards (windows, k)."""
    obs, _ = env.reset(seed=2)
    rewards, frames = [], []
    for i in range(windows):
        world = obs[field_slice(env.fields, "world")]
        to_puck = (world[4:7] - world[:3]) * 100
        action = np.tile(np.append(to_puck / 5 + [0, 0.6 * (i > 4), 0], 1.0), (env.k, 1))
        obs, _, _, _, info = env.step(action)
        rewards.append(info["rewards"])
        frames.append(obs)
    return np.array(rewards), np.array(frames)


def test_stale_world_changes_rewards_inside_a_segment_and_nothing_else(make):
    stale, stale_frames = push_the_puck(make("push", k=5, stale=True), 14)
    fresh, fresh_frames = push_the_puck(make("push", k=5, stale=False), 14)
    np.testing.assert_array_equal(stale_frames, fresh_frames)
    np.testing.assert_array_equal(stale[:, 0], fresh[:, 0])
    assert (stale[:, 1:] != fresh[:, 1:]).any()


@pytest.mark.parametrize("task", ["push", "hammer", "door-open", "stick-pull", "lever-pull"])
def test_the_remembered_world_is_shown_with_the_present_robot(task):
    sim = make_simulation(task, "v2")
    obs = draw_goal(sim, np.random.default_rng(0))
    world, rng = WorldMemory(sim), np.random.default_rng(1)
    world.keep(obs)
    reference = {name: np.copy(getattr(sim.data, name)) for name in ("xpos", "qpos")}
    for _ in range(5):
        sim.data.qvel[9:] = rng.normal(0, 0.5, sim.model.nv - 9)
        obs_now = sim.step(seek(rng, obs))[0]
    qpos, qvel, hand = sim.data.qpos.copy(), sim.data.qvel.copy(), sim.data.body("hand").xpos.copy()
    moving = [
        i
        for i in range(sim.model.nbody)
        if sim.model.body_dofnum[i]
        and not sim.model.body(i).name.startswith(("right", "left", "head"))
    ]
    assert moving
    with world.shown(obs_now) as mixed:
        np.testing.assert_array_equal(sim.data.xpos[moving], reference["xpos"][moving])
        np.testing.assert_array_equal(sim.data.qpos[9:], reference["qpos"][9:])
        np.testing.assert_array_equal(sim.data.qpos[:9], qpos[:9])
        np.testing.assert_array_equal(sim.data.body("hand").xpos, hand)
        np.testing.assert_array_equal(mixed[4:18], obs[4:18])
        np.testing.assert_array_equal(mixed[:4], obs_now[:4])
    np.testing.assert_array_equal(sim.data.qpos, qpos)
    np.testing.assert_array_equal(sim.data.qvel, qvel)
    sim.close()


def test_the_state_of_rewards_depends_only_on_the_shown_world():
    sim = make_simulation("pick-place", "v1")
    obs = draw_goal(sim, np.random.default_rng(0))
    world = WorldMemory(sim)
    sim.pickCompleted = False
    world.keep(obs)
    sim.pickCompleted = True  # as a reward in the true world would set it
    with world.shown(obs):
        assert sim.pickCompleted is False
    assert sim.pickCompleted is False
    sim.close()


# Episodes.


@pytest.mark.parametrize("task", ["soccer", "door-lock", "hammer", "box-close"])
def test_an_episode_depends_only_on_its_seed(make, task):
    def episode(env, seed):
        obs, _ = env.reset(seed=seed)
        rng, out = np.random.default_rng(seed), [obs]
        for _ in range(4):
            obs, reward, *_ = env.step(rng.uniform(-1, 1, (5, 4)))
            out += [obs, [reward]]
        return np.concatenate(out)

    used, new = make(task), make(task)
    for seed in (1, 2):
        episode(used, seed)
    np.testing.assert_array_equal(episode(used, 9), episode(new, 9))
    assert (episode(used, 9) != episode(used, 10)).any()


def test_goals_differ_from_episode_to_episode(make):
    env = make("push")
    goals = np.array([env.reset(seed=s)[0][-3:] for s in range(5)])
    assert len(np.unique(goals, axis=0)) == 5
    assert (goals[:, 1] > 0.79).all()  # and are not hidden


@pytest.mark.parametrize("reward", ["v1", "v2"])
def test_episode_lasts_500_control_steps_and_reports(make, reward):
    env = make("reach", k=100, reward=reward)
    env.reset(seed=0)
    for i in range(5):
        _, total, terminated, truncated, info = env.step(np.zeros((100, 4)))
        assert info["rewards"].shape == (100,)
        assert total == pytest.approx(info["rewards"].sum())
        assert (terminated, truncated) == (False, i == 4)
    episode = info["outcome"]
    assert episode["reward_version"] == int(reward[1])
    assert episode["task_index"] == TASKS.index("reach")
    assert episode["success"] is False and episode["success_time"] == np.inf
    assert 0 <= episode["tracking_rms"] < 0.02
    assert episode["saturation"] == 0 and 0 < episode["max_joint_speed"] < 3
    with pytest.raises(TaskError, match="reset"):
        env.step(np.zeros((100, 4)))


def test_k_that_does_not_divide_500_ends_with_the_last_whole_segment(make):
    env = make("reach", k=300)
    env.reset(seed=0)
    assert env.step(np.zeros((300, 4)))[3]
    assert HORIZON // 300 == 1


def test_training_may_end_episodes_earlier(make):
    env = make("reach", k=50, horizon=100)
    env.reset(seed=0)
    assert [env.step(np.zeros((50, 4)))[3] for _ in range(2)] == [False, True]
    for bad in (0, 501):
        with pytest.raises(TaskError, match=f"horizon is {bad}"):
            make("reach", horizon=bad)
    with pytest.raises(TaskError, match="allowed is 1 to 40"):
        make("reach", k=50, horizon=40)


@pytest.mark.parametrize("task", ["push", "soccer", "faucet-open", "drawer-close"])
def test_the_benchmarks_own_script_succeeds_through_the_setpoint(make, task):
    env, successes = make(task, k=1, preset="evaluation"), 0
    script = Script(env)
    for goal in range(2):
        obs, _ = env.reset(seed=goal)
        ended = False
        while not ended:
            obs, _, terminated, truncated, info = env.step(script(obs))
            ended = terminated or truncated
        successes += info["outcome"]["success"]
        assert terminated == info["outcome"]["success"] == info["success"]
    assert successes >= 1


def test_a_script_of_all_fifty_plays_the_task_that_the_observation_names(make):
    together = make(MT50, k=1)
    script = Script(together)
    for name in ("soccer", "window-open"):
        alone = make(name, k=1)
        own, (obs, _) = Script(alone), alone.reset(seed=5)
        seen, _ = together.reset(seed=5, options={"task": name})
        for _ in range(3):
            np.testing.assert_array_equal(script(seen), own(obs))
            seen, obs = together.step(script(seen))[0], alone.step(own(obs))[0]


@pytest.mark.filterwarnings("ignore:Constant")
def test_a_script_asks_for_the_benchmarks_action(make):
    env = make("push", k=1)
    obs, _ = env.reset(seed=0)
    # the hand over the puck: the script closes the fingers, with 0.6 of their effort
    obs[field_slice(env.fields, "world")][:3] = obs[field_slice(env.fields, "world")][4:7]
    native = experts.SawyerPushV3Policy().get_action(obs[field_slice(env.fields, "world")])
    (units,) = Script(env)(obs)
    np.testing.assert_allclose(units[:3], np.clip(native[:3], -1, 1))
    assert obs[3] + 0.01 * units[3] == pytest.approx(0.05 * native[3]) == pytest.approx(0.03)


def test_success_at_any_step_counts_even_if_it_is_lost_again(make):
    env = make("reach", k=1)
    script, (obs, info) = Script(env), env.reset(seed=0)
    for _ in range(HORIZON):
        units = script(obs)
        if info.get("success"):
            units[0, :3] = [0.0, -1.0, 0.0]
        obs, _, _, truncated, info = env.step(units)
    assert truncated and info["success"]
    assert info["outcome"]["success"] and not info["outcome"]["success_at_end"]
    assert 0 < info["outcome"]["success_time"] < HORIZON * CONTROL_DT


@pytest.mark.parametrize("task", ["push", "peg-insert-side", "drawer-open"])
def test_the_50_goals_are_those_of_the_benchmark(task, monkeypatch):
    monkeypatch.setattr(metaworld, "_N_GOALS", 4)
    tasks = metaworld.MT1(f"{task}-v3", seed=11).train_tasks
    theirs = np.array([pickle.loads(t.data)["rand_vec"] for t in tasks])
    ours = benchmark_goals(task, 11)
    assert ours.shape[0] == 50
    np.testing.assert_array_equal(ours[:4], theirs)


def test_consecutive_seeds_go_through_the_benchmarks_goals(make):
    env = make("reach", goals="benchmark")
    by_seed = np.array([env.reset(seed=s)[0][-3:] for s in range(50)])
    assert len(np.unique(by_seed, axis=0)) == 50
    again = env.reset(seed=123, options={"goal": 17})[0][-3:]
    np.testing.assert_array_equal(again, by_seed[17])


def test_goal_of_the_benchmark_starts_its_own_episode():
    ours, stock = (make_simulation("push", "v2", stock=s) for s in (False, True))
    goal = benchmark_goals("push", 0)[5]
    np.testing.assert_array_equal(set_goal(ours, goal), set_goal(stock, goal))
    ours.close()
    stock.close()


@draws
def test_a_picture_shows_the_scene_and_does_not_change_the_episode(make):
    seen, unseen = make("push", k=5, render_mode="rgb_array", size=(160, 120)), make("push", k=5)
    rng = np.random.default_rng(0)
    for env in (seen, unseen):
        env.reset(seed=0)
    for _ in range(3):
        action = rng.uniform(-1, 1, (5, 4))
        np.testing.assert_array_equal(seen.step(action)[0], unseen.step(action)[0])
        picture = seen.render()
        assert picture.shape == (120, 160, 3) and picture.std() > 10
    assert unseen.render() is None


# MT50.


def test_mt50_shows_which_task_it_plays(make):
    env = make(MT50)
    for seed in (0, 1, 50):
        obs, info = env.reset(seed=seed)
        assert env.observation_space.contains(obs)
        one_hot = obs[field_slice(env.fields, "task")]
        assert one_hot.sum() == 1 and TASKS[int(one_hot.argmax())] == info["task"]
        assert info["task"] == TASKS[seed % 50]
    obs, info = env.reset(seed=0, options={"task": "push"})
    assert info["task"] == "push" and obs[field_slice(env.fields, "task")][40] == 1


def test_environments_of_a_process_share_idle_simulations(make, monkeypatch):
    # Its own pool: what other tests have left to the process' one is not counted here.
    pool = metaworld_scene.SimulationPool()
    monkeypatch.setattr(metaworld_scene, "POOL", pool)
    a, b = make(MT50), make(MT50)
    a.reset(options={"task": "push"})
    sim = a.simulation
    a.reset(options={"task": "reach"})
    b.reset(options={"task": "push"})
    assert b.simulation is sim and a.simulation is not sim
    a.close()
    a.close()
    b.close()
    assert pool._users == 0 and not pool._idle  # noqa: SLF001


# Use.


def test_task_list_is_the_benchmarks():
    assert [f"{task}-v3" for task in TASKS] == list(MT50_V3)


def test_every_task_is_registered_with_gymnasium():
    import ndp_ros.tasks  # noqa: F401

    for task in (*TASKS, MT50):
        assert gymnasium.spec(gymnasium_id(task)).kwargs == {"task": task}
    assert gymnasium_id("faucet-open") == "ndp_ros/Faucet-Open-v0"
    env = gymnasium.make("ndp_ros/Faucet-v0", k=3)
    assert env.unwrapped.task == "faucet-open" and env.unwrapped.k == 3
    env.close()


def test_registration_does_not_import_meta_world():
    code = "import sys, ndp_ros.tasks; sys.exit('metaworld' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "pusch"}, "task: 'pusch' is not one of .*push"),
        ({"reward": "v3"}, "reward: 'v3' is not one of .*v1, v2"),
        ({"goals": "all"}, "goals: 'all' is not one of"),
        ({"preset": "hard"}, "preset: 'hard' is not one of .*paper"),
        ({"k": 0}, "k is 0"),
        ({"render_mode": "human"}, "render_mode: 'human'"),
        ({"camera": "left"}, "camera: 'left' is not one of .*corner2"),
        ({"speed": 3}, "task option: 'speed' is not one of .*reward"),
    ],
)
def test_wrong_option_gets_one_clear_line(arguments, message):
    with pytest.raises(TaskError, match=message):
        MetaWorld(**arguments)


def test_wrong_action_goal_and_task_are_refused(make):
    env = make("push", k=5)
    env.reset(seed=0)
    with pytest.raises(TaskError, match="finite"):
        env.step(np.full((5, 4), np.nan))
    with pytest.raises(TaskError, match=r"\(5, 4\)"):
        env.step(np.zeros((4, 4)))
    with pytest.raises(TaskError, match=r"\(5, 3, 4\)"):
        env.execute(np.zeros((5, 4)))
    with pytest.raises(TaskError, match="goal is 50"):
        env.reset(options={"goal": 50})
    with pytest.raises(TaskError, match="task"):
        env.reset(options={"task": "reach"})
