# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Options and processes of a running system, simulated or on an arm.

Launch files and the commands ``ndp sim`` and ``ndp run`` start what is described here.
"""
