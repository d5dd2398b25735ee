# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Variable impedance: its equations, its actions, and that PPO can use it."""

import dataclasses
from pathlib import Path

import mujoco
import numpy as np
import pytest

from ndp_ros import checkpoint
from ndp_ros.control.impedance import (
    Hand,
    HandImpedance,
    JointImpedance,
    acceleration,
    turn_error,
)
from ndp_ros.control.rigid_body import RigidBody
from ndp_ros.errors import ConfigError, NdpError, TaskError
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.tasks.actions.arm_impedance import hand_of
from ndp_ros.tasks.actions.impedance import Choice, ImpedanceConfig, with_impedance
from ndp_ros.tasks.metaworld.environment import MetaWorld
from ndp_ros.tasks.pick import Pick
from ndp_ros.tasks.throw import Throw
from ndp_ros.training.config import PpoConfig, RunConfig, differences, make_spec
from ndp_ros.training.evaluate import require_fit, task_choice
from ndp_ros.training.evaluation import make_actor, run_episode
from ndp_ros.training.experiments import shipped
from ndp_ros.training.logs import TIME_COLUMNS, read_progress
from ndp_ros.training.run import train

NO_LIMIT = np.full(2, 1e9)

TWO_LINKS = """
<mujoco>
  <option timestep="0.0005" gravity="0 0 -9.81"/>
  <worldbody>
    <body>
      <joint name="a" axis="0 1 0" damping="{damping}"/>
      <inertial pos="0.5 0 0" mass="2" diaginertia="0.01 0.01 0.01"/>
      <body pos="1 0 0">
        <joint name="b" axis="0 1 0" damping="{damping}"/>
        <inertial pos="0.4 0 0" mass="1" diaginertia="0.01 0.01 0.01"/>
        <site name="tip" pos="0.8 0 0"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="a"/><motor joint="b"/></actuator>
</mujoco>
"""


def two_links(damping: float = 0.0) -> tuple[mujoco.MjModel, mujoco.MjData, RigidBody]:
    model = mujoco.MjModel.from_xml_string(TWO_LINKS.format(damping=damping))
    return model, mujoco.MjData(model), RigidBody(model, ("a", "b"))


def fall(law, model, data, goal, stiffness, zeta, seconds):
    """Positions and velocities (steps, 2) of an arm that is let go under a law."""
    path = []
    for _ in range(round(seconds / model.opt.timestep)):
        path.append((data.qpos.copy(), data.qvel.copy()))
        data.ctrl[:] = law.torque(data.qpos, data.qvel, goal, stiffness, zeta)
        mujoco.mj_step(model, data)
    return np.array(path).transpose(1, 0, 2)


# The laws.


def test_the_torque_of_one_pendulum_is_the_one_computed_by_hand() -> None:
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><body><joint name="a" axis="0 1 0" damping="0.3"/>'
        '<inertial pos="0.5 0 0" mass="2" diaginertia="0.1 0.1 0.1"/></body></worldbody></mujoco>'
    )
    law = JointImpedance(RigidBody(model, ("a",)), np.array([1e9]))
    q, v, goal, kp, zeta = (np.array([x]) for x in (0.2, -0.4, 0.5, 49.0, 0.5))
    # kv = 2 * 0.5 * 7; inertia about the hinge 0.1 + 2 * 0.5^2; gravity pulls the rod down,
    # which is a positive turn about y.
    a = 49.0 * 0.3 - 7.0 * -0.4
    by_hand = 0.6 * a - 2.0 * 9.81 * 0.5 * np.cos(0.2) + 0.3 * -0.4
    assert law.torque(q, v, goal, kp, zeta)[0] == pytest.approx(by_hand)


@pytest.mark.parametrize("damping", [0.0, 4.0])
def test_every_joint_falls_as_a_critically_damped_spring_of_unit_mass(damping: float) -> None:
    model, data, body = two_links(damping)
    law = JointImpedance(body, NO_LIMIT, model.opt.timestep)
    start, goal, omega = np.array([0.3, -0.5]), np.array([0.8, 0.4]), np.array([5.0, 12.0])
    data.qpos[:] = start
    q, _ = fall(law, model, data, goal, omega**2, np.ones(2), 0.6)
    t = model.opt.timestep * np.arange(len(q))[:, None]
    expected = goal + (start - goal) * (1 + omega * t) * np.exp(-omega * t)
    np.testing.assert_allclose(q, expected, atol=5e-3)
    assert ((q - goal) * (start - goal) > 0).all()  # no overshoot


