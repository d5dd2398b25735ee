# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A throw that was heard over ROS is judged, drawn and filmed by the task's own scene."""

import itertools
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import imageio.v3
import numpy as np
import pytest
from conftest import draws
from matplotlib.figure import Figure
from PIL import Image

pytest.importorskip("mujoco", reason="needs MuJoCo")

import mujoco

from ndp_ros.control.arm import JointState
from ndp_ros.errors import TaskError
from ndp_ros.tasks.camera import Camera
from ndp_ros.tasks.episode_pictures import draw_hand, draw_joints
from ndp_ros.tasks.film import shots_of
from ndp_ros.tasks.pick import Pick
from ndp_ros.tasks.recording import Recording
from ndp_ros.tasks.replay import Recorder, Replay
from ndp_ros.tasks.throw import Throw
from ndp_ros.training import films

pytestmark = pytest.mark.live


class Heard(Throw):
    """A throw that writes down what ROS would tell of it."""

    def begin(self) -> None:
        super().begin()
        self.samples: list[tuple[float, np.ndarray, dict[str, np.ndarray]]] = []

    def watch(self) -> None:
        super().watch()
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
    task.reset(seed=seed)
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
def test_a_cube_at_rest_is_a_success_inside_the_bin(
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


class HeardPick(Pick):
    """A pick that keeps the samples that ROS would publish of it."""

    def begin(self) -> None:
        super().begin()
        self.samples: list[tuple[float, np.ndarray, dict[str, np.ndarray]]] = []

    def watch(self) -> None:
        state = JointState.zeros(7)
        self.robot.read(state)
        self.samples.append((self.robot.data.time, state.position, self.robot.objects()))


def test_a_replayed_episode_of_another_task_gets_the_figures_of_the_physics() -> None:
    task, over, info = HeardPick(), False, {}
    task.reset(seed=0)
    actions = np.random.default_rng(0).normal(0.0, 0.5, (task.k, 7))
    while not over:
        _, _, over, _, info = task.step(actions)
    replay = Replay(Pick())
    replay.begin(0)
    start = task.samples[0][0] - task.tick
    for time, position, poses in task.samples:
        replay.feed(time - start, position, poses)
    assert replay.over
    summary, outcome = replay.summary(), info["outcome"]
    assert summary["success"] == outcome["success"]
    # The fingers are shown by one synergy, which moves the grip by a millimetre.
    for name in ("height", "highest", "gap"):
        assert summary[name] == pytest.approx(outcome[name], abs=5e-3), name


def recording(n: int = 30) -> Recording:
    """Return a recording of an arm at rest, with the path of its hand."""
    task = Throw()
    task.reset(seed=0)
    state = JointState.zeros(7)
    task.robot.read(state)
    times = list(np.linspace(0.0, 0.1, n))
    done = Recording(
        0,
        task.joint_names,
        times,
        [state.position] * n,
        [state.position + 0.01] * n,
        [task.robot.objects()] * n,
        segments=[0.0],
        about={"outcome": {"success": False}},
    )
    Replay(task).trace(done)
    return done


@pytest.fixture(scope="module")
def swung() -> Recording:
    """Return the recording of a throw that was simulated here."""
    task = Throw()
    recorder = Recorder(task, {"task": "throw"})
    task.reset(seed=0)
    recorder.begin(0)
    action = np.zeros((task.k, 7))
    action[:, 1], action[:, 2] = -0.9, 0.8
    action[task.k // 2 :, 6] = -3.0
    over = False
    while not over:
        _, _, over, _, info = task.step(action)
        recorder.window()
    recorder.end(info["outcome"])
    return recorder.recordings[0]


def test_a_recorder_takes_every_tick_with_its_setpoint(swung: Recording) -> None:
    task = Throw()
    np.testing.assert_allclose(np.diff(swung.times), task.tick)
    lengths = {len(swung.position), len(swung.setpoint), len(swung.poses), len(swung.hand)}
    assert lengths == {len(swung.times)}
    np.testing.assert_allclose(np.diff(swung.segments), task.k * task.control_dt)
    error = np.array(swung.position)[:, :6] - np.array(swung.setpoint)[:, :6]
    assert np.abs(error).max() < 0.05  # the setpoint of the same instant, not of another


def test_the_path_of_the_hand_is_that_of_the_grip(swung: Recording) -> None:
    task = Throw()
    task.reset(seed=0)
    np.testing.assert_allclose(swung.hand[0], Replay(task).in_base(task.grip), atol=1e-6)


def test_release_and_landing_are_found_in_a_recording(swung: Recording) -> None:
    name, release, landing = swung.flight()
    assert name == "cube"
    cube, hand = swung.path_of("cube"), np.array(swung.hand)
    gap = np.linalg.norm(cube - hand, axis=1)
    assert gap[release] > 0.05 >= gap[release - 1]
    assert release < landing
    assert np.diff(cube[release : landing + 1, 2]).max() < 0.0  # it falls until the impact
    assert cube[landing, 2] < cube[:, 2].min() + 0.01
    assert recording().flight() is None


def test_a_recording_is_written_and_read_again(swung: Recording, tmp_path: Path) -> None:
    swung.save(tmp_path / "new" / "0.npz")
    again = Recording.load(tmp_path / "new" / "0.npz")
    np.testing.assert_array_equal(again.position, swung.position)
    np.testing.assert_array_equal(again.path_of("cube"), swung.path_of("cube"))
    assert (again.seed, again.joint_names, again.objects) == (0, swung.joint_names, swung.objects)
    assert again.about == swung.about
    with np.load(tmp_path / "new" / "0.npz") as plain:  # without this package
        assert plain["pose_bin"].shape == (len(swung.times), 7)


@pytest.mark.parametrize("content", [b"", b"PK junk", b"\x93NUMPY"])
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(TaskError, match="no recording of an episode"):
        Recording.load(tmp_path / "x.npz")


def test_a_state_between_two_samples_is_interpolated() -> None:
    done = recording(2)
    done.position[1] = done.position[0] + 1.0
    position, poses = done.state_at(0.025)
    np.testing.assert_allclose(position, done.position[0] + 0.25)
    np.testing.assert_allclose(poses["cube"], done.poses[0]["cube"])


def test_a_film_shows_every_thirtieth_of_a_second_and_the_release_slower(swung: Recording) -> None:
    shots = shots_of(swung)
    at = np.array([shot.at for shot in shots])
    slow = np.array([shot.slow for shot in shots])
    assert (np.diff(at) >= 0.0).all()
    assert np.diff(at).max() == pytest.approx(1 / 30)
    release = swung.times[swung.flight()[1]]
    assert slow[np.abs(at - release) < 0.05].all()
    assert np.diff(at[slow]).max() < 1 / 150
    assert at[-1] == swung.times[-1]


@pytest.mark.parametrize("draw", [draw_joints, draw_hand])
def test_joints_and_the_path_of_the_hand_are_drawn(draw, swung: Recording, tmp_path: Path) -> None:
    draw(swung, tmp_path / "out" / "throw.png")
    assert Image.open(tmp_path / "out" / "throw.png").width > 1500


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Return the list of the figures that are written from now on."""
    seen: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda f, *a, **k: (save(f, *a, **k), seen.append(f)))
    return seen


def test_long_names_of_joints_stay_beside_their_own_rows(
    swung: Recording, tmp_path: Path, drawn: list[Figure]
) -> None:
    names = tuple(f"shoulder_lift_joint_{n}" for n in range(7))
    draw_joints(replace(swung, joint_names=names), tmp_path / "throw.png")
    labels = [axes.yaxis.label for axes in drawn[0].axes[::2]]
    assert [label.get_text().replace("\n", "") for label in labels] == [f"{n}[rad]" for n in names]
    drawn[0].canvas.draw()
    boxes = [label.get_window_extent() for label in labels]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_a_policy_that_decides_at_every_step_is_drawn_without_a_line_for_each(
    swung: Recording, tmp_path: Path, drawn: list[Figure]
) -> None:
    draw_joints(replace(swung, segments=list(swung.times[::2])), tmp_path / "ppo.png")
    assert len(swung.times) > 80
    assert len(drawn[0].axes[0].lines) == 3  # planned, measured and the release


def test_time_counts_from_the_first_segment_where_it_is_known_only(
    swung: Recording, tmp_path: Path, drawn: list[Figure]
) -> None:
    for segments in (swung.segments, []):  # a bag has none
        draw_joints(replace(swung, segments=segments), tmp_path / "throw.png")
    assert [figure.axes[-1].get_xlabel() for figure in drawn] == [
        "time from the first segment [s]",
        "time [s]",
    ]


def test_objects_differ_in_a_picture_and_the_hand_is_none_of_them(
    swung: Recording, tmp_path: Path, drawn: list[Figure]
) -> None:
    poses = [{"goal": p["bin"], "grip": p["bin"], "bin": p["bin"]} for p in swung.poses]
    draw_hand(replace(swung, poses=poses), tmp_path / "reach.png")
    handles, labels = drawn[0].axes[0].get_legend_handles_labels()
    looks = {text: line.get_marker() for line, text in zip(handles, labels, strict=True)}
    assert looks["goal"] != looks["bin"]
    assert "grip" not in looks


def test_the_error_has_axes_of_its_own_and_segments_are_marked(
    swung: Recording, tmp_path: Path, drawn: list[Figure]
) -> None:
    draw_joints(swung, tmp_path / "throw.png")
    (figure,) = drawn
    assert len(figure.axes) == 2 * len(swung.joint_names)
    error = figure.axes[1].lines[1].get_ydata()
    both = np.array(swung.position)[:, 0] - np.array(swung.setpoint)[:, 0]
    np.testing.assert_allclose(error, 1e3 * both)
    borders = [line.get_xdata()[0] for line in figure.axes[0].lines[2:-1]]
    assert borders == swung.segments
    (legend,) = figure.legends  # below the axes, where it covers no curve
    assert not any(axes.get_legend() for axes in figure.axes)
    assert not any(legend.get_window_extent().overlaps(a.get_window_extent()) for a in figure.axes)


@pytest.mark.parametrize("draw", [draw_joints, draw_hand])
def test_a_plot_of_nothing_is_refused(draw, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no plot"):
        draw(Recording(0), tmp_path / "throw.png")
    assert not list(tmp_path.iterdir())


_FILM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_replay import recording
from ndp_ros.tasks.film import film
from ndp_ros.tasks.replay import Replay
from ndp_ros.tasks.throw import Throw
task = Throw(render_mode="rgb_array")
for out in map(Path, sys.argv[2:]):
    film(Replay(task), [recording()], out, sheet=out.with_suffix(".png"), size=(160, 90))
"""


def filmed(gl: str, *paths: Path) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | ({"MUJOCO_GL": gl} if gl else {})
    return subprocess.run(
        [sys.executable, "-c", _FILM, str(Path(__file__).parent), *map(str, paths)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@draws
def test_a_film_is_an_mp4_with_a_contact_sheet_or_an_animated_picture(tmp_path: Path) -> None:
    run = filmed("", tmp_path / "throws.mp4", tmp_path / "page.webp")
    assert run.returncode == 0, run.stderr
    assert b"ftyp" in (tmp_path / "throws.mp4").read_bytes()[:16]
    assert Image.open(tmp_path / "throws.png").width > 6 * 400
    assert Image.open(tmp_path / "page.webp").is_animated


@dataclass(frozen=True)
class Plain:
    """The choice of a task whose constructor takes nothing but what tasks must."""

    impedance: str = ""

    def make(self, render_mode: str) -> Throw:
        return Throw(render_mode=render_mode)


@draws
def test_a_task_that_takes_no_size_is_filmed_at_the_films(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(films, "film", partial(films.film, size=(160, 90)))
    with closing(Throw()) as task:
        watcher = Recorder(task, {})
        watcher.recordings.append(recording())
    films.save_film(tmp_path / "film.mp4", watcher, Plain(), quiet=True)
    assert imageio.v3.immeta(tmp_path / "film.mp4")["size"] == (160, 90)


def test_without_rendering_film_fails_and_leaves_no_file(tmp_path: Path) -> None:
    run = filmed("disable", tmp_path / "throws.mp4")
    assert run.returncode == 1
    assert "TaskError" in run.stderr
    assert "libosmesa6" in run.stderr
    assert not list(tmp_path.iterdir())


@draws
def test_drawing_only_what_moved_is_drawing_the_whole_scene() -> None:
    task = Throw()
    task.reset(seed=0)
    model, data = task.robot.model, task.robot.data
    model.light_castshadow[:], model.mat_reflectance[:] = 0, 0.0
    one, other = (Camera("side", (480, 270)) for _ in range(2))
    try:
        first = one.picture(model, data).copy()
        for _ in range(3):
            task.step(np.full((task.k, 7), 0.7))
            last = one.picture(model, data)
        whole = other.picture(model, data)
    finally:
        one.close()
        other.close()
    assert (np.abs(last.astype(int) - first) > 40).mean() > 0.01
    # Edges may be smoothed otherwise.
    assert (np.abs(last.astype(int) - whole) > 40).mean() < 0.0005


@draws
def test_a_scene_without_any_shape_is_drawn() -> None:
    empty = "<mujoco><worldbody><camera name='eye' pos='0 0 1'/></worldbody></mujoco>"
    model = mujoco.MjModel.from_xml_string(empty)
    camera = Camera("eye", (64, 48))
    try:
        pictures = [camera.picture(model, mujoco.MjData(model)) for _ in range(2)]
    finally:
        camera.close()
    assert [picture.shape for picture in pictures] == [(48, 64, 3)] * 2
