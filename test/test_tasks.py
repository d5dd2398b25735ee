# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The contract of the tasks on the simulated arm with a trainer."""

from __future__ import annotations

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from conftest import draws
from hypothesis import given, settings
from hypothesis import strategies as st

import ndp_ros.tasks  # noqa: F401  (registers the environments)
from ndp_ros.arms.mujoco import MujocoArm
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.segment import Segment
from ndp_ros.errors import TaskError
from ndp_ros.observation import field_slice, observation_size
from ndp_ros.tasks.arm_task import ArmTask, VectorArmTask
from ndp_ros.tasks.choice import TaskChoice, parse_options
from ndp_ros.tasks.pick import Pick, PickConfig
from ndp_ros.tasks.throw import Throw
from ndp_ros.training.config import RunConfig, make_spec
from ndp_ros.training.evaluation import planned


class Recorder(VectorArmTask):
    """A single environment that keeps the setpoints of its ticks."""

    def __init__(self, env: ArmTask) -> None:
        super().__init__([env])
        self.y, self.yd = [env.setpoint[0]], [env.setpoint[1]]

    def run(self, control):
        steps = super().run(control)
        self.y.extend(control.setpoints[:, 0, 0])
        self.yd.extend(control.setpoints[:, 1, 0])
        return steps


TASKS = {"ndp_ros/Throw-v0": Throw, "ndp_ros/Pick-v0": Pick}
PRESETS = ("default", "paper", "released")


@pytest.fixture(params=TASKS.values(), ids=lambda task: task.task)
def env(request):
    made = request.param(k=4)
    yield made
    made.close()


def smooth_actions(env: ArmTask, rng: np.random.Generator, scale: float = 0.2) -> np.ndarray:
    """Return an action (k, dof) whose way points change slowly."""
    return np.cumsum(rng.normal(size=(env.k, len(env.joint_names))), axis=0) * scale / env.k


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs_an_episode_of_its_horizon(name, preset):
    env = gymnasium.make(name, preset=preset, k=5).unwrapped
    observation, _ = env.reset(seed=0)
    steps, over = 0, False
    while not over:
        observation, reward, over, truncated, info = env.step(np.zeros((5, 7)))
        assert info["rewards"].shape == (5,)
        assert reward == pytest.approx(info["rewards"].sum())
        assert np.isfinite(observation).all() and not truncated
        steps += 1
    assert steps * 5 * env.control_dt == pytest.approx(env.config.horizon, abs=env.control_dt * 5)
    assert {"success", "saturation", "max_joint_speed", "tracking_rms"} <= set(info["outcome"])
    with pytest.raises(TaskError, match="reset"):
        env.step(np.zeros((5, 7)))


def test_a_seed_means_one_episode(env):
    histories = []
    for _ in range(2):
        rng = np.random.default_rng(1)
        observation, _ = env.reset(seed=5)
        history = [observation]
        for _ in range(3):
            observation, reward, *_ = env.step(smooth_actions(env, rng))
            history.append(np.append(observation, reward))
        # Without a seed the next start follows from this one.
        history.append(env.reset()[0])
        histories.append(history)
    for one, other in zip(*histories, strict=True):
        assert np.array_equal(one, other)
    assert not np.array_equal(histories[0][0], histories[0][-1])


def test_a_seed_starts_as_the_arm_under_ros_does(env):
    env.reset(seed=11)
    arm = MujocoArm(env.robot.config, env.robot.scene)
    setpoint = arm.reset(11)
    assert np.array_equal(env.robot.data.qpos, arm.data.qpos)
    assert np.array_equal(env.setpoint[0], setpoint)


def test_the_observation_holds_its_fields(env):
    observation, _ = env.reset(seed=0)
    assert observation.shape == (observation_size(env.fields),)
    assert np.array_equal(observation[field_slice(env.fields, "setpoint")], env.setpoint[0])
    cube = env.robot.objects()["cube"][:3]
    assert observation[field_slice(env.fields, "object/cube")] == pytest.approx(cube)
    assert {f.name for f in env.fields} <= {
        "position",
        "velocity",
        "setpoint",
        "setpoint_velocity",
        "object/cube",
        "object/bin",
    }


