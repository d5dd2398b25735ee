# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The real-time side: the loop process, its guard, its clock and its shared memory.

A parent starts a loop by a :class:`StreamerHandle` of a :class:`StreamSpec` and sends it segments.
"""
