# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Gather the policy's observation from topics.

The policy node asks the observer before each segment which topics are missing or stale, and takes
the observation vector from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from ndp_ros.control.arm import Array
from ndp_ros.errors import ConfigError
from ndp_ros.nodes.messages import CLOCK_TOLERANCE, pose_array, seconds
from ndp_ros.observation import (
    FRAME,
    JOINT_FIELDS,
    OBJECT_PREFIX,
    POSITION,
    SIGNAL_FIELDS,
    ObservationField,
    assemble,
    object_values,
)

JOINT_STATES, SETPOINT = "joint_states", "ndp/setpoint"
NOT_YET = "not received yet"
"""Reason for which a topic without any message is missing."""
_Reading = dict[str, Array] | str
"""Values by field, or the reason for which a message cannot be used."""

_PATIENCE = 5
"""Messages in a row that may contradict an assumption before it is given up."""
_WAITING = 8
"""Joint states that may wait for their setpoint."""
_NEW_CLOCK = 1.0
"""A stamp older than the last one by this much comes from a clock that was set back [s]."""


def pose_topic(name: str) -> str:
    """Return the topic on which an object's pose arrives."""
    return f"objects/{name}/pose"


def signal_topic(name: str) -> str:
    """Return the topic of a field that is neither of the joints nor of an object.

    It is a ``sensor_msgs/JointState``, the common message of numbers with a stamp: its
    ``position`` holds the values.
    """
    return f"observations/{name}"


