# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Arms: the backends of the arm protocol.

The simulated arm and the mock are here; ``kortex`` and ``ros2_control`` drive real ones.
"""
