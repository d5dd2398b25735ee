# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The look of every picture: fonts, colours and sizes, and how a picture is written."""
