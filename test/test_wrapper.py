# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Any gymnasium environment as a task: contract, trackers, dictionaries, training by name."""

import json
import re
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ndp_ros import cli
from ndp_ros.errors import TaskError
from ndp_ros.tasks.choice import TaskChoice, make
from ndp_ros.tasks.metaworld.environment import MetaWorld
from ndp_ros.tasks.wrapper import NdpWrapper
from ndp_ros.training.config import RunConfig
from ndp_ros.training.evaluation import EPISODE_FIGURES
from ndp_ros.training.logs import read_progress
from ndp_ros.training.run import train

pytest.importorskip("mujoco", reason="needs MuJoCo")


@pytest.mark.parametrize(
    ("name", "control", "dof"),
    [("Reacher-v5", "torque", 2), ("Pusher-v5", "torque", 7), ("Pendulum-v1", "action", 1)],
)
def test_a_wrapped_environment_keeps_the_contract_of_gymnasium(name, control, dof):
    env = make(name, k=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(env, skip_render_check=True)
    assert isinstance(env, NdpWrapper)
    assert (env.control, env.action_space.shape) == (control, (4, dof))
    env.close()


def test_an_episode_ends_with_its_own_limit_and_reports_its_outcome():
    env = NdpWrapper(gymnasium.make("Reacher-v5"), k=7)  # 50 steps: the last segment is cut
    env.reset(seed=0)
    steps = [env.step(np.zeros((7, 2))) for _ in range(8)]
    assert [step[3] for step in steps] == [False] * 7 + [True]
    *_, info = steps[-1]
    np.testing.assert_array_equal(info["rewards"] != 0.0, [True] + [False] * 6)
    assert info["outcome"].keys() >= {"success", "saturation", "max_joint_speed", "tracking_rms"}
    with pytest.raises(TaskError, match="call reset"):
        env.step(np.zeros((7, 2)))


def test_computed_torque_brings_the_joints_to_the_setpoint():
    env = NdpWrapper(gymnasium.make("Reacher-v5"), k=5)
    env.reset(seed=0)
    start = env.unwrapped.data.qpos[:2].copy()
    env.step(np.full((5, 2), 0.5))
    for _ in range(6):
        env.step(np.zeros((5, 2)))
    reached = env.unwrapped.data.qpos[:2] - start
    assert reached == pytest.approx(5 * 0.5 * env.action_scale, abs=0.02)


def test_displacements_and_the_setpoints_that_they_stand_for_are_one_motion():
    first, second = (NdpWrapper(gymnasium.make("Reacher-v5"), k=3) for _ in range(2))
    first.reset(seed=1)
    obs, _ = second.reset(seed=1)
    action = np.array([[0.3, -0.2], [0.5, 0.1], [0.4, 0.0]])
    steps = action * second.action_scale
    yd = steps / second.control_dt
    yd[-1] = (1.5 * steps[-1] - 0.5 * steps[-2]) / second.control_dt
    setpoints = np.stack((obs[:2] + np.cumsum(steps, axis=0), yd, np.zeros((3, 2))), axis=1)
    np.testing.assert_allclose(first.step(action)[0], second.execute(setpoints)[0], atol=1e-12)


class Counter(gymnasium.Env):
    """An environment with a dictionary to observe, whose action is a position."""

    action_space = gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float32)

    def __init__(self, image=False):
        spaces = {"at": gymnasium.spaces.Box(-5, 5, (2,)), "mode": gymnasium.spaces.Discrete(3)}
        if image:
            spaces["camera"] = gymnasium.spaces.Box(0, 255, (480, 640, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict(spaces)
        self.actions = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.actions = []
        return self._observe(), {}

    def step(self, action):
        self.actions.append(action)
        done = len(self.actions) == 6
        return self._observe(), 1.0, done, False, {"is_success": done}

    def _observe(self):
        at = self.actions[-1] if self.actions else np.zeros(2, np.float32)
        return {"at": at, "mode": 1}


def test_entries_of_a_dictionary_are_fields_and_positions_are_the_actions():
    env = NdpWrapper(Counter(), k=3, speed=1.0)
    obs, _ = env.reset()
    assert [(f.name, f.size) for f in env.fields][2:] == [("world/at", 2), ("world/mode", 3)]
    assert obs.tolist() == [0] * 4 + [0, 0] + [0, 1, 0]
    obs, reward, *_ = env.step(np.ones((3, 2)))
    np.testing.assert_allclose(env.unwrapped.actions, np.outer([0.1, 0.2, 0.3], [1, 1]), rtol=1e-6)
    assert reward == 3.0
    outcome = env.step(np.zeros((3, 2)))[4]["outcome"]
    assert outcome == {"success": True}, "there are no joints to have figures of"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"env": Counter(image=True)}, r"world/camera is an image of 480 x 640 pixels"),
        ({"env": Counter(), "k": 0}, "k is 0"),
        ({"env": Counter(), "control": "torque"}, "joints of .* are not known"),
        ({"env": Counter(), "control": "force"}, "control.*'force'"),
        ({"env": Counter(), "speed": 0.0}, "speed is 0.0"),
    ],
)
def test_what_cannot_be_wrapped_is_refused_with_the_reason(arguments, words):
    with pytest.raises(TaskError, match=words):
        NdpWrapper(**arguments)


