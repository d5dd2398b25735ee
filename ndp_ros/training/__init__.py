# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Training: methods and their learners, roll-outs, evaluation, run directories and experiments.

A run is a :class:`~ndp_ros.training.config.RunConfig`, of which
:func:`~ndp_ros.training.experiments.shipped` returns a tuned one, given to
:func:`~ndp_ros.training.run.train`.
"""
