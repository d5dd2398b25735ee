# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Parameters of the emulator."""

from __future__ import annotations

from dataclasses import dataclass

from ndp_ros.config import param


@dataclass(frozen=True)
class NetworkConfig:
    """Disturbances of UDP datagrams, in each direction."""

    loss: float = param(0.0, doc="Share of lost datagrams.", minimum=0.0, maximum=1.0)
    delay: float = param(0.0, doc="Constant delay.", unit="s", minimum=0.0, maximum=10.0)
    jitter: float = param(
        0.0, doc="Largest random delay on top, uniform.", unit="s", minimum=0.0, maximum=10.0
    )
    reorder: float = param(
        0.0, doc="Share of datagrams that later ones overtake.", minimum=0, maximum=1
    )
    hold: float = param(0.003, doc="Delay of overtaken datagrams.", unit="s", minimum=0.0)
    burst_every: float = param(0.0, doc="Period of bursts of delay; 0: none.", unit="s", minimum=0)
    burst_delay: float = param(0.0, doc="Delay at the start of a burst.", unit="s", minimum=0.0)
    seed: int = param(0, doc="Seed of everything random.", minimum=0)


@dataclass(frozen=True)
class EmulatorConfig:
    """An emulated arm."""

    arm: str = param("gen3", doc="Arm, a file in config/arms.")
    host: str = param("127.0.0.1", doc="Address to listen on.")
    port: int = param(10000, doc="TCP port; 0 takes a free one.", minimum=0, maximum=65535)
    udp_port: int = param(10001, doc="UDP port; 0 takes a free one.", minimum=0, maximum=65535)
    control_port: int = param(
        0, doc="TCP port for experiments; 0 takes a free one.", minimum=0, maximum=65535
    )
    username: str = param("admin", doc="The only user.")
    password: str = param("admin", doc="The user's password.")
    scene: str = param("", doc="Scene with objects, such as throw-gen3; empty: only the arm.")
    scene_seed: int = param(0, doc="Seed of the scene's start state.", minimum=0)
    timestep: float = param(
        0.001, doc="Physics step and servo period.", unit="s", minimum=0.0005, maximum=0.002
    )
    cycle: float = param(
        0.0, doc="Physics per cyclic command; 0: real time.", unit="s", minimum=0.0, maximum=0.02
    )
    watchdog: float = param(
        0.1, doc="Silence that ends low-level servoing.", unit="s", minimum=0.002, maximum=10.0
    )
    following_error: float = param(
        0.0873, doc="Position error that trips an actuator.", unit="rad", minimum=0.001
    )
    overspeed: float = param(
        1.0, doc="Scale of the speed that trips an actuator, 120 and 200 deg/s.", minimum=0.1
    )
    control_grace: float = param(
        7.5, doc="Control kept by a session after its last command.", unit="s", minimum=0.0
    )
    actuator_ids: tuple[int, ...] = param(
        (1, 2, 3, 4, 5, 6), doc="Device identifiers of the actuators.", minimum=1, maximum=255
    )
    priority: int = param(
        70, doc="SCHED_FIFO priority where permitted; 0 asks for none.", minimum=0, maximum=98
    )
    network: NetworkConfig = param(NetworkConfig(), doc="Disturbances.")
