"""The simulated Jaco throws cubes: ``ros2 launch ndp_ros sim.launch.py``.

Ends by itself once all throws are made; ``--show-args`` explains the arguments.
"""

from ndp_ros.launching import description


def generate_launch_description():
    return description("sim")
