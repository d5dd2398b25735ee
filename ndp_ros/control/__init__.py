# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Control: Ω from setpoints to commands, rigid-body models, limits, confirmed measurements.

The arm protocol is here as well, so that control knows no backend.
"""
