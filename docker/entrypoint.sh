#!/bin/bash
# Run a command with ROS 2, the workspace and the virtual environment.
set -e
. "/opt/ros/$ROS_DISTRO/setup.bash"
. /ws/install/setup.bash
export PATH="$VIRTUAL_ENV/bin:$PATH"
exec "$@"
