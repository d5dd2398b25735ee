"""The policy's observation, gathered from topics: what is there, how old, what is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from ndp_ros.errors import ConfigError
from ndp_ros.nodes.messages import CLOCK_TOLERANCE, seconds
from ndp_ros.observation import JOINT_FIELDS, OBJECT_PREFIX, ObservationField, assemble

Array = NDArray[np.float64]

JOINT_STATES, SETPOINT = "joint_states", "ndp/setpoint"
_PATIENCE = 5
_WAITING = 8
"""Joint states that may wait for their setpoint."""
_NEW_CLOCK = 1.0
"""A stamp that is older than the last one by this much is of a clock that was set back [s]."""


def pose_topic(name: str) -> str:
    """Return the topic on which an object's pose arrives."""
    return f"objects/{name}/pose"


class Observer:
    """Holds the newest value of every field and knows why a field cannot be used."""

    def __init__(
        self, fields: Sequence[ObservationField], joint_names: Sequence[str], base_frame: str
    ) -> None:
        """Check that every field has a topic to come from.

        Raises:
            ConfigError: If a field is unknown or does not fit the number of joints.
        """
        self.fields = tuple(fields)
        self.joint_names = tuple(joint_names)
        self.base_frame = base_frame
        self.objects = tuple(
            f.name.removeprefix(OBJECT_PREFIX) for f in fields if f.name.startswith(OBJECT_PREFIX)
        )
        for f in self.fields:
            expected = 3 if f.name.startswith(OBJECT_PREFIX) else len(self.joint_names)
            if not f.name.startswith(OBJECT_PREFIX) and f.name not in JOINT_FIELDS:
                known = (*JOINT_FIELDS, OBJECT_PREFIX + "<name>")
                raise ConfigError.choice("observation field", f.name, known)
            if f.size != expected:
                raise ConfigError(f"observation {f.name} has size {f.size}, expected {expected}")
        self._topics = {f.name: _topic(f.name) for f in self.fields}
        self._values: dict[str, Array] = {}
        self._stamps: dict[str, float] = {}
        self._problems = dict.fromkeys(self._topics.values(), "not received yet")
        self._companions: set[str] = set()
        self._apart = 0
        self._older: dict[str, int] = {}
        """Messages in a row, by topic, whose stamps were older than the last."""
        self._joints: dict[float, dict[str, Array]] = {}
        """Joint states that wait for the setpoint of their instant, by stamp."""
        self.foreign = 0
        """Joint states so far that came with no setpoint of their instant."""

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that this observation needs."""
        return tuple(dict.fromkeys(self._topics.values()))

    def on_joint_states(self, message: JointState) -> None:
        """Take measured positions and velocities."""
        self._take_joints(
            JOINT_STATES, message.header.stamp, message.name,
            {"position": message.position, "velocity": message.velocity},
        )  # fmt: skip

    def on_setpoint(self, message: JointTrajectory) -> None:
        """Take the integrator's desired positions and velocities."""
        if not message.points:
            self._refuse(SETPOINT, "holds no point")
            return
        point = message.points[0]
        self._take_joints(
            SETPOINT, message.header.stamp, message.joint_names,
            {"setpoint": point.positions, "setpoint_velocity": point.velocities},
        )  # fmt: skip
        self._take_waiting(seconds(message.header.stamp))

    def _take_waiting(self, at: float) -> None:
        """Take the joint states of a setpoint's instant; those of no setpoint are not ours."""
        if at in self._joints:
            self._accept(JOINT_STATES, at, self._joints.pop(at))
            self.foreign += len(self._joints)
            self._joints.clear()

    def on_pose(self, name: str, message: PoseStamped) -> None:
        """Take the position of an object, given in the arm's base frame."""
        topic = pose_topic(name)
        if message.header.frame_id != self.base_frame:
            self._refuse(topic, f"in frame {message.header.frame_id!r}, not {self.base_frame!r}")
            return
        p = message.pose.position
        self._take(topic, message.header.stamp, {OBJECT_PREFIX + name: np.array([p.x, p.y, p.z])})

    def missing(self, age_of: Callable[[float], float], max_age: float) -> list[str]:
        """Return one phrase per topic that keeps phi from running; empty when all is well.

        Args:
            age_of: How old a stamp is [s], such as ``clocks.SystemClock.age``.
            max_age: Oldest stamp that counts as fresh [s].
        """
        phrases = []
        for topic in self.topics:
            age = age_of(self._stamps[topic]) if topic in self._stamps else 0.0
            if topic in self._problems:
                phrases.append(f"{topic} ({self._problems[topic]})")
            elif age > max_age:
                phrases.append(f"{topic} ({age:.1f} s old)")
            elif age < -CLOCK_TOLERANCE:
                # By a clock that is ahead what is no longer sent stays fresh for as long.
                phrases.append(f"{topic} ({-age:.1f} s in the future)")
        return phrases

    def of_one_instant(self) -> bool:
        """Whether everything that comes with the setpoints is of the newest one's instant.

        On a busy machine there may be 50 ms between two messages of one instant, and
        another one in between: an arm of one time with setpoints of another. Topics that
        have come with a setpoint's own stamp are expected to do so again, for as long as
        five setpoints; what comes from elsewhere has its own times.
        """
        at = self._stamps.get(SETPOINT)
        together = {t for t in self.topics if at is not None and self._stamps.get(t) == at}
        if self._companions <= together or self._apart >= _PATIENCE:
            self._companions, self._apart = together, 0
            return True
        self._apart += 1
        return False

    def observe(self) -> tuple[Array, float]:
        """Return the observation (n_obs,) and the ROS time of its oldest part [s]."""
        return assemble(self.fields, self._values), min(self._stamps[t] for t in self.topics)

    def forget(self) -> None:
        """Forget everything received."""
        self._values.clear()
        self._stamps.clear()
        self._companions.clear()
        self._joints.clear()
        self._problems = dict.fromkeys(self._topics.values(), "not received yet")

    def _take_joints(self, topic: str, stamp: Any, names: Sequence[str], parts: Any) -> None:
        try:
            order = [list(names).index(name) for name in self.joint_names]
        except ValueError:
            absent = [name for name in self.joint_names if name not in names]
            # Others' joints on the same topic, such as a gripper's own, are nothing to us.
            if len(absent) < len(self.joint_names) or topic not in self._stamps:
                self._refuse(topic, f"without {', '.join(absent)}")
            return
        values = {}
        for field, data in parts.items():
            if field not in self._topics:
                continue
            if len(data) != len(names):
                self._refuse(topic, f"{len(data)} values of {field} for {len(names)} joints")
                return
            values[field] = np.asarray(data, np.float64)[order]
        self._take(topic, stamp, values)

    def _take(self, topic: str, stamp: Any, values: dict[str, Array]) -> None:
        if not all(np.isfinite(value).all() for value in values.values()):
            self._refuse(topic, "NaN or infinity")
            return
        at = seconds(stamp)
        # The network may deliver late what was sent before; a clock that was set back goes on so.
        if 0.0 < self._stamps.get(topic, at) - at < _NEW_CLOCK:
            self._older[topic] = self._older.get(topic, 0) + 1
            if self._older[topic] < _PATIENCE:
                return
        self._older[topic] = 0
        if topic == JOINT_STATES and topic in self._companions:
            self._joints[at] = values
            if len(self._joints) <= _WAITING:
                return
            self.foreign += 1
            self._joints.pop(next(iter(self._joints)))
            return
        self._accept(topic, at, values)

    def _accept(self, topic: str, at: float, values: dict[str, Array]) -> None:
        self._values |= values
        self._stamps[topic] = at
        self._problems.pop(topic, None)

    def _refuse(self, topic: str, problem: str) -> None:
        if topic in self.topics:
            self._problems[topic] = problem


def _topic(field: str) -> str:
    if field.startswith(OBJECT_PREFIX):
        return pose_topic(field.removeprefix(OBJECT_PREFIX))
    return JOINT_STATES if field in ("position", "velocity") else SETPOINT
