# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Proximal Policy Optimisation over windows of k actions, section 3.4 of the paper.

A *window* is the k actions of one forward pass of phi, from one observation. Each of them is a
sample with its own probability ratio, its own advantage and, under the multi-action critic, its own
value head. Arrays are ``(k, dof, windows)`` and ``(k, windows)``.

With noise of the segment the window is one sample: k is 1 here, ``dof`` are the curve amounts of
all joints, the reward is the discounted one of the segment, and gamma is that of its k steps.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ndp_ros.errors import TrainingError
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.policies.layout import LOG_STD, Array
from ndp_ros.training.config import PpoConfig
from ndp_ros.training.exploration import WindowNoise

_LOG_2PI = math.log(2.0 * math.pi)
_TERMS = ("policy_loss", "value_loss", "entropy", "clipped", "kl")
"""Fields of :class:`Losses` that are columns of the log."""
_KL = _TERMS.index("kl")
_RATE_FACTOR, _LOWEST_RATE, _HIGHEST_RATE = 1.2, 1e-6, 1e-2
"""Factor and bounds of the adaptive step size."""
_BETAS = (0.9, 0.999)


def advantages(
    rewards: Array,
    values: Array,
    following: Array,
    terminated: Array,
    ended: Array,
    gamma: float,
    lam: float,
) -> Array:
    """Return generalised advantages ``(windows, environments, k)``, step by step.

    Inside a window the next value is that of the next head; at its end it is the first head's at
    the next observation, or zero if the episode terminated.

    Rewards and values are ``(windows, environments, k)``. The others are ``(windows,
    environments)``: the first value of the observation after each window, whether it ended in a
    terminal state, and whether the episode ended with it, terminated or truncated.
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


def segment_rewards(rewards: Array, gamma: float) -> Array:
    """Return the rewards of whole segments ``(..., 1)`` for those of k steps ``(..., k)``.

    With them, values of the first step and gamma^k, :func:`advantages` are those of the decision
    to run a segment.
    """
    total: Array = rewards @ gamma ** np.arange(rewards.shape[-1])
    return total[..., None]


def log_prob(actions: Array, means: Array, log_std: Array) -> Array:
    """Return log-densities ``(k, windows)`` of actions ``(k, dof, windows)``."""
    z = (actions - means) * np.exp(-log_std)[:, None]
    density: Array = -0.5 * np.add.reduce(z * z, axis=1)
    density -= log_std.sum() + 0.5 * len(log_std) * _LOG_2PI
    return density


@dataclass
class Batch:
    """The b windows of one update.

    Attributes:
        x: Normalised observations ``(n_obs, b)``.
        actions: Actions minus the drift, whitened ``(k, dof, b)``.
        log_prob: Log-densities under the policy that acted ``(k, b)``.
        values: Values under that policy ``(k, b)``.
        returns: Targets of the critic ``(k, b)``.
        advantages: Normalised advantages ``(k, b)``.
        means: Relative means of the policy that acted, whitened ``(k, dof, b)``.
    """

    x: Array
    actions: Array
    log_prob: Array
    values: Array
    returns: Array
    advantages: Array
    means: Array

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
    """Terms of a minibatch's loss and gradients of their weighted sum."""

    policy_loss: float
    value_loss: float
    entropy: float
    clipped: float
    kl: float
    d_means: Array
    d_log_std: Array
    d_values: Array


