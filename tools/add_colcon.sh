#!/bin/sh
# Install colcon, and what it needs to build the messages from ROS wheels, into the environment $1.
set -eu
cd "$(dirname "$0")/.."
pins=$1/constraints.txt
[ -f "$pins" ] || pins=constraints.txt
grep -v '^setuptools' "$pins" >"$1/colcon.txt"
"$1/bin/pip" install --quiet --disable-pip-version-check -c "$1/colcon.txt" \
    colcon-common-extensions 'setuptools<80' cmake $("$1/bin/python" tools/build_requirements.py)
