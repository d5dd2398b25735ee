# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Wrap Meta-World's environments as tasks whose actions are joint or hand positions."""