def test_an_action_displaces_the_setpoint_by_its_scale(env):
    env.reset(seed=0)
    before = env.setpoint[0]
    action = np.full((env.k, 7), 0.05)
    action[:, 6] = 0.0
    env.step(action)
    # The last way points are reached with a velocity, the first ones within the
    # acceleration limits: together they are the sum.
    assert env.setpoint[0] - before == pytest.approx((action * env.action_scale).sum(axis=0))


@settings(max_examples=15, deadline=None)
@given(
    scale=st.floats(0.1, 50.0), seed=st.integers(0, 2**31 - 1), task=st.sampled_from([Throw, Pick])
)
def test_setpoints_stay_inside_the_limits_for_any_action(scale, seed, task):
    env = _ENVIRONMENTS.setdefault(task, task(k=4))
    rng = np.random.default_rng(seed)
    env.reset(seed=seed % 100)
    info = env.robot.connect()
    recorder = Recorder(env)
    for _ in range(3):
        recorder.step([rng.normal(size=(4, 7)) * scale])
    y, yd = np.array(recorder.y), np.array(recorder.yd)
    assert len(y) == 1 + 3 * len(env.segment_times)
    slack = 1 + 1e-6
    assert np.all(y >= info.lower - 1e-6) and np.all(y <= info.upper + 1e-6)
    assert np.all(np.abs(yd) <= info.max_velocity * slack)
    assert np.all(np.abs(np.diff(yd, axis=0)) <= info.max_acceleration * env.tick * slack)
    assert np.diff(y, axis=0) == pytest.approx(
        (yd[1:] + yd[:-1]) / 2 * env.tick, abs=info.max_acceleration.max() * env.tick**2
    ), "velocity is the derivative of position"


_ENVIRONMENTS: dict[type, ArmTask] = {}


def test_a_segment_moves_the_arm_like_its_way_points(env):
    # The deterministic NDP runs as a function of time, training samples way points of it.
    config = DmpConfig(alpha=5.0, n_basis=5)
    rng = np.random.default_rng(3)
    y0 = env.reset(seed=2) and env.setpoint[0]
    goal = y0 + np.append(rng.uniform(-0.2, 0.2, 6), 0.0)
    weights = rng.normal(size=(7, 5)) * 5.0
    duration = env.k * env.control_dt
    motion = Segment(config, goal, weights, duration).bind(*env.setpoint)

    way_points = motion.setpoints(env.control_dt * np.arange(1, env.k + 1))[:, 0]
    action = np.diff(way_points, axis=0, prepend=y0[None]) / env.action_scale
    ends = []
    for run in (
        lambda: env.execute(motion.setpoints(env.segment_times)),
        lambda: env.step(action),
    ):
        env.reset(seed=2)
        run()
        ends.append((env.robot.data.qpos[:6].copy(), env.setpoint))
    (q_execute, setpoint_execute), (q_step, setpoint_step) = ends
    moved = np.abs(way_points[-1] - y0)[:6].max()
    assert moved > 0.05
    assert np.abs(q_execute - q_step).max() < 0.1 * moved
    assert setpoint_execute[0] == pytest.approx(setpoint_step[0], abs=0.05 * moved)


