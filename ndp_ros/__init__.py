"""Neural Dynamic Policies for robot arms under ROS 2."""

from ndp_ros.errors import NdpError

__version__ = "0.1.0"

__all__ = ["NdpError", "__version__"]
