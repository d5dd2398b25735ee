"""Arms: one protocol, and the backends behind it."""

import ctypes.util
import os

# Without a screen MuJoCo draws only if it is told how before its first import.
if (
    "MUJOCO_GL" not in os.environ
    and not os.environ.get("DISPLAY")
    and os.name == "posix"
    and ctypes.util.find_library("OSMesa")
):
    os.environ["MUJOCO_GL"] = "osmesa"