class Watched(Throw):
    """A throw that keeps where the cube is at every tick."""

    def begin(self) -> None:
        super().begin()
        self.cubes = [self.position_of("cube")]

    def watch(self) -> None:
        super().watch()
        self.cubes.append(self.position_of("cube"))


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("latency", [0.004, 0.01, 0.035])
def test_an_observation_is_of_one_instant_at_most_latency_ago(k, latency):
    env, other = Watched(k=k, latency=latency), Throw(k=k, latency=latency)
    actions = 0.2 * np.random.default_rng(0).normal(size=(24 // k, k, 7))
    seen = [env.reset(seed=3)[0]]
    assert np.array_equal(seen[0], other.reset(seed=3)[0])
    recorder, ages = Recorder(env), []
    setpoints, cubes = recorder.y, env.cubes
    for action in actions:
        ((obs, *_),) = recorder.step([action])
        assert np.array_equal(obs, other.step(action)[0]), "the seed decides the latencies"
        times = env.tick * np.arange(len(setpoints))
        y = obs[field_slice(env.fields, "setpoint")]
        at = _when(times, np.array(setpoints), y)
        cube = [np.interp(at, times, axis) for axis in np.array(cubes).T]
        assert obs[field_slice(env.fields, "object/cube")] == pytest.approx(cube, abs=1e-6)
        ages.append(times[-1] - at)
    assert min(ages) >= -1e-9 and max(ages) <= latency + 1e-9
    assert len(np.unique(np.round(ages, 6))) == len(ages), "each is drawn anew"


def _when(times, setpoints, y):
    """Return when the setpoints, joined by straight lines, were last at y."""
    for i in range(len(times) - 1, 0, -1):
        before, way = setpoints[i - 1], setpoints[i] - setpoints[i - 1]
        share = (y - before) @ way / (way @ way)
        if -1e-9 <= share <= 1 + 1e-9 and np.abs(before + share * way - y).max() < 1e-9:
            return times[i - 1] + share * (times[i] - times[i - 1])
    raise AssertionError("the observed setpoint was never there")


def test_a_late_segment_starts_from_the_present_setpoint_with_the_observed_displacement():
    env = Throw(k=5, latency=0.02)
    spec = make_spec(RunConfig(task="throw", method="ndp"), env)
    obs, _ = env.reset(seed=0)
    obs = env.step(np.full((5, 7), 0.1))[0]
    seen = obs[field_slice(env.fields, "setpoint")]
    y, yd = env.setpoint
    assert np.abs(y - seen).max() > 1e-4
    way, w = np.full(7, 0.1), np.zeros((7, spec.dmp.n_basis))
    policy = SimpleNamespace(spec=spec, parameters_of=lambda *_: ((seen + way)[None], w[None]))
    (setpoints,) = planned(policy, [env], obs[None])
    expected = Segment(spec.dmp, y + way, w, spec.segment_duration).bind(y, yd)
    assert setpoints == pytest.approx(expected.setpoints(env.segment_times))


def test_in_a_stale_world_all_rewards_of_a_segment_are_equal():
    towards_the_bin = np.tile([0.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0], (5, 1))
    for stale in (True, False):
        env = Throw(preset="paper", k=5, stale=stale)
        env.reset(seed=0)
        for _ in range(4):
            *_, info = env.step(towards_the_bin)
        assert info["rewards"][0] > 0.0
        assert (np.ptp(info["rewards"]) == 0.0) == stale


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": 2.5}, "k is 2.5"),
        ({"control_dt": 0.015}, "multiple of tick"),
        ({"timestep": 0.004}, "multiple of timestep"),
        ({"render_mode": "human"}, "rgb_array"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_the_allowed_values(changes, message):
    with pytest.raises(TaskError, match=message):
        Throw(**changes)


@pytest.mark.parametrize(
    ("task", "option", "message"),
    [
        ("throw", "moving_bin=yep", "moving_bin is 'yep', expected true or false"),
        ("throw", "stale=maybe", "stale is 'maybe', expected true or false"),
        ("throw", "horizon=-1", r"horizon is -1\.0: .*0\.1 to 60"),
        ("throw", "latency=100", r"latency is 100\.0: .*0 to 0\.1"),
        ("throw", "latency=-1", r"latency is -1\.0: .*0 to 0\.1"),
        ("throw", "latency=soon", "latency is 'soon', expected float"),
        ("pick", "tick=0", r"tick is 0\.0: .*0\.0001 to 0\.05"),
        ("pick", "reward=gold", r"'gold' is not one of \[shaped, height\]"),
        ("throw", "foo=1", r"'foo' is not one of \[.*camera.*moving_bin.*\]"),
        ("pick", "foo=1", r"'foo' is not one of \[.*reach_gain.*size.*\]"),
    ],
)
def test_an_invalid_option_is_refused_with_the_allowed_values(task, option, message):
    with pytest.raises(TaskError, match=message):
        TaskChoice(task, 5, "default", (option,)).make()


@pytest.mark.parametrize("number", ["2e-2", "0.02", "+2.0E-2"])
def test_a_number_may_be_written_with_a_power_of_ten(number):
    env = TaskChoice("throw", 5, "default", (f"latency={number}",)).make()
    assert env.config == Throw(latency=0.02).config
    assert parse_options([f"x={number}"]) == {"x": 0.02}


def test_a_whole_configuration_is_checked():
    with pytest.raises(TaskError, match="tick is 0"):
        Pick(config=PickConfig(tick=0.0))


@draws
@pytest.mark.parametrize("task", [Throw, Pick])
def test_a_task_renders_its_scene(task):
    env = task(render_mode="rgb_array", size=(160, 120))
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (120, 160, 3)
    assert picture.std() > 10, "more than one colour"
    env.close()
    env.close()
