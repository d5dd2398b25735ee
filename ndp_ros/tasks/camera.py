"""Pictures of a scene, drawn by a process of their own when they are asked for.

Drawing without a screen loads libOSMesa or libEGL, and with them the system's LLVM, which ends
the process where another LLVM is loaded too (torch's compiler brings one). So neither this
process nor whoever imports it ever loads either: :class:`Camera` sends the scene and its states
to a child (``python -m ndp_ros.tasks.camera``) and gets pixels back.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import os
import pickle
import struct
import subprocess
import sys
import weakref
from typing import IO, Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from ndp_ros.errors import TaskError

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
_MODEL, _SCENE, _PICTURE, _PROBLEM = b"m", b"s", b"p", b"e"
"""First byte of a message: a compiled model, a state of it, a picture, why there is none."""
_SIZE = struct.Struct("<Q")
_SILENCE = 10.0
"""Time for the child to end once its input is closed [s]."""
_HELP = (
    "without a screen set MUJOCO_GL=egl (GPU) or MUJOCO_GL=osmesa (needs the system library "
    "libosmesa6)"
)


class Camera:
    """One of a scene's cameras. Copies draw for themselves.

    Attributes:
        name: Its name in the scene.
        size: Width and height of its pictures [px].
    """

    def __init__(self, name: str, size: tuple[int, int]) -> None:
        """Name the camera; nothing is started before the first picture."""
        self.name, self.size = name, size
        self._child: subprocess.Popen[bytes] | None = None
        self._end: Any = None
        self._model: mujoco.MjModel | None = None
        self._state: NDArray[np.float64] = np.zeros(0)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made from: a process belongs to one camera."""
        return {"name": self.name, "size": self.size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make a copy, which starts a process of its own when it draws."""
        self.__init__(**state)  # type: ignore[misc]

    def picture(self, model: mujoco.MjModel, data: mujoco.MjData) -> NDArray[np.uint8]:
        """Return a picture (height, width, 3) of a scene.

        Raises:
            TaskError: If this machine cannot draw.
        """
        try:
            if self._child is None:
                self._start()
            if self._model is not model:
                self._send(_MODEL + _binary(model))
                self._state = np.zeros(mujoco.mj_stateSize(model, _STATE))
                self._model = model
            mujoco.mj_getState(model, data, self._state, _STATE)
            self._send(_SCENE + self._state.tobytes())
            answer = self._receive()
        except (OSError, EOFError) as error:
            ended = self._child.wait() if self._child else 0
            self.close()
            how = f"signal {-ended}" if ended < 0 else f"exit status {ended}"
            raise TaskError(f"no picture: what draws has ended ({how}); {_HELP}") from error
        if answer[:1] != _PICTURE:
            self.close()
            raise TaskError(f"no picture: {answer[1:].decode()}; {_HELP}")
        width, height = self.size
        return np.frombuffer(answer, np.uint8, offset=1).reshape(height, width, 3).copy()

    def close(self) -> None:
        """End what draws; may be called twice."""
        if self._end is not None:
            self._end()
        self._child = self._end = self._model = None

    def _start(self) -> None:
        self._child = child = subprocess.Popen(
            [sys.executable, "-m", "ndp_ros.tasks.camera"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=_environment(),
        )  # fmt: skip
        self._end = weakref.finalize(self, _end, child)
        self._send(pickle.dumps((self.name, self.size)))

    def _send(self, content: bytes) -> None:
        assert self._child is not None and self._child.stdin is not None
        _write(self._child.stdin, content)

    def _receive(self) -> bytes:
        assert self._child is not None and self._child.stdout is not None
        return _read(self._child.stdout)


def _environment() -> dict[str, str]:
    """Return the child's environment, in which MuJoCo is told how to draw without a screen."""
    environment = dict(os.environ)
    if not environment.get("MUJOCO_GL") and not environment.get("DISPLAY"):
        for name, library in (("osmesa", "OSMesa"), ("egl", "EGL")):
            if ctypes.util.find_library(library):
                environment["MUJOCO_GL"] = name
                break
    return environment


def _end(child: subprocess.Popen[bytes]) -> None:
    """End what draws, which does so by itself at the end of its input."""
    with contextlib.suppress(OSError):
        assert child.stdin is not None and child.stdout is not None
        child.stdin.close()
        child.stdout.close()
    try:
        child.wait(_SILENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _binary(model: mujoco.MjModel) -> bytes:
    """Return a compiled model as bytes."""
    buffer = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return buffer.tobytes()


def _write(pipe: IO[bytes], content: bytes) -> None:
    pipe.write(_SIZE.pack(len(content)))
    pipe.write(content)
    pipe.flush()


def _read(pipe: IO[bytes]) -> bytes:
    """Return the next message.

    Raises:
        EOFError: If the other end has closed.
    """
    head = pipe.read(_SIZE.size)
    if len(head) < _SIZE.size:
        raise EOFError
    (size,) = _SIZE.unpack(head)
    content = pipe.read(size)
    if len(content) < size:
        raise EOFError
    return content


class _Drawing:
    """The child's side: a scene, and what draws it."""

    def __init__(self, camera: str, width: int, height: int) -> None:
        self._camera, self._width, self._height = camera, width, height
        self._renderer: mujoco.Renderer | None = None
        self._model: Any = None
        self._data: Any = None

    def load(self, content: bytes) -> None:
        """Take another model."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        model = mujoco.MjModel.from_binary_path("scene.mjb", {"scene.mjb": content})
        screen = model.vis.global_
        screen.offwidth = max(screen.offwidth, self._width)
        screen.offheight = max(screen.offheight, self._height)
        self._model, self._data = model, mujoco.MjData(model)

    def draw(self, state: bytes) -> bytes:
        """Return the pixels of a state."""
        mujoco.mj_setState(self._model, self._data, np.frombuffer(bytearray(state)), _STATE)
        mujoco.mj_forward(self._model, self._data)
        if self._renderer is None:
            self._renderer = mujoco.Renderer(self._model, self._height, self._width)
        self._renderer.update_scene(self._data, camera=self._camera)
        pixels: bytes = self._renderer.render().tobytes()
        return pixels


def _serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Answer models and states with pictures until the input ends."""
    camera, (width, height) = pickle.loads(_read(source))
    drawing = _Drawing(camera, width, height)
    try:
        while True:
            content = _read(source)
            if content[:1] == _MODEL:
                drawing.load(content[1:])
            else:
                _write(sink, _PICTURE + drawing.draw(content[1:]))
    except EOFError:
        return
    except Exception as error:
        _write(sink, _PROBLEM + " ".join(str(error).split()).encode())
        os._exit(1)  # half a renderer fails again when it is let go of


if __name__ == "__main__":
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        _serve(sys.stdin.buffer, sys.stdout.buffer)
