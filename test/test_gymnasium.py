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
from ndp_ros.training.environment import NAMESPACE

IDS = sorted(id_ for id_, spec in gymnasium.registry.items() if spec.namespace == NAMESPACE)
SOME = ["ndp_ros/Throw-v0", "ndp_ros/Throw-Gen3-v0", "ndp_ros/Pick-v0", "ndp_ros/Push-v0",
        "ndp_ros/MT50-v0"]  # fmt: skip


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


@pytest.mark.parametrize("id_", SOME)
def test_check_env_has_nothing_to_say(make, id_) -> None:
    env = make(id_, k=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*A Box observation space.*")
        warnings.filterwarnings("ignore", message=".*For Box action spaces.*")
        warnings.filterwarnings("ignore", message=".*different render modes.*")
        check_env(env.unwrapped, skip_render_check=True)


@pytest.mark.parametrize("id_", IDS)
def test_a_task_starts_steps_and_shows_what_its_spaces_promise(make, id_) -> None:
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


@pytest.mark.parametrize("id_", SOME)
def test_statistics_of_an_episode_and_our_own_figures_stand_side_by_side(make, id_) -> None:
    info = play(wrappers.RecordEpisodeStatistics(make(id_, k=5)))
    assert info["episode"]["l"] > 1
    assert {"success", "saturation", "tracking_rms"} <= info["outcome"].keys()


@pytest.mark.parametrize("id_", SOME)
def test_a_time_limit_by_registration_truncates(make, id_) -> None:
    env = make(id_, k=5, max_episode_steps=2)
    assert env.spec.max_episode_steps == 2
    env.reset(seed=0)
    ends = [env.step(np.zeros(env.action_space.shape))[2:4] for _ in range(2)]
    assert ends == [(False, False), (False, True)]
    assert env.reset(seed=0)[0].shape == env.observation_space.shape


@pytest.mark.parametrize("id_", SOME[:4])
def test_what_is_normalised_clipped_and_flattened_is_still_the_task(make, id_) -> None:
    env = make(id_, k=5)
    for wrapper in (
        wrappers.ClipAction, wrappers.FlattenObservation, wrappers.NormalizeObservation,
        wrappers.NormalizeReward, wrappers.RecordEpisodeStatistics, wrappers.Autoreset,
    ):  # fmt: skip
        env = wrapper(env)
    env.reset(seed=0)
    for _ in range(30):
        obs, *_ = env.step(env.action_space.sample())
        assert np.isfinite(obs).all()


@pytest.mark.parametrize("id_", SOME)
def test_copies_and_pickles_are_refused_in_one_line(make, id_) -> None:
    env = make(id_, k=5).unwrapped
    env.reset(seed=0)
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TaskError, match="cannot be copied or pickled: make another one"):
            copied(env)
    env.step(np.zeros(env.action_space.shape))


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("id_", ["ndp_ros/Throw-v0", "ndp_ros/Push-v0"])
def test_vectors_of_a_task_give_what_each_gives_alone(make, id_, kind) -> None:
    alone = make(id_, k=5)
    vector = gymnasium.make_vec(id_, num_envs=2, vectorization_mode=kind, k=5)
    try:
        obs, _ = vector.reset(seed=[4, 7])
        np.testing.assert_array_equal(obs[1], alone.reset(seed=7)[0])
        actions = np.stack([alone.action_space.sample() for _ in range(2)])
        obs, rewards, *_ = vector.step(actions)
        expected = alone.step(actions[1])
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
@pytest.mark.parametrize(("id_", "k"), [("ndp_ros/Throw-v0", 5), ("ndp_ros/Push-v0", 10)])
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
def test_stable_baselines_learns_on_a_task_and_keeps_its_own_figures(make, id_) -> None:
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


def test_closing_twice_and_stepping_too_early_are_one_line(make) -> None:
    env = make("ndp_ros/Throw-v0", k=5).unwrapped
    with pytest.raises(TaskError, match="call reset"):
        env.step(np.zeros(env.action_space.shape))
    env.close()
    env.close()
