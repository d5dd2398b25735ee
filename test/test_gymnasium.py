# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Every registered task behaves as gymnasium, its wrappers and its users expect."""

import copy
import pickle
import warnings

import gymnasium
import numpy as np
import pytest
from conftest import draws
from gymnasium import wrappers
from gymnasium.utils.env_checker import check_env

import ndp_ros.tasks  # noqa: F401  (registers them)
from ndp_ros.errors import TaskError
from ndp_ros.tasks.choice import NAMESPACE, TaskChoice

IDS = sorted(id_ for id_, spec in gymnasium.registry.items() if spec.namespace == NAMESPACE)
KINDS = [f"ndp_ros/{name}-v0" for name in ("Throw", "Throw-Gen3", "Pick", "Push", "MT50")]
"""One task of every kind."""
BAD_ACTIONS = {
    "nan": lambda good: np.full_like(good, np.nan),
    "infinite": lambda good: np.full_like(good, np.inf),
    "a row too few": lambda good: good[1:],
    "flat": lambda good: good.ravel(),
    "a batch": lambda good: good[None],
    "text": lambda good: good.astype(str),
    "complex": lambda good: good + 1j,
    "none": lambda good: None,
    "ragged": lambda good: [[0.0], [0.0, 0.0]],
}


@pytest.fixture
def make():
    made = []

    def make(id_: str, **kwargs):
        made.append(gymnasium.make(id_, **kwargs))
        return made[-1]

    yield make
    for env in made:
        env.close()


def play(env) -> dict:
    """Play an episode; return the last info."""
    env.reset(seed=3)
    for _ in range(1000):
        *_, terminated, truncated, info = env.step(np.zeros(env.action_space.shape))
        if terminated or truncated:
            return info
    raise AssertionError("no end")


@pytest.mark.parametrize("id_", KINDS)
def test_gymnasiums_checker_finds_nothing(make, id_) -> None:
    env = make(id_, k=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*A Box observation space.*")
        warnings.filterwarnings("ignore", message=".*For Box action spaces.*")
        warnings.filterwarnings("ignore", message=".*different render modes.*")
        check_env(env.unwrapped, skip_render_check=True)


@pytest.mark.parametrize("id_", IDS)
def test_observations_and_steps_fit_the_declared_spaces(make, id_) -> None:
    env = make(id_, k=5)
    obs, _ = env.reset(seed=1)
    assert env.observation_space.contains(obs)
    obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert env.observation_space.contains(obs)
    assert isinstance(reward, float)
    assert (type(terminated), type(truncated)) == (bool, bool)
    assert "episode" not in info, "that key is gymnasium's"
    assert env.spec.id == id_
    again = gymnasium.make(env.spec)
    np.testing.assert_array_equal(again.reset(seed=1)[0], env.reset(seed=1)[0])
    again.close()
    with pytest.raises(TaskError, match="'altitude' is no option"):
        env.reset(options={"altitude": 1})


@pytest.mark.parametrize("id_", KINDS)
def test_gymnasiums_statistics_and_the_tasks_own_figures_have_keys_of_their_own(make, id_) -> None:
    info = play(wrappers.RecordEpisodeStatistics(make(id_, k=5)))
    assert info["episode"]["l"] > 1
    assert {"success", "saturation", "tracking_rms"} <= info["outcome"].keys()


@pytest.mark.parametrize("id_", KINDS)
def test_a_time_limit_by_registration_truncates(make, id_) -> None:
    env = make(id_, k=5, max_episode_steps=2)
    assert env.spec.max_episode_steps == 2
    env.reset(seed=0)
    ends = [env.step(np.zeros(env.action_space.shape))[2:4] for _ in range(2)]
    assert ends == [(False, False), (False, True)]
    assert env.reset(seed=0)[0].shape == env.observation_space.shape


@pytest.mark.parametrize("id_", KINDS)
def test_a_task_works_behind_gymnasiums_wrappers(make, id_) -> None:
    env = make(id_, k=5, max_episode_steps=20)
    env = wrappers.RescaleAction(env, np.float64(-1.0), np.float64(1.0))
    for wrapper in (
        wrappers.ClipAction,
        wrappers.FlattenObservation,
        wrappers.NormalizeObservation,
        wrappers.TimeAwareObservation,
        wrappers.NormalizeReward,
        wrappers.RecordEpisodeStatistics,
        wrappers.Autoreset,
    ):
        env = wrapper(env)
    env = wrappers.FrameStackObservation(env, 2)
    assert env.reset(seed=0)[0].shape == env.observation_space.shape
    for _ in range(30):
        obs, *_ = env.step(env.action_space.sample())
        assert np.isfinite(obs).all()


@pytest.mark.parametrize("id_", KINDS)
def test_a_step_after_the_end_is_refused_until_the_next_reset(make, id_) -> None:
    env = make(id_, k=5)
    play(env)
    action = np.zeros(env.action_space.shape)
    for _ in range(2):
        with pytest.raises(TaskError, match="call reset"):
            env.unwrapped.step(action)
    obs, _ = env.reset(seed=3)
    np.testing.assert_array_equal(obs, make(id_, k=5).reset(seed=3)[0])
    assert not any(env.step(action)[2:4])


@pytest.mark.parametrize("id_", KINDS)
def test_a_bad_action_is_refused_in_one_line_and_changes_nothing(make, id_) -> None:
    env, twin = make(id_, k=5).unwrapped, make(id_, k=5).unwrapped
    good = 0.3 * env.action_space.sample()
    for task in (env, twin):
        task.reset(seed=1)
        task.step(good)
    for name, spoil in BAD_ACTIONS.items():
        with pytest.raises(TaskError, match=r"action must be \(5, \d\) finite values") as refused:
            env.step(spoil(good))
            pytest.fail(f"{name} was taken")
        assert "\n" not in str(refused.value)
    ours, theirs = env.step(good), twin.step(good)
    np.testing.assert_array_equal(ours[0], theirs[0])
    assert ours[1] == theirs[1]


@pytest.mark.parametrize("id_", KINDS)
def test_bad_setpoints_are_refused_as_bad_actions_are(make, id_) -> None:
    env = make(id_, k=5).unwrapped
    env.reset(seed=1)
    good = np.zeros((len(env.segment_times), 3, len(env.joint_names)))
    for spoil in BAD_ACTIONS.values():
        with pytest.raises(TaskError, match=r"setpoints must be \(\d+, 3, \d\) finite values"):
            env.execute(spoil(good))


@pytest.mark.parametrize("id_", KINDS)
def test_actions_of_any_number_type_mean_the_same(make, id_) -> None:
    envs = [make(id_, k=5).unwrapped for _ in range(4)]
    action = np.zeros(envs[0].action_space.shape)
    action[:, 0] = 1.0
    kinds = (action, action.astype(np.float32), action.astype(np.int64), action.tolist())
    seen = []
    for env, same in zip(envs, kinds, strict=True):
        env.reset(seed=2)
        seen.append(env.step(same)[0])
    for obs in seen[1:]:
        np.testing.assert_array_equal(obs, seen[0])


@pytest.mark.parametrize(
    ("task", "space"), [("throw", "joints"), ("pick", "hand"), ("push", "joints")]
)
def test_a_task_driven_by_impedance_passes_the_checker(task, space) -> None:
    env = TaskChoice(task, 5, impedance=space).make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*A Box observation space.*")
        warnings.filterwarnings("ignore", message=".*For Box action spaces.*")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version.*")
        check_env(env, skip_render_check=True)
    env.close()


@pytest.mark.parametrize("id_", KINDS)
def test_copies_and_pickles_are_refused_in_one_line(make, id_) -> None:
    env = make(id_, k=5).unwrapped
    env.reset(seed=0)
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TaskError, match="cannot be copied or pickled: make another one"):
            copied(env)
    env.step(np.zeros(env.action_space.shape))