class Observer:
    """The newest value of every observation field, and for each field why it cannot be used.

    Several publishers may share ``joint_states``. Joint states therefore wait for the setpoint that
    carries the same stamp, which the integrator node alone publishes, and are judged only then:
    neither values nor problems of another publisher reach the observation.

    Attributes:
        objects: Objects whose poses it needs.
        signals: Fields that are neither of the joints nor of an object.
        foreign: Number of joint states so far that no setpoint of the same stamp followed.
    """

    def __init__(
        self, fields: Sequence[ObservationField], joint_names: Sequence[str], base_frame: str
    ) -> None:
        """Check that every field has a topic; object poses must be given in the frame of the base.

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
            allowed = (POSITION, FRAME) if f.name.startswith(OBJECT_PREFIX) else (f.size,)
            if f.name in JOINT_FIELDS:
                allowed = (len(self.joint_names),)
            elif not f.name.startswith(OBJECT_PREFIX) and f.name not in SIGNAL_FIELDS:
                known = (*JOINT_FIELDS, OBJECT_PREFIX + "<name>", *SIGNAL_FIELDS)
                raise ConfigError.choice("observation field", f.name, known)
            if f.size not in allowed:
                expected = " or ".join(map(str, allowed))
                raise ConfigError(f"observation {f.name} has size {f.size}, expected {expected}")
        self.signals = tuple(f.name for f in fields if f.name in SIGNAL_FIELDS)
        self._topics = {f.name: topic_of(f.name) for f in self.fields}
        self._sizes = {f.name: f.size for f in self.fields}
        self._values: dict[str, Array] = {}
        self._stamps: dict[str, float] = {}
        self._problems = dict.fromkeys(self._topics.values(), NOT_YET)
        self._companions = {JOINT_STATES} if {JOINT_STATES, SETPOINT} <= {*self.topics} else set()
        """Topics whose messages are expected to carry the stamp of a setpoint."""
        self._incomplete = 0
        """Setpoints in a row with which not all companions came."""
        self._unpaired = 0
        """Setpoints in a row without joint states of the same stamp."""
        self._older: dict[str, int] = {}
        """Messages in a row, by topic, whose stamps were older than the last."""
        self._waiting: dict[float, _Reading] = {}
        """Joint states that wait for the setpoint of the same stamp, by stamp."""
        self.foreign = 0

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that this observation needs."""
        return tuple(dict.fromkeys(self._topics.values()))

    def on_joint_states(self, message: JointState) -> None:
        """Take measured positions and velocities."""
        parts = {"position": message.position, "velocity": message.velocity}
        self._take_joints(JOINT_STATES, message.header.stamp, message.name, parts)

    def on_setpoint(self, message: JointTrajectory) -> None:
        """Take the desired positions and velocities of the integrator node."""
        if not message.points:
            self._accept(SETPOINT, seconds(message.header.stamp), "holds no point")
            return
        point = message.points[0]
        parts = {"setpoint": point.positions, "setpoint_velocity": point.velocities}
        self._take_joints(SETPOINT, message.header.stamp, message.joint_names, parts)
        self._pair(seconds(message.header.stamp))

    def on_pose(self, name: str, message: PoseStamped) -> None:
        """Take the pose of an object, given in the arm's base frame."""
        frame, pose, field = message.header.frame_id, pose_array(message), OBJECT_PREFIX + name
        reading: _Reading = {field: object_values(pose[:3], pose[3:], self._sizes[field])}
        if frame != self.base_frame:
            reading = f"in frame {frame!r}, not {self.base_frame!r}"
        self._take(pose_topic(name), message.header.stamp, reading)

    def on_signal(self, name: str, message: JointState) -> None:
        """Take a field that is neither of the joints nor of an object."""
        values = np.asarray(message.position, np.float64)
        reading: _Reading = {name: values}
        if len(values) != self._sizes[name]:
            reading = f"{len(values)} values, expected {self._sizes[name]}"
        self._take(signal_topic(name), message.header.stamp, reading)

    def missing(self, age_of: Callable[[float], float], max_age: float) -> list[str]:
        """Return one phrase per topic that keeps Φ from running; empty if there is none.

        ``age_of`` maps a stamp to its age [s]; up to ``max_age`` [s] it counts as fresh.
        """
        phrases = []
        for topic in self.topics:
            age = age_of(self._stamps[topic]) if topic in self._stamps else 0.0
            if topic in self._problems:
                phrases.append(f"{topic} ({self._problems[topic]})")
            elif age > max_age:
                phrases.append(f"{topic} ({age:.1f} s old)")
            elif age < -CLOCK_TOLERANCE:
                # A publisher whose clock is ahead would stay fresh for as long after its death.
                phrases.append(f"{topic} ({-age:.1f} s in the future)")
        return phrases

    def of_one_instant(self) -> bool:
        """Return whether all companions of the newest setpoint carry its stamp.

        On a busy machine 50 ms may lie between two messages of one instant, and another message
        in between: the arm of one instant with the setpoint of another. A topic that has come
        with a setpoint's stamp is expected to do so again, for five setpoints.
        """
        at = self._stamps.get(SETPOINT)
        together = {t for t in self.topics if at is not None and self._stamps.get(t) == at}
        if self._companions <= together or self._incomplete >= _PATIENCE:
            self._companions, self._incomplete = together, 0
            return True
        self._incomplete += 1
        return False

    def observe(self) -> tuple[Array, float]:
        """Return the observation (n_obs,) and the system time of its oldest part [s]."""
        return assemble(self.fields, self._values), min(self._stamps[t] for t in self.topics)

    def _take_joints(
        self, topic: str, stamp: Time, names: Sequence[str], parts: Mapping[str, Sequence[float]]
    ) -> None:
        """Read the arm's joints from a message that may name others too, in any order."""
        absent = [name for name in self.joint_names if name not in names]
        if len(absent) == len(self.joint_names) and topic in self._stamps:
            return  # joints of another device on the same topic, such as a gripper's own
        order = [list(names).index(name) for name in self.joint_names if name not in absent]
        values: dict[str, Array] = {}
        reading: _Reading = values
        if absent:
            reading = f"without {', '.join(absent)}"
        for field in () if absent else parts.keys() & self._topics.keys():
            if len(parts[field]) != len(names):
                reading = f"{len(parts[field])} values of {field} for {len(names)} joints"
                break
            values[field] = np.asarray(parts[field], np.float64)[order]
        self._take(topic, stamp, reading)

    def _take(self, topic: str, stamp: Time, reading: _Reading) -> None:
        """Accept a reading, let it wait for its setpoint, or drop it as outdated."""
        if isinstance(reading, dict) and not all(np.isfinite(v).all() for v in reading.values()):
            reading = "NaN or infinity"
        at = seconds(stamp)
        # The network may deliver an old message late; a clock that was set back stays back.
        if 0.0 < self._stamps.get(topic, at) - at < _NEW_CLOCK:
            self._older[topic] = self._older.get(topic, 0) + 1
            if self._older[topic] < _PATIENCE:
                return
        self._older[topic] = 0
        if topic != JOINT_STATES or topic not in self._companions:
            self._accept(topic, at, reading)
        elif isinstance(reading, dict) or at not in self._waiting:
            self._waiting[at] = reading
            if len(self._waiting) > _WAITING:
                self._waiting.pop(next(iter(self._waiting)))
                self.foreign += 1

    def _pair(self, at: float) -> None:
        """Accept the joint states of a setpoint's stamp; those of no setpoint are foreign."""
        if JOINT_STATES not in self._companions or not self._waiting:
            return
        if at not in self._waiting:
            self._unpaired += 1
            if self._unpaired <= _PATIENCE:
                return
            # No joint states come with the setpoints: they have a source and times of their own.
            self._companions.discard(JOINT_STATES)
            at = next(reversed(self._waiting))
        self._unpaired = 0
        self._accept(JOINT_STATES, at, self._waiting.pop(at))
        self.foreign += len(self._waiting)
        self._waiting.clear()

    def _accept(self, topic: str, at: float, reading: _Reading) -> None:
        if isinstance(reading, str):
            if topic in self.topics:
                self._problems[topic] = reading
            return
        self._values |= reading
        self._stamps[topic] = at
        self._problems.pop(topic, None)


def topic_of(field: str) -> str:
    """Return the topic from which a field of an observation comes."""
    if field.startswith(OBJECT_PREFIX):
        return pose_topic(field.removeprefix(OBJECT_PREFIX))
    if field in SIGNAL_FIELDS:
        return signal_topic(field)
    return JOINT_STATES if field in ("position", "velocity") else SETPOINT
