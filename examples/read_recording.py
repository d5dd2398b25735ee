# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Read the recording of an episode: how well the plan was tracked, and what moved.

`ndp sim` writes one `.npz` an episode into `out/recordings/`. Without an argument this example
simulates a throw of the shipped policy and records it first. Recordings in MCAP (`record:=mcap`)
are read by `ndp plot` and any ROS tool.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ndp_ros.paths import find_checkpoint
from ndp_ros.tasks.recording import Recording
from ndp_ros.training.evaluate import record


def main() -> None:
    """Print the figures of a recording."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "recording", nargs="?", type=Path, help="file, such as out/recordings/0.npz"
    )
    path = parser.parse_args().recording
    if path is None:
        path = Path("throw.npz")
        record(find_checkpoint("jaco_throw"), seed=7).save(path)

    recording = Recording.load(path)
    t = np.array(recording.times)  # (n,) [s] on the arm's clock
    measured, planned = np.array(recording.position), np.array(recording.setpoint)  # (n, dof) [rad]
    outcome = {True: "success", False: "failure", None: "outcome unknown"}[recording.success]
    print(f"{path}: {len(t)} samples over {t[-1] - t[0]:.2f} s, {outcome}")

    error = 1000.0 * (planned - measured)
    for name, column in zip(recording.joint_names, error.T, strict=True):
        print(f"  {name:20} {np.sqrt(np.mean(column**2)):6.2f} mrad rms behind its setpoint")

    starts = ", ".join(f"{start:.2f}" for start in recording.segments[:4])
    print(f"  {len(recording.segments)} segments, from {starts}, ... s on")

    for name in recording.objects:
        way = recording.path_of(name)
        print(f"  {name}: from {way[0].round(2)} to {way[-1].round(2)} m in the arm's frame")


if __name__ == "__main__":
    main()
