"""Proximal Policy Optimisation over windows of k actions, section 3.4 of the paper.

A *window* is what one forward pass of phi yields: k actions from one observation. Each
of the k actions is a sample of its own, with its own probability ratio, advantage and,
under the multi-action critic, its own value head. Arrays are ``(k, dof, windows)`` and
``(k, windows)``.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_ros.config import param
from ndp_ros.errors import ConfigError, TrainingError
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import LOG_STD
from ndp_ros.training.adam import Adam, clip_norm
from ndp_ros.training.exploration import WindowNoise

Array = NDArray[Any]

_LOG_2PI = math.log(2.0 * math.pi)

_FIGURES = ("policy_loss", "value_loss", "entropy", "clipped", "approx_kl", "grad_norm")
_KL = _FIGURES.index("approx_kl")

_CHANGE, _SLOWEST, _FASTEST = 1.2, 1e-6, 1e-2
"""Factor and bounds of the adaptive step size."""


@dataclass(frozen=True)
class PpoConfig:
    """Hyper-parameters of PPO; the defaults are the paper's table (A.2)."""

    batch_size: int = param(2048, doc="Control steps per update, all environments.", minimum=1)
    minibatches: int = param(32, doc="Minibatches per epoch.", minimum=1)
    epochs: int = param(10, doc="Passes over each batch.", minimum=1)
    clip: float = param(0.1, doc="Clip of the probability ratio.", minimum=0.0, maximum=10)
    clip_value: bool = param(True, doc="Clip the change of values by the same amount.")
    gamma: float = param(0.99, doc="Discount per control step.", minimum=0.0, maximum=1.0)
    gae_lambda: float = param(0.95, doc="Lambda of GAE.", minimum=0.0, maximum=1.0)
    learning_rate: float = param(3e-4, doc="Step size of Adam.", minimum=0.0)
    schedule: str = param(
        "constant",
        doc="Step size over the run; adaptive: raised or lowered to keep the KL at target_kl.",
        choices=("constant", "linear", "adaptive"),
    )
    adam_eps: float = param(1e-5, doc="Epsilon of Adam.", minimum=0.0)
    target_kl: float = param(
        0.0, doc="KL of an epoch that ends the update, or is aimed at; 0: none.", minimum=0.0
    )
    entropy: float = param(0.0, doc="Entropy coefficient.", minimum=0.0)
    value: float = param(0.5, doc="Value loss coefficient.", minimum=0.0)
    max_grad_norm: float = param(0.5, doc="Largest norm of the gradient.", minimum=0.0)
    noise_correlation: float = param(
        0.0, doc="Correlation of a window's noise from one action to the next (paper: 0).",
        minimum=0.0, maximum=0.99,
    )  # fmt: skip
    normalise_observations: bool = param(True, doc="Normalise by running mean and deviation.")
    normalise_returns: bool = param(True, doc="Scale rewards by the deviation of the return.")

    def __post_init__(self) -> None:
        """Check that the schedule has what it needs."""
        if self.schedule == "adaptive" and self.target_kl == 0.0:
            raise ConfigError("schedule adaptive needs target_kl, such as 0.01")


def advantages(
    rewards: Array, values: Array, following: Array, terminated: Array, ended: Array,
    gamma: float, lam: float,
) -> Array:  # fmt: skip
    """Return generalised advantages ``(windows, environments, k)``, step by step.

    Inside a window the next value is that of the next head; at its end it is the first
    head at the next observation, or nothing where the episode terminated.

    Args:
        rewards: Rewards ``(windows, environments, k)``.
        values: Values of the same shape.
        following: First value of the observation that each window led to,
            ``(windows, environments)``.
        terminated: Whether the window ended in a terminal state, ``(windows, environments)``.
        ended: Whether an episode ended with the window, for whatever reason.
        gamma: Discount per control step.
        lam: Lambda of GAE.
    """
    result = np.empty_like(rewards)
    windows, environments, k = rewards.shape
    trace = np.zeros(environments, rewards.dtype)
    for t in range(windows - 1, -1, -1):
        trace = np.where(ended[t], 0.0, trace)
        ahead = np.where(terminated[t], 0.0, following[t])
        for i in range(k - 1, -1, -1):
            delta = rewards[t, :, i] + gamma * ahead - values[t, :, i]
            trace = delta + gamma * lam * trace
            result[t, :, i] = trace
            ahead = values[t, :, i]
    return result


