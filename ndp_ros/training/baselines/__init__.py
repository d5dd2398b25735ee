# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The off-policy learners, which need torch: TD3 over segments, and Dyn-E (TD3 in an embedding)."""
