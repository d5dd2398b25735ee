"""Which ROS domain this process is in, and whether a system like it runs there already."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from ndp_ros.errors import ConfigError

MAX_DOMAIN = 232
"""Above it, DDS runs out of port numbers."""


def domain_id(environment: Mapping[str, str] | None = None) -> int:
    """Return the value of ``ROS_DOMAIN_ID``, 0 if it is not set.

    Raises:
        ConfigError: If it is not a whole number from 0 to 232.
    """
    text = (os.environ if environment is None else environment).get("ROS_DOMAIN_ID", "") or "0"
    if text.isascii() and text.isdigit() and int(text) <= MAX_DOMAIN:
        return int(text)
    raise ConfigError(f"ROS_DOMAIN_ID is {text!r}, expected a whole number from 0 to {MAX_DOMAIN}")


def claim(node: str) -> socket.socket:
    """Claim the place of a node in this domain on this machine.

    Args:
        node: Fully qualified name, such as ``/integrator_node``.

    Returns:
        What holds the claim until it is closed or this process ends, however it ends: a
        socket in the abstract namespace, which leaves nothing behind.

    Raises:
        ConfigError: If another process has it.
    """
    domain = domain_id()
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        held.bind(f"\0ndp_ros/{domain}{node}")
    except OSError:
        held.close()
        raise ConfigError(
            f"ROS domain {domain} is in use: {node} runs there already; end it, or set "
            "ROS_DOMAIN_ID to another number"
        ) from None
    return held