def losses(
    batch: Batch,
    means: Array,
    log_std: Array,
    values: Array,
    config: PpoConfig,
    acted_log_std: Array | None = None,
) -> Losses:
    """Compute PPO's loss terms and their gradients for one minibatch.

    ::

        policy  = -mean min(r A, clip(r, 1 - c, 1 + c) A),   r = pi / pi_old
        value   = mean 1/2 max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2)
        total   = policy + value_coefficient value - entropy_coefficient entropy
        kl      = mean sum log(s / s_old) + (s_old^2 + (mu - mu_old)^2) / (2 s^2) - 1/2

    Whitened relative means ``(k, dof, b)``, log-deviations ``(dof,)`` and values ``(heads, b)``, of
    which a single head serves all sub-steps, are those of the current parameters. The policy that
    acted had ``acted_log_std``, if they have changed since.
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
    squared, d_values = _value_errors(batch, values, config)
    d_values = d_values * d_values.dtype.type(config.value * share)
    if len(values) == 1:
        d_values = d_values.sum(0, keepdims=True)
    return Losses(
        policy_loss=-share * float(np.minimum(free, bound).sum()),
        value_loss=0.5 * share * float(np.vdot(squared, squared)),
        entropy=float(log_std.sum()) + 0.5 * len(log_std) * (1.0 + _LOG_2PI),
        clipped=share * float(np.count_nonzero(np.abs(ratio - 1.0) > config.clip)),
        kl=_divergence(batch.means, means, acted_log_std, log_std) * share,
        d_means=d_means,
        d_log_std=d_log_std,
        d_values=d_values,
    )


def _value_errors(batch: Batch, values: Array, config: PpoConfig) -> tuple[Array, Array]:
    """Return the errors of the values whose squares count, and those through which they learn."""
    error = values - batch.returns
    if not config.clip_value:
        return error, error
    change = values - batch.values
    kept = np.minimum(np.maximum(change, -config.clip), config.clip)
    other = batch.values + kept - batch.returns
    worse = other * other > error * error
    counted = np.where(worse, other, error)
    return counted, np.where(worse & (change != kept), 0.0, counted)


def _divergence(old: Array, new: Array, old_log_std: Array | None, log_std: Array) -> float:
    """Return the KL from the policy that acted to the present one, summed over all samples."""
    moved = new - old
    moved *= np.exp(-log_std)[:, None]
    total = 0.5 * float(np.vdot(moved, moved))
    if old_log_std is not None:
        wider = (log_std - old_log_std).astype(np.float64)
        k, _, b = old.shape
        total += k * b * float((wider + 0.5 * np.exp(-2.0 * wider) - 0.5).sum())
    return total


class Learner:
    """A policy, trained in place, and its optimiser, with the schedule's step size ``rate``."""

    def __init__(self, policy: ArrayPolicy, config: PpoConfig, learn_std: bool = True) -> None:
        """Start with zero moments; the standard deviations are trained if ``learn_std``."""
        self.policy = policy
        self.config = config
        self._learn_std = learn_std
        self.rate = config.learning_rate
        self.adam = Adam(policy.layout.size, policy.dtype, eps=config.adam_eps)
        self._log_std = policy.parameters[LOG_STD]
        rows = policy.spec.decision[0]
        self._noise = WindowNoise(rows, config.noise_correlation, policy.dtype)

    def update(self, batch: Batch, rng: np.random.Generator, progress: float) -> dict[str, float]:
        """Run all epochs over one batch and return the means of their figures.

        ``progress`` is the part of the run that is done, 0 to 1, for the schedule.

        Raises:
            TrainingError: If a gradient is not finite.
        """
        config, noise = self.config, self._noise
        if config.schedule == "linear":
            self.rate = config.learning_rate * (1.0 - progress)
        edges = np.linspace(0, batch.windows, min(config.minibatches, batch.windows) + 1)
        starts = edges.astype(int).tolist()
        rows = []
        steps = len(starts) - 1
        acted = self._log_std.copy() if self._learn_std else None
        for _ in range(config.epochs):
            shuffled = batch.take(rng.permutation(batch.windows))
            for start, stop in itertools.pairwise(starts):
                part = shuffled.part(start, stop)
                step = self.policy.run(part.windows)
                means, values = step.forward(part.x)
                whitened = noise.whiten(means)
                terms = losses(part, whitened, self._log_std, values, config, acted)
                gradient = step.backward(noise.pull_back(terms.d_means), terms.d_values)
                step.slopes[LOG_STD][:] = terms.d_log_std if self._learn_std else 0.0
                norm = clip_norm(gradient, config.max_grad_norm)
                if not math.isfinite(norm):
                    raise TrainingError(
                        f"the gradient is not finite (norm {norm}): lower learning_rate"
                    )
                self.adam.step(self.policy.flat, gradient, self.rate)
                rows.append((*(getattr(terms, name) for name in _TERMS), norm))
            kl = float(np.mean([row[_KL] for row in rows[-steps:]]))
            if config.schedule == "adaptive":
                self._adapt(kl)
            elif config.target_kl and kl > config.target_kl:
                break
        averages = np.mean(rows, axis=0).tolist()
        figures = dict(zip((*_TERMS, "grad_norm"), averages, strict=True))
        return {**figures, "learning_rate": self.rate, "epochs": len(rows) / steps}

    def _adapt(self, kl: float) -> None:
        """Lower the step size after an epoch with a large KL, raise it after a small one."""
        if kl > 2.0 * self.config.target_kl:
            self.rate = max(self.rate / _RATE_FACTOR, _LOWEST_RATE)
        elif kl < 0.5 * self.config.target_kl:
            self.rate = min(self.rate * _RATE_FACTOR, _HIGHEST_RATE)