def log_prob(actions: Array, means: Array, log_std: Array) -> Array:
    """Return log-densities ``(k, windows)`` of actions ``(k, dof, windows)``."""
    z = (actions - means) * np.exp(-log_std)[:, None]
    density: Array = -0.5 * np.add.reduce(z * z, axis=1)
    density -= log_std.sum() + 0.5 * len(log_std) * _LOG_2PI
    return density


@dataclass
class Batch:
    """What one update learns from; b windows.

    Attributes:
        x: Normalised observations ``(n_obs, b)``.
        actions: Actions without drift, whitened ``(k, dof, b)``.
        log_prob: Log-densities under the policy that acted ``(k, b)``.
        values: Values at that time ``(k, b)``.
        returns: Targets of the critic ``(k, b)``.
        advantages: Normalised advantages ``(k, b)``.
    """

    x: Array
    actions: Array
    log_prob: Array
    values: Array
    returns: Array
    advantages: Array

    @property
    def windows(self) -> int:
        """Number of windows b."""
        return int(self.x.shape[-1])

    def take(self, index: Array) -> Batch:
        """Return copies of the windows of an index array."""
        return Batch(*(np.take(a, index, axis=-1) for a in vars(self).values()))

    def part(self, start: int, stop: int) -> Batch:
        """Return views of consecutive windows."""
        return Batch(*(a[..., start:stop] for a in vars(self).values()))


@dataclass
class Losses:
    """The terms of one minibatch's loss and the gradients of their weighted sum."""

    policy: float
    value: float
    entropy: float
    clipped: float
    approx_kl: float
    d_means: Array
    d_log_std: Array
    d_values: Array


def losses(batch: Batch, means: Array, log_std: Array, values: Array, config: PpoConfig) -> Losses:
    """Return PPO's terms and gradients for one minibatch.

    ::

        policy  = -mean min(r A, clip(r, 1 - c, 1 + c) A),   r = pi / pi_old
        value   = mean 1/2 max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2)
        total   = policy + value_coefficient value - entropy_coefficient entropy

    Args:
        batch: The minibatch.
        means: Relative means ``(k, dof, b)`` under the present parameters, whitened.
        log_std: Log-deviations ``(dof,)``.
        values: Values ``(heads, b)``; one head counts for all sub-steps.
        config: Clip and coefficients.
    """
    k, b = batch.advantages.shape
    share = 1.0 / (k * b)
    inverse = np.exp(-log_std)[:, None]
    z = (batch.actions - means) * inverse
    squares = z * z
    log_density = -0.5 * np.add.reduce(squares, axis=1)
    log_density -= log_std.sum() + 0.5 * len(log_std) * _LOG_2PI
    log_ratio = log_density - batch.log_prob
    ratio = np.exp(log_ratio)
    free = ratio * batch.advantages
    bound = np.minimum(np.maximum(ratio, 1.0 - config.clip), 1.0 + config.clip) * batch.advantages
    d_log = free * -share
    d_log *= free <= bound
    z *= d_log[:, None, :]
    d_means = z * inverse
    squares -= 1.0
    d_log_std = np.einsum("kdb,kb->d", squares, d_log) - config.entropy

    change = values - batch.values
    error = values - batch.returns
    if config.clip_value:
        kept = np.minimum(np.maximum(change, -config.clip), config.clip)
        other = batch.values + kept - batch.returns
        inside = change == kept
        worse = other * other > error * error
        squared = np.where(worse, other, error)
        d_values = np.where(worse & ~inside, 0.0, squared)
    else:
        squared = d_values = error
    d_values = d_values * d_values.dtype.type(config.value * share)
    if len(values) == 1:
        d_values = d_values.sum(0, keepdims=True)
    return Losses(
        policy=-share * float(np.minimum(free, bound).sum()),
        value=0.5 * share * float(np.vdot(squared, squared)),
        entropy=float(log_std.sum()) + 0.5 * len(log_std) * (1.0 + _LOG_2PI),
        clipped=share * float(np.count_nonzero(np.abs(ratio - 1.0) > config.clip)),
        approx_kl=share * float((ratio - 1.0 - log_ratio).sum()),
        d_means=d_means,
        d_log_std=d_log_std,
        d_values=d_values,
    )


