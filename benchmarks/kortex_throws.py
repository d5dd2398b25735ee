# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Throws of a Gen3 over Kortex: nodes, streamer and emulated arm, joined by real DDS and sockets.

    python benchmarks/kortex_throws.py --throws 10 --rate 1000 --json

For each throw the emulated arm is reset with the cube in its hand, follows the policy for the
length of an episode, and is released. The place of the cube comes from the emulator's physics, the
commands from its record.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np

_PATIENCE = 60.0
_EPISODE = 2.0
_FLIGHT = 1.0
"""Time for the cube to come to rest once the arm holds again [s]."""


def main() -> int:
    """Make the throws and report them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--throws", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="start state of the first throw")
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--command-mode", default="position", choices=("position", "torque"))
    parser.add_argument("--checkpoint", default="gen3_throw")
    parser.add_argument("--runtime", default="emulator", help="as of ndp run")
    parser.add_argument(
        "--patient",
        action="store_true",
        help="each command advances the physics and the loop waits for each answer, for a machine "
        "with scheduling pauses",
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    os.environ.setdefault("ROS_DOMAIN_ID", "77")

    from ndp_ros.emulator.config import EmulatorConfig
    from ndp_ros.emulator.process import EmulatorProcess

    # An arm that shares its processors with everything else needs longer time-outs.
    cycle = 1.0 / args.rate if args.patient else 0.0
    watchdog = 1.8 if args.patient else 0.5
    config = EmulatorConfig(port=0, udp_port=0, scene="throw-gen3", watchdog=watchdog, cycle=cycle)
    with EmulatorProcess(config) as emulator:
        system = Thrower(emulator, args)
        try:
            throws = [system.throw(args.seed + n) for n in range(args.throws)]
        finally:
            system.close()
        record = emulator.control.do("record")
        slipped = emulator.control.do("state")["slipped"]
    result: dict[str, Any] = {
        "throws": args.throws,
        "in_bin": sum(t["in_bin"] for t in throws),
        "rate_hz": args.rate,
        "command_mode": args.command_mode,
        "checkpoint": args.checkpoint,
        "patient": args.patient,
        "commands": record["frames"],
        "refused": record["refused"],
        "max_step_rad": record["max_step"],
        "max_velocity_rad_s": record["max_velocity"],
        "max_torque_n_m": record["max_torque"],
        "emulator_slipped_s": slipped,
        "each": throws,
    }
    print(f"{result['in_bin']} of {args.throws} in the bin", file=sys.stderr)
    if args.json:
        print(json.dumps(result))
    return 0


class Thrower:
    """The running system, and a node that requests throws."""

    def __init__(self, emulator: Any, args: argparse.Namespace) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from ndp_interfaces.msg import DmpParameters, Status
        from rclpy.executors import SingleThreadedExecutor

        from ndp_ros.nodes import qos

        self.emulator = emulator
        rclpy.init()
        self.node = rclpy.create_node("thrower")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.status: Any = None
        self.figures: dict[str, str] = {}
        self.segments = 0
        self.node.create_subscription(Status, "ndp/status", self._on_status, qos.LATCHED)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.node.create_subscription(
            DmpParameters, "ndp/dmp_parameters", self._on_segment, qos.PARAMETERS
        )
        options = {
            "robot-ip": emulator.host,
            "port": emulator.port,
            "udp-port": emulator.udp_port,
            "rate": args.rate,
            "command-mode": args.command_mode,
            "checkpoint": args.checkpoint,
            "follow-for": _EPISODE,
            "runtime": args.runtime,
            "unreachable-after": 2.0,
        }
        given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        given.append("--lockstep" if args.patient else "--no-lockstep")
        self.process = subprocess.Popen([sys.executable, "-m", "ndp_ros.cli", "run", *given])
        self.until(lambda: self.state == "holding", "an arm that holds")

    def _on_status(self, message: Any) -> None:
        self.status = message

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name == "integrator_node":
                self.figures = {v.key: v.value for v in status.values}

    def _on_segment(self, _message: Any) -> None:
        self.segments += 1

    @property
    def state(self) -> str:
        """State of the arm in the last ``ndp/status``."""
        return self.status.state if self.status is not None else ""

    def throw(self, seed: int) -> dict[str, Any]:
        """Make one throw from a start state; return its result and figures."""
        control = self.emulator.control
        self.transition("deactivate")
        control.do("reset", seed=seed)
        self.transition("activate")
        self.until(lambda: self.state == "holding", "an arm that holds")
        seen = self.segments
        self.until(lambda: self.segments > seen + 2, "segments")
        self.until(self.follow, "an arm that may follow")
        self.until(lambda: self.state in ("following", "fault", "stopped"), "motion")
        self.until(lambda: self.state in ("holding", "fault", "stopped"), "the end of the motion")
        end_state = f"{self.state} {self.status.reason}".strip()
        end = time.monotonic() + _FLIGHT
        self.until(lambda: time.monotonic() > end, "the cube's rest")
        poses = control.do("objects")
        gap = np.array(poses["cube"][:3]) - np.array(poses["bin"][:3])
        in_bin = bool(abs(gap[:2]).max() < 0.15 and -0.01 < gap[2] < 0.25)
        names = ("ticks", "missed_ticks", "accepted", "dropped", "refused", "stretched")
        figures = {name: int(float(self.figures.get(name, "0"))) for name in names}
        guard = {k: int(v) for k, v in self.figures.items() if k.startswith("guard_")}
        print(
            f"throw {seed}: {'in the bin' if in_bin else 'NOT in the bin'}, "
            f"{gap[0] * 100:+.0f} {gap[1] * 100:+.0f} cm off; {end_state}; {figures} {guard}",
            file=sys.stderr,
        )
        return {
            "seed": seed,
            "in_bin": in_bin,
            "gap": gap.tolist(),
            "end": end_state,
            **figures,
            "guard": guard,
            "lateness_us_p99": float(self.figures["lateness_us_p99"]),
            "cost_us_p50": float(self.figures["cost_us_p50"]),
        }

    def follow(self) -> bool:
        """Let the arm follow; a fault that a pause of the machine has left is cleared first."""
        from std_srvs.srv import SetBool, Trigger

        if self.state == "fault":
            self.call(Trigger, "clear_fault", Trigger.Request())
        return bool(self.call(SetBool, "follow", SetBool.Request(data=True)).success)

    def transition(self, label: str) -> None:
        """Take the integrator to another lifecycle state."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        number = getattr(Transition, f"TRANSITION_{label.upper()}")
        request = ChangeState.Request(transition=Transition(id=number))
        answer = self.call(ChangeState, "change_state", request)
        assert answer.success, label

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service of the integrator."""
        client: Any = self.node.create_client(kind, f"integrator_node/{name}")
        self.until(client.service_is_ready, name)
        future = client.call_async(request)
        self.until(future.done, f"an answer of {name}")
        self.node.destroy_client(client)
        return future.result()

    def until(self, condition: Any, awaited: str) -> None:
        """Spin until a condition holds."""
        end = time.monotonic() + _PATIENCE
        while not condition():
            if time.monotonic() > end or self.process.poll() is not None:
                raise SystemExit(f"there was no {awaited}; the arm is {self.state}")
            self.executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        """End the system."""
        import rclpy

        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
