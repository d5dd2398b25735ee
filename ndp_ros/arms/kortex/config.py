"""Parameters of a Kortex arm: where it is, who logs in, and how long to wait."""

from __future__ import annotations

from dataclasses import dataclass

from ndp_ros.arms.kortex.credentials import Credentials
from ndp_ros.arms.kortex.units import GRIPPER_CLOSED
from ndp_ros.config import param


@dataclass(frozen=True)
class KortexConfig:
    """How to reach an arm and what to do with it."""

    robot_ip: str = param(doc="Address of the arm, such as 192.168.1.10; there is no default.")
    username: str = param("", doc="User name; else from the file, the environment, or admin.")
    password: str = param("", doc="Password; better in a file or in NDP_KORTEX_PASSWORD.")
    credentials_file: str = param("", doc="YAML file with username and password, mode 600.")
    driver: str = param(
        "builtin",
        doc="Client: this package's own, or vendor for Kinova's kortex_api where it is installed.",
        choices=("builtin", "vendor"),
    )
    port: int = param(10000, doc="TCP port.", minimum=1, maximum=65535)
    udp_port: int = param(10001, doc="UDP port.", minimum=1, maximum=65535)
    clear_faults: bool = param(False, doc="Clear the arm's faults when connecting.")
    dry_run: bool = param(False, doc="Read the arm but send it no command.")
    timeout: float = param(
        3.0, doc="Time for an answer outside the cycle.", unit="s", minimum=0.05, maximum=60.0
    )
    reply_timeout: float = param(
        0.002, doc="Longest wait for feedback in a tick; 60 % of the tick at most.",
        unit="s", minimum=0.0001, maximum=0.1,
    )  # fmt: skip
    feedback_timeout: float = param(
        0.25, doc="Silence after which the arm counts as unreachable.",
        unit="s", minimum=0.005, maximum=10.0,
    )  # fmt: skip
    lockstep: bool = param(
        False,
        doc="Wait for the answer to every command, however late: for an emulator whose physics "
        "goes forward with each command (its --cycle), on a machine that cannot keep time.",
    )
    gripper_speed: float = param(
        100.0, doc="Speed of the gripper, percent.", minimum=1.0, maximum=100.0
    )
    gripper_force: float = param(
        100.0, doc="Force of the gripper, percent.", minimum=0.0, maximum=100.0
    )
    grip: float | None = param(
        None,
        doc="Close the gripper to this when connecting, and start from there; none: leave it.",
        unit="rad", minimum=0.0, maximum=GRIPPER_CLOSED,
    )  # fmt: skip

    def credentials(self) -> Credentials:
        """Return who logs in.

        Raises:
            ConfigError: If the file of credentials is unusable.
        """
        return Credentials.find(self.username, self.password, self.credentials_file)
