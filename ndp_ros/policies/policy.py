# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""A trained policy for single observations, without torch, as ``load_policy`` returns it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from ndp_ros.dmp.segment import Segment
from ndp_ros.errors import ConfigError
from ndp_ros.observation import Array, assemble, observation_size
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import Tensors
from ndp_ros.policies.spec import PolicySpec

Observation = ArrayLike | Mapping[str, ArrayLike]
"""A vector (n_obs,), or an array for each field of the observation by its name."""


class Policy:
    """A trained policy: observations to DMP parameters, segments or actions.

    An observation is a vector ``(n_obs,)`` in the order of ``spec.observation``, or a mapping from
    the names of these fields to arrays; positions in rad and m, velocities in rad/s.

    Source: Algorithm 1 of the paper.

    Attributes:
        spec: Joints, observation, control step and dynamical system of the policy.

    Example:
        >>> policy = load_policy("jaco_throw")
        >>> segment = policy.segment({f.name: [0.1] * f.size for f in policy.spec.observation})
        >>> segment.g.shape, segment.w.shape, round(segment.duration, 3)
        ((7,), (7, 5), 0.4)
    """

    def __init__(self, spec: PolicySpec, tensors: Tensors) -> None:
        """Take a copy of the named arrays of a checkpoint."""
        self.spec = spec
        self._arrays = ArrayPolicy(spec, tensors)

    def parameters(self, obs: Observation) -> tuple[Array, Array]:
        """Return the goal g ``(dof,)`` [rad] and the weights w ``(dof, N)`` of an NDP.

        Raises:
            ConfigError: If the observation does not fit or the policy is no NDP.
        """
        g, w = self._arrays.parameters_of(self._vector(obs, "ndp"))
        return g[0].astype(np.float64), w[0].astype(np.float64)

    def segment(self, obs: Observation) -> Segment:
        """Return the segment of an NDP, to be bound to the setpoint that it starts from.

        Raises:
            ConfigError: If the observation does not fit or the policy is no NDP.
            SegmentError: If the parameters are not finite.
        """
        vector = self._vector(obs, "ndp")
        (system,) = self._arrays.systems_of(vector)
        g, w = self._arrays.parameters_of(vector)
        return Segment(system, g[0], w[0], self.spec.segment_duration)

    def actions(self, obs: Observation) -> Array:
        """Return the mean actions ``(k, dof)``: displacements per control step [rad].

        Raises:
            ConfigError: If the observation does not fit.
        """
        means: Array = self._arrays.means(self._vector(obs))[0].astype(np.float64)
        return np.asarray(means * np.array(self.spec.action_scale))

    def _vector(self, obs: Observation, method: str = "") -> Array:
        """Return an observation as one row ``(1, n_obs)``."""
        if method and self.spec.method != method:
            raise ConfigError(
                f"a policy of method {self.spec.method!r} has actions but no DMP parameters"
            )
        if isinstance(obs, Mapping):
            values = {name: _numbers(name, value) for name, value in obs.items()}
            return assemble(self.spec.observation, values)[None]
        vector = _numbers("observation", obs)
        size = observation_size(self.spec.observation)
        if vector.shape != (size,):
            raise ConfigError(f"observation has shape {vector.shape}, expected ({size},)")
        return vector[None]


def _numbers(name: str, value: ArrayLike) -> Array:
    """Return an array of finite numbers.

    Raises:
        ConfigError: If it is none.
    """
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} is not an array of numbers: {error}") from error
    if not np.isfinite(array).all():
        raise ConfigError(f"{name} holds a value that is not finite")
    return array
