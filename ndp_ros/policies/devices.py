# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The device on which torch learns, by the name that an option gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ndp_ros.errors import ConfigError

if TYPE_CHECKING:
    import torch

DEVICES = ("cpu", "cuda", "auto")


def torch_device(name: str) -> torch.device:
    """Return a device by its name, a value of ``DEVICES``; ``auto`` is cuda where there is one.

    Raises:
        ConfigError: If this torch has no such device; the message says what it offers.
    """
    import torch

    if name not in DEVICES:
        raise ConfigError.choice("device", name, DEVICES)
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        built = torch.backends.cuda.is_built()
        reason = "finds no GPU with a driver" if built else "is built without CUDA"
        raise ConfigError(
            f"device is cuda, but this torch ({torch.__version__}) {reason}: it offers cpu, and "
            "auto takes the best there is"
        )
    return torch.device("cuda" if found and name != "cpu" else "cpu")
