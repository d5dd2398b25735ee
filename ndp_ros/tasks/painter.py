# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Draw the states of a scene; of a scene without shadows, only what has moved since the last one.

Without a GPU the time of a picture is that of its pixels. A camera that rests sees the same
background in each picture, so that the rectangle around the moving bodies is enough.
"""

from __future__ import annotations

import itertools
import math

import mujoco
import numpy as np
from numpy.typing import NDArray

STATE = mujoco.mjtState.mjSTATE_INTEGRATION
"""The part of a state that a scene is drawn from."""
_MOST_SHAPES = 10_000
"""Most shapes of a scene."""
_MARGIN = 3
"""Pixels around a moving body: its edge is smoothed, and positions are rounded."""
_NEAR = 0.05
"""Distance from the camera below which a body may be seen anywhere [m]."""
_CORNERS = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
Picture = NDArray[np.uint8]
Region = tuple[int, int, int, int]
"""Left, right, bottom and top of a rectangle [px], counted from the lower left corner."""


class Painter:
    """Pictures of one scene by one of its cameras."""

    def __init__(self, model: mujoco.MjModel, camera: str, size: tuple[int, int]) -> None:
        """Make the buffers for pictures of a width and height [px]."""
        self._model, self._data, self._size = model, mujoco.MjData(model), size
        self._camera = model.camera(camera).id
        screen = model.vis.global_
        screen.offwidth, screen.offheight = np.maximum((screen.offwidth, screen.offheight), size)
        self._gl = mujoco.GLContext(*size)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, _MOST_SHAPES)
        self._shown, self._view = mujoco.MjvOption(), mujoco.MjvCamera()
        self._view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._view.fixedcamid = self._camera
        # Shadows and reflections move where nothing else does.
        self._plain = not (model.light_castshadow.any() or model.mat_reflectance.any())
        self._last: tuple[_Shapes, NDArray[np.float64]] | None = None
        self._picture: Picture = np.empty((size[1], size[0], 3), np.uint8)

    def picture(self, state: NDArray[np.float64]) -> Picture:
        """Return the picture of a state (height, width, 3); the next call overwrites it."""
        mujoco.mj_setState(self._model, self._data, state, STATE)
        mujoco.mj_forward(self._model, self._data)
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            self._model, self._data, self._shown, None, self._view, everything, self._scene
        )
        left, right, bottom, top = self._moved() or (0, self._size[0], 0, self._size[1])
        if left < right and bottom < top:
            self._paint(left, right, bottom, top)
        return self._picture

    def _moved(self) -> Region | None:
        """Return where something differs from the last picture, None for everywhere."""
        if not self._plain:
            return None
        data, camera = self._data, self._camera
        view = (data.cam_xpos[camera], data.cam_xmat[camera], data.light_xpos, data.light_xdir)
        around = np.concatenate([np.ravel(part) for part in view])
        shapes = _Shapes(self._model, self._scene)
        last, self._last = self._last, (shapes, around)
        if last is None or not np.array_equal(last[1], around):
            return None
        moved = shapes.differing(last[0])
        if moved is None:
            return None
        return self._region(np.concatenate((shapes.corners[moved], last[0].corners[moved])))

    def _region(self, corners: NDArray[np.float64]) -> Region | None:
        """Return the rectangle around boxes (n, 8, 3), None for the whole picture."""
        if not len(corners):
            return 0, 0, 0, 0
        axes = self._data.cam_xmat[self._camera].reshape(3, 3)
        seen = (corners.reshape(-1, 3) - self._data.cam_xpos[self._camera]) @ axes
        depth = -seen[:, 2]
        if depth.min() < _NEAR:
            return None
        height = self._size[1]
        focus = 0.5 * height / math.tan(math.radians(self._model.cam_fovy[self._camera]) / 2)
        at = 0.5 * np.array(self._size) + focus * seen[:, :2] / depth[:, None]
        low = np.maximum(np.floor(at.min(axis=0)).astype(int) - _MARGIN, 0)
        high = np.minimum(np.ceil(at.max(axis=0)).astype(int) + _MARGIN, self._size)
        return int(low[0]), int(high[0]), int(low[1]), int(high[1])

    def _paint(self, left: int, right: int, bottom: int, top: int) -> None:
        """Draw a rectangle of the picture anew, by a view that is as wide as it."""
        width, height = self._size
        for eye in self._scene.camera:
            pixel = (eye.frustum_top - eye.frustum_bottom) / height
            eye.frustum_center += pixel * 0.5 * (left + right - width)
            eye.frustum_width = pixel * 0.5 * (right - left)
            eye.frustum_top = eye.frustum_bottom + pixel * top
            eye.frustum_bottom += pixel * bottom
        area = mujoco.MjrRect(0, 0, right - left, top - bottom)
        part = np.empty((area.height, area.width, 3), np.uint8)
        mujoco.mjr_render(area, self._scene, self._context)
        mujoco.mjr_readPixels(part, None, area, self._context)
        self._picture[height - top : height - bottom, left:right] = part[::-1]


class _Shapes:
    """The visible shapes of a scene: look, pose and bounding box of each.

    Attributes:
        corners: Corners of the boxes (n, 8, 3) [m].
    """

    def __init__(self, model: mujoco.MjModel, scene: mujoco.MjvScene) -> None:
        shapes = scene.geoms[: scene.ngeom]
        self.look = [(g.type, g.dataid, g.matid, g.objtype, g.objid) for g in shapes]
        poses = [np.concatenate((g.pos, g.mat.ravel(), g.size, g.rgba)) for g in shapes]
        self.pose = np.array(poses, float).reshape(len(shapes), 19)
        boxes = np.zeros((len(shapes), 6))
        for box, g in zip(boxes, shapes, strict=True):
            if g.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                box[:] = model.geom_aabb[g.objid]
            else:
                box[3:] = np.linalg.norm(g.size)
        places = boxes[:, None, :3] + boxes[:, None, 3:] * _CORNERS
        turned = np.einsum("nij,ncj->nci", self.pose[:, 3:12].reshape(-1, 3, 3), places)
        self.corners = self.pose[:, None, :3] + turned

    def differing(self, other: _Shapes) -> NDArray[np.intp] | None:
        """Return which shapes differ (n,), None if these are other shapes or have no end."""
        if self.look != other.look:
            return None
        moved = np.flatnonzero((self.pose != other.pose).any(axis=1))
        plane = int(mujoco.mjtGeom.mjGEOM_PLANE)
        return None if any(self.look[i][0] == plane for i in moved) else moved
