# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The subcommands of ``ndp``, one module each; ``ndp_ros.cli`` has the table."""
