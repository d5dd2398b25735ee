# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The chunk node: turn chunks of way points of any policy into segments for the integrator.

A chunk arrives when its policy has computed it, some time after it began. What is left of it by
then is fitted to one segment from the present setpoint, with its velocity and acceleration, so that
the arm goes over to the new chunk without a jump however late that comes.
"""

from __future__ import annotations

import math
import secrets
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from ndp_interfaces.msg import DmpParameters
from rclpy.subscription import Subscription
from trajectory_msgs.msg import JointTrajectory

from ndp_ros.config import param
from ndp_ros.control.arm import Array
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.dmp.fit import CHUNK, Fit, fit_segment
from ndp_ros.errors import NdpError, RejectedError
from ndp_ros.nodes import diagnostics, lifecycle, parameters, process, qos, scheduling
from ndp_ros.nodes.chunks import Chunk, Plans, chunk_from_message, within
from ndp_ros.nodes.clocks import clock_of_stamps
from ndp_ros.nodes.diagnostics import Health
from ndp_ros.nodes.lifecycle import NdpNode
from ndp_ros.nodes.messages import Parameters, parameters_to_message, seconds
from ndp_ros.nodes.observer import SETPOINT

NAME = "chunk_node"
CHUNK_TOPIC = "ndp/chunk"

_RECENT = 2.0
"""Time for which the last refusal is worth a warning [s]."""
_LOG_PERIOD = 5.0
"""Time between two log lines for one reason [s]."""


@dataclass(frozen=True)
class ChunkConfig:
    """Parameters of the chunk node."""

    horizon: float = param(
        1.0,
        doc="Duration of every segment: way points further ahead are left to the next chunk. The "
        "arm comes to rest at the horizon, or on the last way point of a shorter chunk, if no "
        "other follows.",
        unit="s",
        minimum=0.05,
        maximum=10.0,
    )
    smoothing: float = param(
        0.02,
        doc="Motion quicker than this is rounded off; 0: as close to the way points as possible.",
        unit="s",
        minimum=0.0,
        maximum=1.0,
    )
    n_basis: int = param(CHUNK.n_basis, doc="Basis functions of a segment.", minimum=1, maximum=32)
    lead: float = param(
        0.004,
        doc="Time from a chunk's arrival to the hand-over of its segment.",
        unit="s",
        minimum=0.0,
        maximum=0.2,
    )
    max_setpoint_age: float = param(
        0.1, doc="Age from which the setpoint is too old.", unit="s", minimum=0.001, maximum=10.0
    )
    max_residual: float = param(
        0.02,
        doc="Root mean square distance from the way points that is worth a warning.",
        unit="rad",
        minimum=0.0,
        maximum=10.0,
    )
    node_priority: int = scheduling.priority_param(30)
    autostart: bool = lifecycle.autostart_param()


@dataclass(frozen=True)
class _Setpoint:
    """The newest setpoint of the integrator."""

    names: tuple[str, ...]
    state: Array
    """y, yd, ydd (3, dof)."""
    stamp: float
    arrival: float

    def ahead(self, span: float) -> Array:
        """Return y, yd, ydd (3, dof) a short span later [s]."""
        y, yd, ydd = self.state
        return np.stack((y + span * yd + 0.5 * span**2 * ydd, yd + span * ydd, ydd))


class ChunkNode(NdpNode):
    """Fitter of chunks: one JointTrajectory in and one message of DMP parameters out."""

    def __init__(self, **options: Any) -> None:
        writable = "smoothing", "lead", "max_setpoint_age", "max_residual"
        super().__init__(NAME, ChunkConfig, writable=writable, **options)
        self._config = ChunkConfig()
        self._system = CHUNK
        self._clock_of_stamps = clock_of_stamps(self)
        self._setpoint: _Setpoint | None = None
        self._plans = Plans()
        self._inputs: list[Subscription[Any]] = []
        self._session = secrets.randbits(63) + 1
        self._sequence = 0
        self._refused: Counter[str] = Counter()
        self._refusal, self._refused_at = "", -math.inf
        self._logged: dict[str, float] = {}
        self._residuals: deque[float] = deque(maxlen=100)
        self._ages: deque[float] = deque(maxlen=100)
        self._costs: deque[float] = deque(maxlen=100)
        self._scheduler = ""
        self._output = self.create_lifecycle_publisher(
            DmpParameters, "ndp/dmp_parameters", qos.PARAMETERS
        )

    # -- life cycle -------------------------------------------------------------------------

    def configure(self) -> None:
        """Read the parameters."""
        self._config = parameters.read(self, ChunkConfig)
        self._system = DmpConfig(n_basis=self._config.n_basis, forcing=CHUNK.forcing)

    def activate(self) -> None:
        """Fit every chunk from now on."""
        self._scheduler = scheduling.set_realtime_priority(self._config.node_priority)
        self._setpoint, self._plans = None, Plans()
        self._inputs = [
            self.create_subscription(JointTrajectory, SETPOINT, self._on_setpoint, qos.STATE),
            self.create_subscription(JointTrajectory, CHUNK_TOPIC, self._on_chunk, qos.PARAMETERS),
        ]

    def deactivate(self) -> None:
        """Fit no more chunks; the arm comes to rest at the end of the last one."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs.clear()

    def on_change(self, changes: list[Any]) -> Any:
        """Accept a change of parameters that take effect at the next chunk."""
        known = {c.name: c.value for c in changes if hasattr(self._config, c.name)}
        self._config = ChunkConfig(**{**vars(self._config), **known})
        return super().on_change(changes)

    # -- one chunk --------------------------------------------------------------------------

    def _on_setpoint(self, message: JointTrajectory) -> None:
        """Take the state of motion that the next segment starts from."""
        if not message.points:
            return
        point, names = message.points[0], tuple(message.joint_names)
        parts = point.positions, point.velocities, point.accelerations
        if any(len(part) != len(names) for part in parts):
            return
        state = np.array(parts, np.float64)
        if not np.isfinite(state).all():
            return
        stamp = seconds(message.header.stamp)
        self._setpoint = _Setpoint(names, state, stamp, time.monotonic())

    def _on_chunk(self, message: JointTrajectory) -> None:
        """Fit a segment to what is left of a chunk, and publish it."""
        started = time.perf_counter()
        try:
            setpoint = self._fresh_setpoint()
            chunk = chunk_from_message(message, setpoint.names)
            age = self._clock_of_stamps.age(chunk.stamp) if chunk.stamp else 0.0
            fit = self._fit(chunk, age, setpoint)
        except NdpError as error:
            self._refuse(error.reason if isinstance(error, RejectedError) else "fit", str(error))
            return
        self._sequence += 1
        self._output.publish(
            parameters_to_message(
                Parameters(
                    joint_names=setpoint.names,
                    g=fit.segment.g,
                    w=fit.segment.w,
                    config=fit.segment.config,
                    duration=fit.segment.duration,
                    stamp=setpoint.stamp,
                    session=self._session,
                    sequence=self._sequence,
                    checkpoint=message.header.frame_id or NAME,
                )
            )
        )
        self._residuals.append(fit.residual)
        self._ages.append(age)
        self._costs.append(time.perf_counter() - started)

    def _fresh_setpoint(self) -> _Setpoint:
        """Return the newest setpoint.

        Raises:
            RejectedError: If there is none, or it is too old.
        """
        setpoint, limit = self._setpoint, self._config.max_setpoint_age
        if setpoint is None:
            raise RejectedError("no_setpoint", f"nothing on {SETPOINT}: start the integrator node")
        age = time.monotonic() - setpoint.arrival
        if age > limit:
            raise RejectedError(
                "no_setpoint", f"the last one on {SETPOINT} came {age:.2f} s ago, over {limit:g} s"
            )
        return setpoint

    def _fit(self, chunk: Chunk, age: float, setpoint: _Setpoint) -> Fit:
        """Return the segment from the state of motion at hand-over.

        Raises:
            RejectedError: If the chunk is over, in the future or older than one before.
            SegmentError: If no segment fits it.
        """
        config, clock = self._config, self._clock_of_stamps
        at_hand_over, began = age + config.lead, clock.steady() - age
        left = within(chunk, at_hand_over, config.horizon)
        self._plans.require_new(chunk)
        lag = min(max(0.0, clock.age(setpoint.stamp)), config.max_setpoint_age)
        y, yd, ydd = setpoint.ahead(lag + config.lead)
        fit = fit_segment(
            self._plans.complete(left, began, y),
            left.times,
            y,
            yd,
            ydd0=ydd,
            age=at_hand_over,
            duration=config.horizon,
            smoothing=config.smoothing,
            config=self._system,
        )
        self._plans.add(chunk, began)
        return fit

    def _refuse(self, reason: str, text: str) -> None:
        """Note a chunk that was refused; log it at most once in five seconds a reason."""
        self._refused[reason] += 1
        now = time.monotonic()
        self._refusal, self._refused_at = text, now
        if now - self._logged.get(reason, -math.inf) > _LOG_PERIOD:
            self._logged[reason] = now
            self.get_logger().warning(f"chunk refused: {text}")

    # -- diagnostics ------------------------------------------------------------------------

    def health(self) -> Health:
        """Return how many chunks were fitted, how well, and why others were refused."""
        values: dict[str, object] = {"segments": self._sequence, "node_scheduler": self._scheduler}
        values |= {f"refused_{reason}": count for reason, count in self._refused.items()}
        if self._residuals:
            values["residual_rad"] = residual = float(np.median(self._residuals))
            values["chunk_age_s"] = float(np.median(self._ages))
            values["chunk_age_s_max"] = max(self._ages)
            values["fit_ms_p50"] = float(np.median(self._costs)) * 1e3
            values["fit_ms_max"] = max(self._costs) * 1e3
        if self.state != "active":
            return Health(diagnostics.OK, self.state, values)
        if time.monotonic() - self._refused_at < _RECENT:
            # Without the numbers, which differ from chunk to chunk.
            reason = self._refusal.partition(":")[0]
            return Health(diagnostics.WARN, f"chunks are refused: {reason}", values)
        if self._residuals and residual > self._config.max_residual:
            return Health(
                diagnostics.WARN, "segments pass far from the way points: lower smoothing", values
            )
        return Health(diagnostics.OK, "running" if self._sequence else "no chunk yet", values)


def main(argv: list[str] | None = None) -> int:
    """Run the chunk node."""
    return process.run(ChunkNode, argv)


if __name__ == "__main__":
    sys.exit(main())
