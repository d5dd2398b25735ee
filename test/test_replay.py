"""A throw that was heard over ROS is judged, drawn and filmed by the task's own scene."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import draws
from matplotlib.figure import Figure

pytest.importorskip("mujoco", reason="needs MuJoCo")

from ndp_ros.arms.arm import JointState
from ndp_ros.errors import TaskError
from ndp_ros.tasks.replay import Recording, Replay, plot
from ndp_ros.tasks.throw import Throw


class Heard(Throw):
    """A throw that writes down what ROS would tell of it."""

    def begin(self, seed: int) -> None:
        self.samples: list[tuple[float, np.ndarray, dict[str, np.ndarray]]] = []
        self.reset(seed=seed)

    def _watch(self) -> None:
        super()._watch()
        state = JointState.zeros(7)
        self.robot.read(state)
        self.samples.append((self.robot.data.time, state.position, self.robot.objects()))


def swing(task: Throw, elbow: float) -> dict[str, object]:
    """Swing the arm up, open the hand on the way, and return the episode's figures."""
    action = np.zeros((task.k, 7))
    action[:, 1], action[:, 2] = -0.9, elbow
    action[task.k // 2 :, 6] = -3.0
    over = False
    while not over:
        _, _, over, _, info = task.step(action)
    return info["outcome"]


@pytest.mark.parametrize(("seed", "elbow"), [(0, 0.8), (1, -0.5), (2, 0.0)])
def test_a_replayed_throw_gets_the_verdict_of_the_physics(seed: int, elbow: float) -> None:
    task = Heard()
    task.begin(seed)
    episode = swing(task, elbow)
    replay = Replay(Throw())
    replay.begin(seed)
    start = task.samples[0][0] - task.tick
    for time, position, poses in task.samples:
        assert not replay.over
        replay.feed(time - start, position, poses)
    assert replay.over
    summary = replay.summary()
    assert summary["success"] == episode["success"]
    assert summary["landed"] == episode["landed"]
    if episode["landed"]:
        # The velocity and so the instant of the landing are known to a sample only.
        np.testing.assert_allclose(summary["landing"], episode["landing"], atol=0.01)


@pytest.mark.parametrize(
    ("offset", "inside"),
    [((0.0, 0.0, 0.03), True), ((0.0, 0.0, 0.5), False), ((0.6, 0.0, 0.03), False)],
)
def test_a_cube_at_rest_counts_where_the_bin_is(
    offset: tuple[float, float, float], inside: bool
) -> None:
    replay = Replay(Throw())
    replay.begin(0)
    objects = replay.task.robot.objects()
    objects["cube"][:3] = objects["bin"][:3] + offset
    position = np.array(replay.task.robot.config.home)
    for n in range(20):
        replay.feed(n * 0.005, position, objects)
    assert replay.summary()["success"] == inside


def test_a_cube_that_flies_through_the_bin_does_not_count() -> None:
    replay = Replay(Throw())
    replay.begin(0)
    objects = replay.task.robot.objects()
    position = np.array(replay.task.robot.config.home)
    for n in range(20):
        objects["cube"][:3] = objects["bin"][:3]
        objects["cube"][2] += 0.05 - 0.002 * n
        replay.feed(n * 0.005, position, objects)
    assert not replay.summary()["success"]


def test_without_a_landing_the_throw_is_over_at_the_horizon() -> None:
    replay = Replay(Throw())
    replay.begin(0)
    objects = replay.task.robot.objects()
    position = np.array(replay.task.robot.config.home)
    replay.feed(replay.task.config.horizon - 0.01, position, objects)
    assert not replay.over
    replay.feed(replay.task.config.horizon + 0.01, position, objects)
    assert replay.over


def recording(n: int = 30) -> Recording:
    task = Throw()
    task.reset(seed=0)
    state = JointState.zeros(7)
    task.robot.read(state)
    times = list(np.linspace(0.0, 0.1, n))
    return Recording(
        0, task.joint_names, times, [state.position] * n, [task.robot.objects()] * n,
        [state.position + 0.01] * n,
    )  # fmt: skip


def test_plot_shows_planned_and_measured_angles(tmp_path: Path) -> None:
    plot(recording(), tmp_path / "out" / "throw.png")
    assert (tmp_path / "out" / "throw.png").read_bytes().startswith(b"\x89PNG")


def test_the_legend_of_a_plot_covers_no_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda f, *a, **k: (save(f, *a, **k), seen.append(f)))
    plot(recording(), tmp_path / "throw.png")
    (figure,) = seen
    assert not any(axes.get_legend() for axes in figure.axes)
    (legend,) = figure.legends
    assert not any(legend.get_window_extent().overlaps(a.get_window_extent()) for a in figure.axes)


def test_a_plot_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="nothing was recorded"):
        plot(Recording(0), tmp_path / "throw.png")
    assert not list(tmp_path.iterdir())


_FILM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_replay import recording
from ndp_ros.tasks.replay import Replay, film
from ndp_ros.tasks.throw import Throw
task = Throw(render_mode="rgb_array", size=(160, 120))
film(Replay(task), [recording()], Path(sys.argv[2]), fps=20)
"""


def filmed(path: Path, gl: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | ({"MUJOCO_GL": gl} if gl else {})
    return subprocess.run(
        [sys.executable, "-c", _FILM, str(Path(__file__).parent), str(path)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@draws
def test_film_is_an_mp4(tmp_path: Path) -> None:
    run = filmed(tmp_path / "throws.mp4", "")
    assert run.returncode == 0, run.stderr
    assert b"ftyp" in (tmp_path / "throws.mp4").read_bytes()[:16]


def test_a_machine_that_cannot_draw_says_so_and_leaves_no_empty_file(tmp_path: Path) -> None:
    run = filmed(tmp_path / "throws.mp4", "disable")
    assert run.returncode == 1
    assert "TaskError" in run.stderr
    assert "libosmesa6" in run.stderr
    assert not list(tmp_path.iterdir())
