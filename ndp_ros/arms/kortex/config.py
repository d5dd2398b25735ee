# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Parameters of a Kortex arm."""

from __future__ import annotations

from dataclasses import dataclass

from ndp_ros.config import param


@dataclass(frozen=True)
class KortexConfig:
    """Address of a Kortex arm, credentials, time-outs and gripper settings.

    It has no password: what stands in a parameter or on a command line can be read by others.
    """

    robot_ip: str = param("", doc="Address of the arm, such as 192.168.1.10; there is no default.")
    username: str = param(
        "", doc="User name; empty: from credentials_file, NDP_KORTEX_USERNAME, or the factory's."
    )
    credentials_file: str = param("", doc="YAML file with username and password, mode 600.")
    driver: str = param(
        "builtin",
        doc="Client: this package's own, or vendor for Kinova's kortex_api, where installed.",
        choices=("builtin", "vendor"),
    )
    port: int = param(10000, doc="TCP port.", minimum=1, maximum=65535)
    udp_port: int = param(10001, doc="UDP port.", minimum=1, maximum=65535)
    clear_faults: bool = param(False, doc="Clear the arm's faults when connecting.")
    dry_run: bool = param(False, doc="Read the arm but send it no command.")
    service_timeout: float = param(
        3.0, doc="Longest wait for an answer outside the cycle.", unit="s", minimum=0.05, maximum=60
    )
    reply_timeout: float = param(
        0.002, doc="Longest wait for feedback in a tick.", unit="s", minimum=0.0001, maximum=0.1
    )
    unreachable_after: float = param(
        0.25, doc="Silence after which the loop ends.", unit="s", minimum=0.005, maximum=10.0
    )
    lockstep: bool = param(
        False,
        doc="Wait for the answer to every command, however late: for an emulator whose physics "
        "advances with each command (its --cycle), on a machine that cannot keep time.",
    )
    gripper_speed: float = param(
        100.0, doc="Speed of the gripper, percent.", minimum=1.0, maximum=100.0
    )
    gripper_force: float = param(
        100.0, doc="Force of the gripper, percent.", minimum=0.0, maximum=100.0
    )
    grip: float | None = param(
        None,
        doc="Position to which the gripper is commanded first; none: it keeps its last command "
        "until its setpoint changes.",
        unit="rad",
    )