@pytest.mark.parametrize(("zeta", "kept"), [(0.0, 1.0), (1.0, 0.0)])
def test_the_energy_of_the_spring_is_kept_without_damping_and_lost_with_it(
    zeta: float, kept: float
) -> None:
    model, data, body = two_links()
    law = JointImpedance(body, NO_LIMIT, model.opt.timestep)
    goal, kp = np.array([0.6, 0.9]), np.array([40.0, 90.0])
    q, v = fall(law, model, data, goal, kp, np.full(2, zeta), 1.5)
    energy = (0.5 * v**2 + 0.5 * kp * (q - goal) ** 2).sum(axis=1)
    assert energy[-1] / energy[0] == pytest.approx(kept, abs=0.03)
    if zeta:
        assert (np.diff(energy) <= 1e-9).all()


def move_hand(turn_stiffness: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Start, goal and end of a hand that is drawn by a spring for 0.2 s, and its turn error."""
    env = Throw(k=1)
    env.reset(seed=0)
    model, data, n = env.robot.model, env.robot.data, 6
    model.opt.timestep = 0.0005
    body = RigidBody(model, env.joint_names[:n])

    def hand(q: np.ndarray) -> Hand:
        return hand_of(model, data, env.robot.joints, q)

    law = HandImpedance(
        body, np.full(n, 1e9), hand, model.opt.timestep, turn_stiffness=turn_stiffness
    )
    law.clear(data.qpos[:n])
    start, rotation = law.coordinates(data.qpos[:n]), hand(data.qpos[:n]).rotation
    goal = start + np.array([0.05, -0.04, 0.03])
    for _ in range(400):
        q, v = data.qpos[:n].copy(), data.qvel[:n].copy()
        data.ctrl[:n] = law.torque(q, v, goal, np.full(3, 100.0), np.ones(3))
        mujoco.mj_step(model, data)
    turned = turn_error(rotation, hand(data.qpos[:n]).rotation)
    return start, goal, law.coordinates(data.qpos[:n]), turned


def test_the_hand_falls_as_a_critically_damped_spring_of_unit_mass() -> None:
    start, goal, end, _ = move_hand(turn_stiffness=0.0)
    decay = (1 + 10.0 * 0.2) * np.exp(-10.0 * 0.2)
    # the cube in the hand weighs what the model does not know, and J' is left out
    np.testing.assert_allclose(end, goal + (start - goal) * decay, atol=5e-3)


def test_the_hand_keeps_its_turn_on_the_way() -> None:
    *_, free = move_hand(turn_stiffness=0.0)
    *_, held = move_hand(turn_stiffness=150.0)
    assert np.abs(held).max() < 0.5 * np.abs(free).max()


def test_a_turn_error_is_the_sine_about_the_axis() -> None:
    c, s = np.cos(0.3), np.sin(0.3)
    turned = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(turn_error(turned, np.eye(3)), [0.0, 0.0, s], atol=1e-12)


def test_torques_stay_inside_the_limits_and_say_so() -> None:
    _, _, body = two_links()
    law = JointImpedance(body, np.array([3.0, 2.0]))
    far = law.torque(np.zeros(2), np.zeros(2), np.ones(2), np.full(2, 1e4), np.ones(2))
    np.testing.assert_allclose(np.abs(far), [3.0, 2.0])
    assert law.saturated
    down = np.array([np.pi / 2, 0.0])
    law.torque(down, np.zeros(2), down, np.full(2, 50.0), np.ones(2))
    assert not law.saturated
    with pytest.raises(ConfigError, match="2 positive values"):
        JointImpedance(body, np.array([3.0, 0.0]))


def test_acceleration_is_linear_in_the_goal() -> None:
    x, xd, kp, zeta = (np.array([v]) for v in (0.1, 0.2, 30.0, 0.7))
    rise = acceleration(x, xd, x + 0.2, kp, zeta) - acceleration(x, xd, x, kp, zeta)
    assert rise[0] == pytest.approx(30.0 * 0.2)


# Actions.


def test_an_action_is_a_displacement_a_grip_and_the_gains_between_their_ends() -> None:
    env = with_impedance(Throw(k=1), "joints", {"stiffness_high": 90.0})
    u = np.zeros((1, 19))
    displacement, grip, kp, zeta = env.decode(u)
    np.testing.assert_array_equal(displacement, np.zeros(6))
    np.testing.assert_array_equal(kp, np.full(6, 50.0))
    np.testing.assert_array_equal(zeta, np.ones(6))
    u[0, 0], u[0, 6], u[0, 7], u[0, 13] = 0.5, 1.0, 1.0, -1.0
    displacement, grip, kp, zeta = env.decode(u)
    assert (displacement[0], grip, kp[0], zeta[0]) == (0.1, 1.0, 90.0, 0.0)
    displacement, *_ = env.decode(100 * u)
    assert displacement[0] == 0.2
    assert env.joint_names[6:8] == ("gripper", "joint_1/stiffness")
    assert len(env.action_scale) == len(env.joint_names) == 19


def test_a_fixed_damping_ratio_is_no_action() -> None:
    env = with_impedance(Throw(k=1), "hand", {"damping_low": 0.7, "damping_high": 0.7})
    assert env.action_space.shape == (1, 7)
    np.testing.assert_allclose(env.decode(np.ones((1, 7)))[3], 0.7)


def test_the_arm_obeys_the_law_tick_by_tick() -> None:
    env = with_impedance(Throw(k=1), "joints")
    env.reset(seed=3)
    inner, u = env.env, np.random.default_rng(0).uniform(-0.5, 0.5, (1, 19))
    data, torques = inner.robot.data, []
    q, v = data.qpos[:6].copy(), data.qvel[:6].copy()
    inner.watch = lambda: torques.append(data.ctrl[:6].copy())
    env.step(u)
    body, info = RigidBody(inner.robot.model, inner.joint_names[:6]), inner.robot.connect()
    kp, zeta = 317.5 + 307.5 * u[0, 7:13], 1.0 + u[0, 13:]
    goal = np.clip(q + 0.2 * u[0, :6], info.lower[:6], info.upper[:6])
    a = kp * (goal - q) - 2 * zeta * np.sqrt(kp) * v
    tau = body.inverse_dynamics(q, v, a) + 0.5 * (v + inner.robot.model.opt.timestep * a)
    limit = info.max_torque[:6]
    np.testing.assert_allclose(torques[0], np.clip(tau, -limit, limit))


def test_goal_and_gains_change_during_the_first_ticks() -> None:
    before, after = [np.zeros(1)] * 3, [np.ones(1)] * 3
    shares = [Choice(before, after, 2.0).at(i)[0][0] for i in range(4)]
    assert shares == [0.5, 1.0, 1.0, 1.0]
    assert [Choice(before, after, 0.4).at(i)[0][0] for i in range(2)] == [1.0, 1.0]


def record(env, watch) -> None:
    """Call a function with the arguments of every torque."""
    law = env._law.torque  # noqa: SLF001

    def torque(*arguments):
        watch(*arguments)
        return law(*arguments)

    env._law.torque = torque  # noqa: SLF001


def test_a_low_frequency_choice_holds_for_k_control_steps() -> None:
    env = with_impedance(Throw(k=5), "joints")
    assert env.k == 1 and env.control_dt == pytest.approx(0.1)
    env.reset(seed=1)
    seen = []
    record(env, lambda q, v, *choice: seen.append(np.concatenate(choice)))
    _, reward, _, _, info = env.step(np.random.default_rng(0).uniform(-1, 1, (1, 19)))
    assert len(seen) == 10
    assert all(np.array_equal(choice, seen[-1]) for choice in seen[1:])
    assert not np.array_equal(seen[0], seen[-1])
    assert info["rewards"].shape == (1,) and info["rewards"][0] == reward


def test_the_low_frequency_reward_is_the_sum_of_its_control_steps() -> None:
    env = with_impedance(Throw(k=5), "joints")
    env.reset(seed=1)
    paid = []
    one = env.env.reward
    env.env.reward = lambda first: (paid.append(one(first)), paid[-1])[1]
    _, reward, *_ = env.step(np.zeros((1, 19)))
    assert len(paid) == 5 and reward == pytest.approx(sum(paid))


@pytest.mark.parametrize("space", ["joints", "hand"])
def test_an_arm_stands_still_under_zero_actions(space: str) -> None:
    env = with_impedance(Pick(k=1), space)
    obs, _ = env.reset(seed=0)
    start, m = obs[:6].copy(), len(env.joint_names)
    for _ in range(20):
        obs, *_ = env.step(np.zeros((1, m)))
    assert np.abs(obs[:6] - start).max() < 0.01


def test_joints_faster_than_their_limits_have_the_tasks_limit_cost() -> None:
    def cost(limit_cost: float) -> float:
        env = with_impedance(Throw(k=1, limit_cost=limit_cost), "joints")
        env.reset(seed=0)
        action = np.zeros((1, 19))
        action[0, 0], action[0, 7], action[0, 13] = 1.0, 1.0, -1.0  # a stiff undamped swing
        total, fastest = 0.0, 0.0
        for _ in range(30):
            total += env.step(action)[1]
            fastest = max(fastest, np.abs(env.env.robot.data.qvel[:6]).max())
        assert fastest > 3.0
        return total

    assert cost(5.0) < cost(0.0) - 0.5


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: with_impedance(Throw(k=1), "elbow"), "elbow"),
        (lambda: with_impedance(object(), "joints"), "no impedance control"),
        (
            lambda: with_impedance(Throw(k=1), "joints", {"reach": [0.1, 0.2]}),
            "reach has 2 values",
        ),
        (lambda: with_impedance(Throw(k=1), "joints", {"stiffness_low": 1e4}), "above"),
        (lambda: with_impedance(Throw(k=1), "joints").execute(np.zeros(3)), "step"),
        (lambda: with_impedance(Throw(k=1), "joints").step(np.zeros((1, 7))), r"\(1, 19\)"),
        (
            lambda: with_impedance(Throw(k=1), "joints").step(np.full((1, 19), np.nan)),
            "finite",
        ),
        (lambda: with_impedance(Throw(k=1), "joints").step(np.zeros((1, 19))), "over"),
    ],
)
def test_invalid_impedance_is_refused(make, problem: str) -> None:
    with pytest.raises(NdpError, match=problem):
        make()


def test_ranges_may_be_given_among_the_options_of_the_task() -> None:
    config = RunConfig(method="vices", task_options=("stiffness_high=50", "limit_cost=0.2"))
    env = config.choice.make()
    assert env.impedance == ImpedanceConfig(stiffness_high=(50.0,))
    assert env.config.limit_cost == 0.2
    with pytest.raises(TaskError, match="stiffness_high"):
        dataclasses.replace(config, method="ppo").choice.make()


# Meta-World's Sawyer.


def sawyer(k: int = 1, task: str = "push", **options: object):
    return with_impedance(MetaWorld(task, k=k, **options), "joints")


def test_the_sawyer_obeys_the_law_at_every_physics_step() -> None:
    env = sawyer()
    env.reset(seed=0)
    rng, seen = np.random.default_rng(0), []
    record(env, lambda q, v, *choice: seen.append((q.copy(), v.copy())))
    for _ in range(10):
        env.step(rng.uniform(-1, 1, (1, 22)))
    goal, kp, zeta = env._goal, env._kp, env._zeta  # noqa: SLF001
    assert len(seen) == 50  # five physics steps a control step
    (q, v), (_, after) = seen[-2:]
    a = kp * (goal - q) - 2 * zeta * np.sqrt(kp) * v
    # Without contact the joints' velocities change by a h. Tendons of rounding: the fingers
    # slide a little in their model.
    np.testing.assert_allclose(after, v + 0.0025 * a, atol=2e-3)


def test_the_sawyer_does_not_move_under_zero_actions() -> None:
    env = sawyer()
    env.reset(seed=0)
    hand = env._data.body("hand").xpos.copy()  # noqa: SLF001
    for _ in range(40):
        env.step(np.zeros((1, 22)))
    assert np.abs(env._data.body("hand").xpos - hand).max() < 0.01  # noqa: SLF001


def test_the_sawyer_moves_a_joint_where_the_goal_is() -> None:
    env = sawyer()
    obs, _ = env.reset(seed=0)
    action = np.zeros((1, 22))
    action[0, 0], action[0, 8] = 0.5, 1.0
    start = obs[0]
    for _ in range(40):
        obs, *_ = env.step(action)
    assert obs[0] - start > 0.2
    assert np.abs(obs[14:21] - obs[:7])[0] == pytest.approx(0.1, abs=0.02)


def test_impedance_control_leaves_the_simulation_as_the_benchmarks() -> None:
    def episode() -> list[float]:
        env = MetaWorld("push", k=5)
        env.reset(seed=4)
        action = np.random.default_rng(1).uniform(-1, 1, (10, 5, 4))
        rewards = [reward for a in action for reward in env.step(a)[4]["rewards"]]
        env.close()  # back to the pool, from which the next one takes it
        return rewards

    keeper = MetaWorld("reach")  # so that the pool stays
    before = episode()
    env = sawyer()
    env.reset(seed=1)
    env.step(np.full((1, 22), 0.5))
    env.close()
    assert episode() == before
    keeper.close()


def test_an_episode_of_the_sawyer_is_the_benchmarks_length_and_is_reproducible() -> None:
    def play() -> tuple[int, list[float]]:
        env = sawyer(k=5, task="faucet-open")
        rng, over, rewards = np.random.default_rng(0), False, []
        obs, _ = env.reset(seed=2)
        assert obs.shape == env.observation_space.shape == (7 + 7 + 8 + 39,)
        while not over:
            obs, reward, terminated, truncated, info = env.step(rng.uniform(-1, 1, (1, 22)))
            rewards.append(reward)
            over = terminated or truncated
        assert {"success", "saturation", "tracking_rms"} <= info["outcome"].keys()
        return len(rewards), rewards

    first = play()
    assert first[0] == 100
    assert play() == first


def test_the_hand_of_the_sawyer_has_no_impedance() -> None:
    with pytest.raises(TaskError, match=r"impedance of sawyer: 'hand' is not one of \[joints\]"):
        RunConfig(task="push", method="vices-pos").choice.make()


# Training.


def tiny(method: str = "vices", **changes: object) -> RunConfig:
    values = {
        "task": "throw",
        "method": method,
        "samples": 480,
        "environments": 2,
        "workers": 1,
        "hidden": (8, 8),
        "checkpoint_every": 1,
        "evaluation_episodes": 0,
        "k": 5,
        "task_options": ("horizon=0.4",),
        "init_log_std": -1.0,
        "ppo": PpoConfig(batch_size=160, minibatches=2, epochs=2),
    }
    return RunConfig(**{**values, **changes})


def rows(folder: Path) -> list[dict[str, str]]:
    return [
        {n: v for n, v in row.items() if n not in TIME_COLUMNS} for row in read_progress(folder)
    ]


@pytest.mark.parametrize("method", ["vices", "vices-pos", "vices-low-freq"])
def test_a_run_ends_with_a_checkpoint_that_can_be_evaluated(tmp_path: Path, method: str) -> None:
    train(tiny(method, samples=160), tmp_path / "run", quiet=True)
    last = rows(tmp_path / "run")[-1]
    assert int(last["samples"]) == 160
    assert int(last["observed"]) == (32 if method == "vices-low-freq" else 160)
    saved = checkpoint.load(tmp_path / "run" / "checkpoints" / "last")
    env = task_choice(saved, []).make()
    require_fit(saved, env)
    episode = run_episode(env, make_actor(ArrayPolicy(saved.spec, saved.tensors)), 0)
    assert episode["windows"] == (4 if method == "vices-low-freq" else 20)


def test_the_seed_decides_everything_and_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    def stop(row: dict) -> None:
        if row["samples"] == 320:
            raise KeyboardInterrupt

    train(tiny(), tmp_path / "whole", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), tmp_path / "cut", quiet=True, watch=stop)
    train(tiny(), tmp_path / "cut", resume=True, quiet=True)
    assert rows(tmp_path / "whole") == rows(tmp_path / "cut")
    digests = {
        checkpoint.load(tmp_path / f / "checkpoints" / "last").digest for f in ("whole", "cut")
    }
    assert len(digests) == 1


SHIPPED = [
    *((task, m) for task in ("throw", "pick") for m in ("vices", "vices-pos", "vices-low-freq")),
    *((task, m) for task in ("push", "soccer", "faucet-open") for m in ("vices", "vices-low-freq")),
]


@pytest.mark.parametrize(("task", "method"), SHIPPED)
def test_shipped_experiments_fit_their_tasks_and_differ_from_ppo_only_in_the_action(
    task: str, method: str
) -> None:
    config, ppo = shipped(task, method), shipped(task, "ppo")
    assert differences(config, ppo) == ["method"]
    spec = make_spec(config, config.choice.make())
    joints = 7 if config.choice.make().arm == "sawyer" else 6
    assert spec.dof == (10 if method == "vices-pos" else 3 * joints + 1)
