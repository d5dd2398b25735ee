# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Load a trained policy, roll it out in its task and print how its segments are tracked.

`load_policy` needs no torch: it returns the segment of an observation, goal g and weights w of a
DMP, which is sampled at any time and executed by the simulated arm.
"""

from __future__ import annotations

import argparse

from ndp_ros import load_policy, make


def main() -> None:
    """Run some episodes of a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", nargs="?", default="jaco_throw", help="folder or name")
    parser.add_argument("--episodes", type=int, default=3, help="episodes (default: 3)")
    args = parser.parse_args()

    policy = load_policy(args.checkpoint)
    env = make(policy.spec.task, k=policy.spec.k)
    task = env.unwrapped
    print(
        f"{policy.spec.task} on {policy.spec.arm}: a segment of {policy.spec.segment_duration:g} s"
    )
    for seed in range(args.episodes):
        obs, _ = env.reset(seed=seed)
        over, ticks = False, 0
        while not over:
            segment = policy.segment(obs)
            motion = segment.bind(*task.setpoint)  # continues in position and velocity
            setpoints = motion.setpoints(task.segment_times)  # (n, 3, dof): y, yd, ydd
            obs, _, terminated, truncated, info = task.execute(setpoints)
            over, ticks = terminated or truncated, ticks + len(setpoints)
        outcome = info["outcome"]
        print(
            f"seed {seed}: {'success' if outcome['success'] else 'FAILURE'} after {ticks} ticks, "
            f"tracking error {1000 * outcome['tracking_rms']:.1f} mrad rms, "
            f"fastest joint {outcome['max_joint_speed']:.2f} rad/s"
        )
    env.close()


if __name__ == "__main__":
    main()