def test_meta_world_s_own_names_stand_for_the_tasks_of_this_package():
    pytest.importorskip("metaworld", reason="needs Meta-World")
    env = TaskChoice("Meta-World/drawer-open-v3", 5).make()
    assert isinstance(env, MetaWorld)
    assert env.task == "drawer-open"
    env.close()


def test_an_ndp_trains_on_an_environment_by_its_name(tmp_path):
    config = RunConfig(
        task="Reacher-v5",
        samples=800,
        environments=2,
        workers=1,
        evaluation_episodes=1,
        task_options=("speed=4.0",),
    )
    last = train(config, tmp_path / "run", quiet=True)
    assert (last / "config.json").exists()


@pytest.mark.parametrize("method", ["ndp-td3", "dyn-e"])
def test_off_policy_methods_learn_in_an_environment_by_its_name(method, tmp_path):
    out = tmp_path / "run"
    words = ["train", "Pendulum-v1", "--method", method, "--samples", "1600", "--out", str(out)]
    words += ["--environments", "2", "--workers", "1", "--evaluation-episodes", "1"]
    words += ["--random-steps", "400", "--embedding-steps", "20", "--decoder-steps", "20"]
    assert cli.main([*words, "--warm-up", "400", "--quiet"]) == 0
    assert read_progress(out)[-1]["eval_return"]
    assert cli.main(["eval", str(out), "--episodes", "1"]) == 0


def test_no_figure_of_joints_is_logged_printed_or_written_where_there_are_none(tmp_path, capsys):
    config = RunConfig(
        task="Pendulum-v1", samples=800, environments=2, workers=1, evaluation_episodes=1
    )
    run = train(config, tmp_path / "run", quiet=True).parents[1]
    rows = read_progress(run)
    of_joints = EPISODE_FIGURES[1:]
    assert rows[-1]["return"] and rows[-1]["eval_return"]
    assert not any(
        row[prefix + name] for row in rows for name in of_joints for prefix in ("", "eval_")
    )
    assert cli.main(["eval", str(run), "--episodes", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "return" in report and not report.keys() & set(of_joints)
    assert cli.main(["eval", str(run), "--episodes", "1"]) == 0
    assert re.search(r"1 episode\)  return -\d+\.?\d*\n", capsys.readouterr().out)
    assert cli.main(["export", str(run), "-o", str(tmp_path / "out"), "--episodes", "1"]) == 0
    assert "joint speed" not in (tmp_path / "out" / "README.md").read_text()