class Learner:
    """A policy and its optimiser.

    Attributes:
        policy: The policy that is trained, in place.
        adam: Its optimiser.
        rate: Step size, which the schedules change.
    """

    def __init__(self, policy: ArrayPolicy, config: PpoConfig, learn_std: bool = True) -> None:
        """Start with fresh moments.

        Args:
            policy: The policy to train.
            config: Hyper-parameters.
            learn_std: Whether gradients reach the deviations.
        """
        self.policy = policy
        self.config = config
        self._learn_std = learn_std
        self.rate = config.learning_rate
        self.adam = Adam(policy.layout.size, policy.dtype, eps=config.adam_eps)
        self._log_std = policy.parameters[LOG_STD]
        self._noise = WindowNoise(policy.spec.k, config.noise_correlation, policy.dtype)

    def update(self, batch: Batch, rng: np.random.Generator, progress: float) -> dict[str, float]:
        """Run all epochs over one batch and return the means of their figures.

        Args:
            batch: The windows that the present policy collected.
            rng: Order of the windows.
            progress: Part of the run that is done, 0 to 1, for the schedule.

        Raises:
            TrainingError: If a gradient is not finite.
        """
        config = self.config
        if config.schedule == "linear":
            self.rate = config.learning_rate * (1.0 - progress)
        edges = np.linspace(0, batch.windows, min(config.minibatches, batch.windows) + 1)
        starts = edges.astype(int).tolist()
        rows = []
        steps = len(starts) - 1
        for _ in range(config.epochs):
            shuffled = batch.take(rng.permutation(batch.windows))
            for start, stop in itertools.pairwise(starts):
                rows.append(self._step(shuffled.part(start, stop)))
            kl = float(np.mean([row[_KL] for row in rows[-steps:]]))
            if config.schedule == "adaptive":
                self._adapt(kl)
            elif config.target_kl and kl > config.target_kl:
                break
        figures = dict(zip(_FIGURES, np.mean(rows, axis=0).tolist(), strict=True))
        return {**figures, "learning_rate": self.rate, "epochs": len(rows) / steps}

    def _adapt(self, kl: float) -> None:
        """Lower the step size after an epoch that went too far, raise it after a timid one."""
        if kl > 2.0 * self.config.target_kl:
            self.rate = max(self.rate / _CHANGE, _SLOWEST)
        elif kl < 0.5 * self.config.target_kl:
            self.rate = min(self.rate * _CHANGE, _FASTEST)

    def _step(self, batch: Batch) -> tuple[float, ...]:
        step = self.policy.run(batch.windows)
        means, values = step.forward(batch.x)
        white = self._noise.whiten(means)
        terms = losses(batch, white, self._log_std, values, self.config)
        gradient = step.backward(self._noise.pull_back(terms.d_means), terms.d_values)
        step.slopes[LOG_STD][:] = terms.d_log_std if self._learn_std else 0.0
        norm = clip_norm(gradient, self.config.max_grad_norm)
        if not math.isfinite(norm):
            raise TrainingError(f"the gradient is not finite (norm {norm}): lower learning_rate")
        self.adam.step(self.policy.flat, gradient, self.rate)
        return (terms.policy, terms.value, terms.entropy, terms.clipped, terms.approx_kl, norm)


def make_batch(
    policy: ArrayPolicy, obs: Array, actions: Array, rewards: Array, values: Array,
    following: Array, terminated: Array, ended: Array, config: PpoConfig,
) -> Batch:  # fmt: skip
    """Return a batch for the learner from time-major roll-outs.

    Args:
        policy: The policy that acted, with the normaliser it acted with.
        obs: Raw observations ``(windows, environments, n_obs)``.
        actions: Actions ``(windows, environments, k, dof)``.
        rewards: Scaled rewards ``(windows, environments, k)``.
        values: Values of the same shape.
        following: As in :func:`advantages`, with ``terminated`` and ``ended``.
        terminated: See there.
        ended: See there.
        config: Discount, lambda and how the noise of a window is correlated.
    """
    gains = advantages(
        rewards, values, following, terminated, ended, config.gamma, config.gae_lambda
    )

    def flat(array: Array) -> Array:
        return array.reshape(-1, array.shape[-1]).T

    flat_obs = obs.reshape(-1, obs.shape[-1])
    noise = WindowNoise(policy.spec.k, config.noise_correlation, policy.dtype)
    relative = actions.reshape(-1, *actions.shape[2:]).transpose(1, 2, 0) - policy.drift(flat_obs)
    relative = noise.whiten(relative)
    x = policy.normalise(flat_obs)
    means = noise.whiten(policy.run(len(flat_obs)).actor(x))
    columns = {
        "x": x,
        "actions": relative,
        "log_prob": log_prob(relative, means, policy.parameters[LOG_STD]),
        "values": flat(values),
        "returns": flat(values + gains),
        "advantages": flat((gains - gains.mean()) / (gains.std() + 1e-8)),
    }
    return Batch(**{n: np.ascontiguousarray(a, policy.dtype) for n, a in columns.items()})
