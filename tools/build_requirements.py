# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Print what ``interfaces/pyproject.toml`` needs to build the messages from ROS wheels."""

import tomllib
from pathlib import Path

project = tomllib.loads(Path("interfaces/pyproject.toml").read_text())
print(*project["build-system"]["requires"])
