# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Change what an action means: impedance gains, embedded sequences, wrapped environments."""
