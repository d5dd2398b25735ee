# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Drive an arm by the action chunks of a LeRobot policy, or of any with its two methods.

`python examples/lerobot_chunks.py` fits chunks of a small ACT (without lerobot, of a stand-in) and
prints the steps at hand-overs; with `--ros` it publishes them for `ndp sim --policy chunks`.
"""

import sys
import time
from typing import Any

import numpy as np
import torch

from ndp_ros import fit_segment

K, DOF, PERIOD, DELAY = 16, 7, 0.05, 0.08  # way points, joints, their period [s], inference [s]


def chunk_of(policy: Any, batch: dict[str, torch.Tensor]) -> np.ndarray:
    """Return the next K joint positions (K, dof) [rad] for a batch of one observation."""
    with torch.no_grad():
        if hasattr(policy, "predict_action_chunk"):
            return policy.predict_action_chunk(batch)[0, :K].numpy()
        policy.reset()  # select_action hands out one chunk action by action
        return np.stack([policy.select_action(batch)[0].numpy() for _ in range(K)])


class StandIn:
    """A policy with the method that LeRobot's have, for machines without the package."""

    def predict_action_chunk(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return a slow wave about the observed joints (1, K, DOF)."""
        t = PERIOD * torch.arange(1, K + 1)[:, None]
        return batch["observation.state"] + 0.1 * torch.sin(2.0 * t)[None]


def small_act() -> Any:
    """Return an untrained ACT for joint positions, or the stand-in."""
    try:
        from lerobot.configs.types import FeatureType, PolicyFeature
        from lerobot.policies.act.configuration_act import ACTConfig
        from lerobot.policies.act.modeling_act import ACTPolicy
    except ImportError as error:
        print(f"lerobot is not installed ({error}): a stand-in drives")
        return StandIn()
    seen = {"observation.state": PolicyFeature(FeatureType.STATE, (DOF,))}
    seen["observation.environment_state"] = PolicyFeature(FeatureType.ENV, (3,))
    made = {"action": PolicyFeature(FeatureType.ACTION, (DOF,))}
    small: dict[str, Any] = {"dim_model": 64, "chunk_size": K, "n_action_steps": K, "device": "cpu"}
    return ACTPolicy(ACTConfig(input_features=seen, output_features=made, **small)).eval()


def observation(position: Any) -> dict[str, torch.Tensor]:
    """Return a batch of one observation of the joints (dof,) [rad]."""
    state = torch.tensor(position, dtype=torch.float32)[None]
    return {"observation.state": state, "observation.environment_state": torch.zeros(1, 3)}


def offline(policy: Any) -> None:
    """Follow a chunk every 50 ms, each one late, and print the steps at the hand-overs."""
    (y, yd, ydd), worst = np.zeros((3, DOF)), np.zeros(2)
    for _ in range(20):
        chunk = chunk_of(policy, observation(y))
        fit = fit_segment(chunk, PERIOD, y, yd, ydd0=ydd, age=DELAY, duration=1.0, smoothing=0.05)
        start = np.stack(fit.motion.sample(0.0))
        worst = np.maximum(worst, np.abs(start[1:] - np.stack((yd, ydd))).max(axis=1))
        y, yd, ydd = fit.motion.sample(PERIOD)
    print(f"largest steps: {worst[0]:.1e} rad/s, {worst[1]:.1e} rad/s^2; last {fit.residual=:.4f}")


def over_ros(policy: Any, seconds: float = 10.0) -> None:
    """Publish a chunk every 50 ms, computed from the setpoint of a running system."""
    import rclpy
    from builtin_interfaces.msg import Duration
    from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

    rclpy.init()
    node, heard = rclpy.create_node("lerobot_policy"), []
    node.create_subscription(JointTrajectory, "ndp/setpoint", heard.append, 1)
    publisher = node.create_publisher(JointTrajectory, "ndp/chunk", 1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=PERIOD)
        while heard:
            seen = heard.pop()
            message = JointTrajectory(header=seen.header, joint_names=seen.joint_names)
            chunk = chunk_of(policy, observation(seen.points[0].positions))
            for i, row in enumerate(chunk.tolist(), start=1):
                due = Duration(nanosec=int(i * PERIOD * 1e9))
                message.points.append(JointTrajectoryPoint(positions=row, time_from_start=due))
            publisher.publish(message)
            time.sleep(PERIOD)


if __name__ == "__main__":
    (over_ros if "--ros" in sys.argv else offline)(small_act())