def make_batch(
    policy: ArrayPolicy,
    obs: Array,
    actions: Array,
    rewards: Array,
    values: Array,
    following: Array,
    terminated: Array,
    ended: Array,
    config: PpoConfig,
) -> Batch:
    """Return a batch for the learner from time-major roll-outs.

    Raw observations are ``(windows, environments, n_obs)``, decisions ``(windows, environments, k,
    dof)``; the other arrays are those of :func:`advantages`. The policy has the normaliser that it
    acted with.
    """
    gains = advantages(
        rewards, values, following, terminated, ended, config.gamma, config.gae_lambda
    )

    def flat(array: Array) -> Array:
        return array.reshape(-1, array.shape[-1]).T

    flat_obs = obs.reshape(-1, obs.shape[-1])
    noise = WindowNoise(policy.spec.decision[0], config.noise_correlation, policy.dtype)
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
        "means": means.copy(),  # the next pass of this size overwrites them
    }
    return Batch(**{n: np.ascontiguousarray(a, policy.dtype) for n, a in columns.items()})


class Adam:
    """Adam (Kingma and Ba, Algorithm 1) with buffers made once.

    Attributes:
        m: First moment ``(size,)``.
        v: Second moment ``(size,)``.
        steps: Number of steps taken.
    """

    def __init__(self, size: int, dtype: Any, eps: float = 1e-5) -> None:
        self.m: Array = np.zeros(size, dtype)
        self.v: Array = np.zeros(size, dtype)
        self.steps = 0
        self._eps = eps
        self._slack: Array = np.empty(size, dtype)

    def step(self, parameters: Array, gradient: Array, learning_rate: float) -> None:
        """Move the parameters ``(size,)`` one step down the gradient, which is overwritten."""
        b1, b2 = _BETAS
        self.steps += 1
        slack = self._slack
        self.m *= b1
        np.multiply(gradient, 1.0 - b1, out=slack)
        self.m += slack
        self.v *= b2
        np.multiply(gradient, gradient, out=gradient)
        gradient *= 1.0 - b2
        self.v += gradient
        np.multiply(self.v, 1.0 / (1.0 - b2**self.steps), out=slack)
        np.sqrt(slack, out=slack)
        slack += self._eps
        np.divide(self.m, slack, out=slack)
        slack *= learning_rate / (1.0 - b1**self.steps)
        parameters -= slack


def clip_norm(gradient: Array, maximum: float) -> float:
    """Scale a gradient ``(size,)`` in place to a norm of at most ``maximum``; return its norm."""
    norm = math.sqrt(float(np.dot(gradient, gradient)))
    if norm > maximum:
        gradient *= maximum / (norm + 1e-6)
    return norm
