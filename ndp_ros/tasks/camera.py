# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Pictures of a scene, drawn by a child process on demand.

Drawing without a screen loads libOSMesa or libEGL, and with them the system's LLVM, which
crashes a process that has loaded another LLVM, such as that of torch's compiler. So only the
child (``python -m ndp_ros.tasks.camera``) loads them: :class:`Camera` sends it the scene and its
states, and receives pixels.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import multiprocessing
import os
import subprocess
import sys
import weakref
from multiprocessing.connection import Connection
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from ndp_ros.errors import TaskError
from ndp_ros.tasks.painter import STATE, Painter

_END_TIMEOUT = 10.0
"""Time for the child to end once its connection is closed [s]."""
_HELP = (
    "without a screen set MUJOCO_GL=egl (GPU) or MUJOCO_GL=osmesa (needs the system library "
    "libosmesa6)"
)


class Camera:
    """A camera of a scene; a copy draws in a process of its own.

    Attributes:
        name: Its name in the scene.
        size: Width and height of its pictures [px].
    """

    def __init__(self, name: str, size: tuple[int, int]) -> None:
        """Name the camera; the child starts with the first picture."""
        self.name, self.size = name, size
        self._child: _Child | None = None
        self._model: mujoco.MjModel | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, which has no child yet."""
        return {"name": self.name, "size": self.size, "_child": None, "_model": None}

    def picture(self, model: mujoco.MjModel, data: mujoco.MjData) -> NDArray[np.uint8]:
        """Return a picture of a scene (height, width, 3).

        Raises:
            TaskError: If this machine cannot draw.
        """
        if self._child is None:
            self._child = _Child(self.name, self.size)
        new, self._model = self._model is not model, model
        state = np.zeros(mujoco.mj_stateSize(model, STATE))
        mujoco.mj_getState(model, data, state, STATE)
        try:
            answer = self._child.ask(model if new else None, state)
        except (OSError, EOFError):
            answer = None
        if isinstance(answer, np.ndarray):
            return answer
        problem = answer or f"the drawing process has ended ({self._child.end()})"
        self.close()
        raise TaskError(f"no picture: {problem}; {_HELP}")

    def resize(self, size: tuple[int, int]) -> None:
        """Draw pictures of another width and height [px]."""
        self.close()
        self.size = size

    def close(self) -> None:
        """End the child; may be called twice."""
        if self._child is not None:
            self._child.end()
        self._child = self._model = None


class _Child:
    """The parent's side of the process that draws; it ends with this object at the latest."""

    def __init__(self, camera: str, size: tuple[int, int]) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        with theirs:
            arguments = (theirs.fileno(), camera, *size)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ndp_ros.tasks.camera", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                pass_fds=[theirs.fileno()],
            )
        self._finalizer = weakref.finalize(self, _end, self._process, self._connection)

    def ask(self, model: mujoco.MjModel | None, state: NDArray[np.float64]) -> Any:
        """Return a picture of a state, or the reason why there is none as a text.

        The scene is sent if it is another one than before.

        Raises:
            OSError, EOFError: If the child has ended.
        """
        self._connection.send((model, state))
        return self._connection.recv()

    def end(self) -> str:
        """End the child; return how it ended."""
        self._finalizer()
        status = self._process.returncode
        return f"signal {-status}" if status < 0 else f"exit status {status}"


def _end(process: subprocess.Popen[bytes], connection: Connection) -> None:
    """Close the connection, at whose end the child ends."""
    connection.close()
    try:
        process.wait(_END_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    """Return the child's environment, which tells MuJoCo how to draw without a screen."""
    environment = dict(os.environ)
    # Threads of Mesa's software renderer wait for each other busily: without them a picture takes a
    # quarter less of the processor.
    environment.setdefault("LP_NUM_THREADS", "0")
    if not environment.get("MUJOCO_GL") and not environment.get("DISPLAY"):
        for name, library in (("osmesa", "OSMesa"), ("egl", "EGL")):
            if ctypes.util.find_library(library):
                environment["MUJOCO_GL"] = name
                break
    return environment


def _draw_for(parent: Connection, camera: str, width: int, height: int) -> None:
    """Answer scenes and states with pictures until the parent closes the connection."""
    painter: Painter | None = None
    while True:
        new, state = parent.recv()
        try:
            if new is not None or painter is None:
                painter = Painter(new, camera, (width, height))
            parent.send(painter.picture(state))
        except BrokenPipeError:
            raise
        except Exception as error:
            parent.send(" ".join(str(error).split()))
            os._exit(1)  # a half-made renderer fails again when it is deleted


if __name__ == "__main__":
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        _draw_for(Connection(int(sys.argv[1])), sys.argv[2], *map(int, sys.argv[3:]))
