# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Write digits (section 5.1): the data set, the networks that draw it and their training."""
