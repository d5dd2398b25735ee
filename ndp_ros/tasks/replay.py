"""A throw that was made elsewhere, put back into the task's scene: judged, drawn, filmed.

The run time knows joints and object poses from topics alone. Whether the cube is in the
bin is decided here by the very code that decides it in training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from ndp_ros.errors import TaskError
from ndp_ros.tasks.throw import Throw

Array = NDArray[np.float64]

_SPEED_SPAN = 0.03
"""The cube's velocity is its displacement over this time [s]."""


@dataclass
class Recording:
    """What was heard of one throw; times by the arm's clock [s] from the first segment."""

    seed: int
    joint_names: tuple[str, ...] = ()
    times: list[float] = field(default_factory=list)
    position: list[Array] = field(default_factory=list)
    """Measured joints (dof,) [rad], one per time."""
    poses: list[dict[str, Array]] = field(default_factory=list)
    """Pose (7,) of each object in the arm's base frame, one per time."""
    setpoint: list[Array] = field(default_factory=list)
    """Planned joints (dof,) [rad], one per time."""


class Replay:
    """The task's scene, moved by samples instead of by physics."""

    def __init__(self, task: Throw) -> None:
        """Take a task over; it must not be stepped meanwhile."""
        self.task = task
        robot, model = task.robot, task.robot.model
        self._n = robot.connect().n_arm
        cube = model.joint("cube")
        self._cube = int(cube.qposadr[0])
        self._cube_velocity = int(cube.dofadr[0])
        self._bin = int(model.body_mocapid[model.body("bin").id])
        base = model.body("base").id
        self._base = robot.data.xpos[base].copy(), robot.data.xquat[base].copy()
        self._track: list[tuple[float, Array]] = []
        self._time = 0.0

    def begin(self, seed: int) -> None:
        """Start a new throw from the start state of ``seed``."""
        self.task.reset(seed=seed)
        self._track.clear()
        self._time = 0.0

    def of_this_arm(self, names: Sequence[str], position: Sequence[float]) -> bool:
        """Whether these are the task's joints, with a number for each; others may be heard too."""
        return tuple(names) == self.task.joint_names and len(position) == len(names)

    def show(self, position: Array, poses: Mapping[str, Array]) -> None:
        """Put joints (dof,) and objects where they were heard to be."""
        data = self.task.robot.data
        data.qpos[: self._n] = position[: self._n]
        data.qpos[self.task.robot.fingers] = position[self._n]
        if "cube" in poses:
            data.qpos[self._cube : self._cube + 7] = self._in_world(poses["cube"])
        if "bin" in poses and self._bin >= 0:
            data.mocap_pos[self._bin] = self._in_world(poses["bin"])[:3]
        mujoco.mj_forward(self.task.robot.model, data)

    def feed(self, time: float, position: Array, poses: Mapping[str, Array]) -> None:
        """Show a sample and let the task watch it.

        Args:
            time: Since the first segment [s].
            position: Measured joints (dof,) [rad].
            poses: Pose (7,) of each object in the base frame.
        """
        self.show(position, poses)
        self._time = time
        if "cube" not in poses:
            return
        data = self.task.robot.data
        at = data.qpos[self._cube : self._cube + 3].copy()
        while len(self._track) > 1 and time - self._track[1][0] >= _SPEED_SPAN:
            self._track.pop(0)
        if self._track and time > self._track[0][0]:
            earlier, place = self._track[0]
            velocity = (at - place) / (time - earlier)
            data.qvel[self._cube_velocity : self._cube_velocity + 3] = velocity
        self._track.append((time, at))
        self.task._watch()

    @property
    def over(self) -> bool:
        """Whether the episode has ended: with its last segment, as in training."""
        window = self.task.k * self.task.control_dt
        end = max(1, round(self.task.config.horizon / window)) * window
        return self._time >= end - 1e-6

    def summary(self) -> dict[str, Any]:
        """Return the task's own figures of the throw: ``success``, ``landing``, ``miss``, ..."""
        return self.task._summary()

    def _in_world(self, pose: Array) -> Array:
        """Return a pose (7,) given in the base frame as one in the world."""
        origin, turn = self._base
        out = np.empty(7)
        mujoco.mju_rotVecQuat(out[:3], pose[:3], turn)
        out[:3] += origin
        mujoco.mju_mulQuat(out[3:], turn, pose[3:])
        return out


def film(
    replay: Replay,
    recordings: list[Recording],
    path: Path,
    fps: float = 20.0,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Write the throws as an MP4 in real time, one after the other.

    Args:
        replay: On a task that was made with ``render_mode="rgb_array"``.
        recordings: The throws.
        path: File to write.
        fps: Frames per second.
        progress: Called with the share that is done.

    Raises:
        TaskError: If this machine cannot draw, or the file cannot be written.
    """
    import imageio.v2 as imageio

    frames = [
        (recording, place) for recording in recordings for place in _frames(recording.times, fps)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without a GPU, shadows and reflections take five sixths of the time.
    model = replay.task.robot.model
    model.light_castshadow[:] = 0
    model.mat_reflectance[:] = 0.0
    writer: Any = None
    try:
        for done, (recording, place) in enumerate(frames):
            replay.show(recording.position[place], recording.poses[place])
            picture = replay.task.render()
            # Opened late, so that a machine that cannot draw leaves no empty file.
            if writer is None:
                writer = imageio.get_writer(path, fps=fps, macro_block_size=2, codec="libx264")
            writer.append_data(picture)
            if progress is not None:
                progress((done + 1) / len(frames))
    except (OSError, ValueError, ImportError) as error:
        raise TaskError(f"cannot write {path}: {' '.join(str(error).split())}") from error
    finally:
        if writer is not None:
            writer.close()


def plot(recording: Recording, path: Path) -> None:
    """Draw planned against measured joint angles of one throw as a PNG.

    Raises:
        TaskError: If nothing was recorded, or the file cannot be written.
    """
    if not recording.times:
        raise TaskError(f"no plot {path}: nothing was recorded")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measured, planned = np.array(recording.position), np.array(recording.setpoint)
    dof = measured.shape[1]
    figure = Figure(figsize=(9.0, 1.3 * dof + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(dof, 1, sharex=True, squeeze=False)[:, 0]
    for joint, ax in enumerate(axes):
        ax.plot(recording.times, planned[:, joint], lw=2.5, alpha=0.5, label="planned")
        ax.plot(recording.times, measured[:, joint], lw=1.0, color="black", label="measured")
        rms = float(np.sqrt(np.mean((measured[:, joint] - planned[:, joint]) ** 2)))
        ax.set_ylabel(f"{recording.joint_names[joint]}\n[rad]", fontsize=8)
        ax.set_title(f"rms {rms:.3f} rad", fontsize=7, loc="right", pad=2)
        ax.grid(alpha=0.3)
    # Above the axes, where it covers no curve.
    figure.legend(
        *axes[0].get_legend_handles_labels(), fontsize=8, loc="outside upper left", ncols=2
    )
    axes[-1].set_xlabel("time from the first segment [s]")
    figure.suptitle(f"Throw from start state {recording.seed}", fontsize=10)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise TaskError(f"cannot write {path}: {error.strerror}") from error


def _frames(times: list[float], fps: float) -> list[int]:
    """Return the place of the sample that each frame shows."""
    if not times:
        return []
    wanted = np.arange(times[0], times[-1] + 0.5 / fps, 1.0 / fps)
    return [int(i) for i in np.searchsorted(times, wanted).clip(0, len(times) - 1)]
