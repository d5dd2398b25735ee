"""Pictures of a scene, drawn when they are asked for."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from ndp_ros.errors import TaskError


class _Renderer(mujoco.Renderer):
    """MuJoCo's renderer; where it cannot be made, letting go of it is silent."""

    _gl_context = None
    _mjr_context = None


class Camera:
    """One of a scene's cameras.

    Attributes:
        name: Its name in the scene.
        size: Width and height of its pictures [px].
    """

    def __init__(self, name: str, size: tuple[int, int]) -> None:
        """Name the camera; nothing is opened before the first picture."""
        self.name, self.size = name, size
        self._renderer: _Renderer | None = None

    def picture(self, model: mujoco.MjModel, data: mujoco.MjData) -> NDArray[np.uint8]:
        """Return a picture (height, width, 3) of a scene.

        Raises:
            TaskError: If this machine cannot draw.
        """
        if self._renderer is None:
            width, height = self.size
            screen = model.vis.global_
            screen.offwidth = max(screen.offwidth, width)
            screen.offheight = max(screen.offheight, height)
            try:
                self._renderer = _Renderer(model, height, width)
            except Exception as error:
                raise TaskError(
                    f"no picture: {error}; without a screen set MUJOCO_GL=egl (GPU) or "
                    "MUJOCO_GL=osmesa (needs the system library libosmesa6)"
                ) from error
        self._renderer.update_scene(data, camera=self.name)
        picture: NDArray[np.uint8] = self._renderer.render()
        return picture

    def close(self) -> None:
        """Let go of what draws; may be called twice."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
