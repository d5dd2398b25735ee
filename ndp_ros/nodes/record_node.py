# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The record node: write what the topics of a system carry into an MCAP bag.

The bag holds the definition of every message, so that it is read without this package: by
``ros2 bag``, Foxglove, ``mcap`` and ``rosbags``. Nothing depends on this node.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore

from ndp_ros.config import param
from ndp_ros.errors import ConfigError
from ndp_ros.nodes import diagnostics, lifecycle, parameters, process
from ndp_ros.nodes.diagnostics import Health
from ndp_ros.nodes.lifecycle import NdpNode

NAME = "record_node"

_SHARED = ("/tf", "/tf_static", "/diagnostics", "/clock")
"""Topics outside of the namespace that belong to a system."""
_SEARCH_PERIOD = 0.5
_DEPTH = 1000
_FOREVER = QosTime(2**63 // 10**9, 2**63 % 10**9)


@dataclass(frozen=True)
class RecordConfig:
    """Parameters of the record node."""

    bag: str = param(doc="Folder to make, which becomes the bag.")
    topics: tuple[str, ...] = param(
        (), doc="Topics to record; empty: all in the node's namespace, TF, diagnostics and clock."
    )
    autostart: bool = lifecycle.autostart_param()


class Bag:
    """A bag that is being written."""

    def __init__(self, folder: Path) -> None:
        """Make the folder.

        Raises:
            ConfigError: If it exists already or cannot be made.
        """
        self._store = get_typestore(Stores.ROS2_JAZZY)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
        except (OSError, WriterError) as error:
            raise ConfigError(f"bag {folder}: {error}") from error
        self.messages = 0

    def add(self, topic: str, kind: str, profile: QoSProfile) -> Any:
        """Add a topic of a type such as ``std_msgs/msg/String``; return its connection.

        Raises:
            ConfigError: If the definition of the type is not found.
        """
        package, _, name = kind.partition("/msg/")
        if kind not in self._store.types:
            for text, known in _definitions(package):
                self._store.register(get_types_from_msg(text, f"{package}/msg/{known}"))
        latched = profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
        reliable = profile.reliability == ReliabilityPolicy.RELIABLE
        offered = Qos(
            QosHistory.KEEP_LAST,
            profile.depth,
            QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
            QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
            _FOREVER,
            _FOREVER,
            QosLiveliness.AUTOMATIC,
            _FOREVER,
            False,
        )
        try:
            return self._writer.add_connection(
                topic, kind, typestore=self._store, offered_qos_profiles=[offered]
            )
        except (TypesysError, WriterError, KeyError) as error:
            raise ConfigError(f"no definition of {package}/{name}: {error}") from error

    def write(self, connection: Any, time: int, data: bytes) -> None:
        """Append a message that was received at a time [ns]."""
        self._writer.write(connection, time, data)
        self.messages += 1

    def close(self) -> None:
        """Write index and metadata."""
        self._writer.close()


class RecordNode(NdpNode):
    """Subscriber of everything, which is written as it comes."""

    needed = False

    def __init__(self, **options: Any) -> None:
        super().__init__(NAME, RecordConfig, **options)
        self._config = RecordConfig(bag="")
        self._bag: Bag | None = None
        self._inputs: dict[str, Subscription[Any] | None] = {}
        self._timer: Timer | None = None

    def configure(self) -> None:
        """Read the parameters."""
        self._config = parameters.read(self, RecordConfig)

    def activate(self) -> None:
        """Open the bag and record topics as they appear."""
        self._bag = Bag(Path(self._config.bag).expanduser())
        self._timer = self.every(_SEARCH_PERIOD, self._search)
        self._search()

    def deactivate(self) -> None:
        """Close the bag."""
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
        for subscription in self._inputs.values():
            if subscription is not None:
                self.destroy_subscription(subscription)
        self._inputs.clear()
        if self._bag is not None:
            self._bag.close()
            self.get_logger().info(f"{self._config.bag}: {self._bag.messages} messages")

    def _search(self) -> None:
        """Subscribe to topics that have appeared."""
        for topic, kinds in self.get_topic_names_and_types():
            if topic not in self._inputs and self._belongs(topic):
                self._inputs[topic] = self._subscribe(topic, kinds[0])

    def _belongs(self, topic: str) -> bool:
        if self._config.topics:
            return topic in self._config.topics
        space = self.get_namespace().rstrip("/")
        hidden = any(part.startswith("_") for part in topic.split("/"))
        if topic in ("/rosout", "/parameter_events") or hidden:
            return False
        return topic in _SHARED or topic.startswith(f"{space}/")

    def _subscribe(self, topic: str, kind: str) -> Subscription[Any] | None:
        """Subscribe to a topic as its publishers offer it; None if its type is not known here."""
        offers = [info.qos_profile for info in self.get_publishers_info_by_topic(topic)]
        reliable = all(o.reliability == ReliabilityPolicy.RELIABLE for o in offers)
        latched = all(o.durability == DurabilityPolicy.TRANSIENT_LOCAL for o in offers)
        profile = QoSProfile(
            depth=_DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=(
                DurabilityPolicy.TRANSIENT_LOCAL
                if offers and latched
                else DurabilityPolicy.VOLATILE
            ),
        )
        assert self._bag is not None
        package, _, name = kind.partition("/msg/")
        try:
            message = getattr(importlib.import_module(f"{package}.msg"), name)
            connection = self._bag.add(topic, kind, profile)
        except (ImportError, AttributeError, ConfigError) as error:
            self.get_logger().warning(f"{topic} is not recorded: {error}")
            return None
        callback = partial(self._take, connection)
        return self.create_subscription(message, topic, callback, profile, raw=True)

    def _take(self, connection: Any, data: bytes) -> None:
        if self._bag is not None:
            self._bag.write(connection, self.get_clock().now().nanoseconds, data)

    def health(self) -> Health:
        """Return the bag and the number of messages in it."""
        values: dict[str, object] = {"bag": self._config.bag, "topics": len(self._inputs)}
        values["messages"] = self._bag.messages if self._bag is not None else 0
        return Health(diagnostics.OK, self.state, values)


def _definitions(package: str) -> Iterator[tuple[str, str]]:
    """Yield text and name of each message definition that a package has installed."""
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    for prefix in (*prefixes, sys.prefix):
        folder = Path(prefix) / "share" / package / "msg"
        found = sorted(folder.glob("*.msg")) if prefix else []
        yield from ((path.read_text(), path.stem) for path in found)
        if found:
            return


def main(argv: list[str] | None = None) -> int:
    """Run the record node."""
    return process.run(RecordNode, argv)


if __name__ == "__main__":
    sys.exit(main())
