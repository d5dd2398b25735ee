# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The Kortex emulator: the protocol over real sockets, with MuJoCo physics behind it.

:class:`EmulatorProcess` runs it as a process, for tests and ``ndp emulate kortex``.
"""