@pytest.mark.parametrize(
    ("id_", "kind"), [*((id_, "sync") for id_ in KINDS), (KINDS[0], "async"), (KINDS[3], "async")]
)
def test_gymnasiums_vectors_give_the_numbers_of_single_environments(make, id_, kind) -> None:
    single = make(id_, k=5)
    vector = gymnasium.make_vec(id_, num_envs=2, vectorization_mode=kind, k=5)
    try:
        obs, _ = vector.reset(seed=[4, 7])
        np.testing.assert_array_equal(obs[1], single.reset(seed=7)[0])
        actions = np.stack([single.action_space.sample() for _ in range(2)])
        obs, rewards, *_ = vector.step(actions)
        expected = single.step(actions[1])
        np.testing.assert_array_equal(obs[1], expected[0])
        assert rewards[1] == expected[1]
        for _ in range(600):
            *_, info = vector.step(np.zeros_like(actions))
            if "outcome" in info:
                break
        assert info["outcome"]["success"].shape == (2,)
    finally:
        vector.close()


@draws
@pytest.mark.parametrize(("id_", "k"), list(zip(KINDS, (5, 5, 5, 25, 50), strict=True)))
def test_a_recorded_video_lasts_as_long_as_the_episode(make, id_, k, tmp_path) -> None:
    import imageio.v3 as iio

    env = make(id_, k=k, render_mode="rgb_array", size=(64, 48))
    step = env.unwrapped.k * env.unwrapped.control_dt
    assert env.metadata["render_fps"] == pytest.approx(1.0 / step)
    assert env.unwrapped.metadata["render_fps"] == pytest.approx(1.0 / step)
    pytest.importorskip("moviepy", reason="RecordVideo needs it")
    env = wrappers.RecordVideo(env, str(tmp_path), disable_logger=True)
    play(env)
    env.close()
    (video,) = tmp_path.glob("*.mp4")
    assert iio.immeta(video)["fps"] == pytest.approx(1.0 / step, rel=0.01)


@pytest.mark.parametrize("id_", ["ndp_ros/Throw-v0", "ndp_ros/Push-v0"])
def test_stable_baselines_learns_on_a_task_and_its_monitor_keeps_its_figures(make, id_) -> None:
    sb3 = pytest.importorskip("stable_baselines3", reason="a test of another library's use")
    from stable_baselines3.common.env_checker import check_env as check
    from stable_baselines3.common.monitor import Monitor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(make(id_, k=5).unwrapped, warn=False, skip_render_check=True)
    env = Monitor(make(id_, k=5))
    info = play(env)
    assert set(info["episode"]) == {"r", "l", "t"}
    assert "success" in info["outcome"]
    model = sb3.PPO("MlpPolicy", env, n_steps=64, batch_size=32, n_epochs=1, device="cpu")
    model.learn(64)


def test_a_step_before_reset_is_refused_and_closing_twice_is_allowed(make) -> None:
    env = make("ndp_ros/Throw-v0", k=5).unwrapped
    with pytest.raises(TaskError, match="call reset"):
        env.step(np.zeros(env.action_space.shape))
    env.close()
    env.close()
