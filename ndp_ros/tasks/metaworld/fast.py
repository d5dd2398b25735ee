# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Meta-World's Sawyer environments without their Python overhead, bit for bit the same.

A step of a stock environment spends five sixths of its time outside the physics: it
looks bodies up by name, walks the contacts object by object, converts one matrix by a general
rotation class and evaluates scalar formulas with array functions. :func:`fast_class` returns a
subclass of a stock environment with the same arithmetic, in the same order and precision, by
cheaper means:

- :class:`_NamedData` keeps the named views of ``mjData``;
- :class:`_FastSawyer` replaces the parts that all environments share: the step, the
  observation, the contact test;
- rewards stay the benchmark's own code. A task's methods are bound again to a copy
  of their module's globals in which the helpers named in :data:`_SWAPS` are those of
  :mod:`ndp_ros.tasks.metaworld.rewards`. Nothing is patched, and stock and fast environments
  can be used side by side.

Only steps that cannot change a number are left out, such as the force pass that no
sensor reads. The trailing ``mj_forward`` stays: it moves the solver's warm start,
so that with a cheaper pass trajectories would drift apart.
"""

from __future__ import annotations

import copy
import functools
import math
import types
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from metaworld.sawyer_xyz_env import SawyerXYZEnv
from metaworld.utils import reward_utils
from numpy.typing import NDArray

from ndp_ros.tasks.contract import Array
from ndp_ros.tasks.metaworld.rewards import caging, hamacher, hstack, norm, tolerance

N_FRAME = 18
"""Length of one frame of the native observation: hand, gripper, two objects."""

_MOCAP_QUAT = np.array((1.0, 0.0, 1.0, 0.0))
_GRIPPER_SPAN = 0.1  # [m], the finger distance that the benchmark calls fully open


def quaternion(matrix: Array) -> Array:
    """Return the unit quaternion of a rotation matrix (3, 3), as (x, y, z, w).

    The largest of the four components is found from the diagonal and the others by one
    division (Markley 2008), so no branch divides by a small number. The input is not made
    orthogonal: MuJoCo's matrices are, to rounding.
    """
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    trace = a + e + i
    if trace > a and trace > e and trace > i:
        q = (h - f, c - g, d - b, 1 + trace)
    elif a >= e and a >= i:
        q = (1 - trace + 2 * a, d + b, g + c, h - f)
    elif e >= i:
        q = (d + b, 1 - trace + 2 * e, h + f, c - g)
    else:
        q = (g + c, h + f, 1 - trace + 2 * i, d - b)
    x, y, z, w = q
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    return np.array((x / norm, y / norm, z / norm, w / norm))


class _Rotation:
    """The conversion of a matrix to a quaternion, for which tasks use a rotation class."""

    __slots__ = ("_matrix",)

    def __init__(self, matrix: Array) -> None:
        self._matrix = matrix

    @classmethod
    def from_matrix(cls, matrix: Array) -> _Rotation:
        return cls(matrix)

    def as_quat(self) -> Array:
        return quaternion(self._matrix)


def _namespace(source: Any, **replaced: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(**{**vars(source), **replaced})


_SWAPS: dict[str, Any] = {
    "np": _namespace(np, hstack=hstack, linalg=_namespace(np.linalg, norm=norm)),
    "reward_utils": _namespace(reward_utils, tolerance=tolerance, hamacher_product=hamacher),
    "Rotation": _Rotation,
}


class _NamedData(mujoco.MjData):
    """``mjData`` that makes each named view once."""

    def __init__(self, model: mujoco.MjModel) -> None:
        super().__init__(model)
        self._views: dict[tuple[str, Any], Any] = {}

    def _view(self, kind: str, name: Any) -> Any:
        view = self._views.get((kind, name))
        if view is None:
            view = self._views[kind, name] = getattr(super(), kind)(name)
        return view

    def body(self, name: Any) -> Any:
        return self._view("body", name)

    def geom(self, name: Any) -> Any:
        return self._view("geom", name)

    def site(self, name: Any) -> Any:
        return self._view("site", name)

    def joint(self, name: Any) -> Any:
        return self._view("joint", name)

    def release(self) -> None:
        """Drop the views, which keep alive the data that keeps them."""
        self._views.clear()


@functools.lru_cache(maxsize=2)
def compiled(path: str) -> mujoco.MjModel:
    """Return the model in a file, whose copy takes a tenth of the time of compiling it."""
    return mujoco.MjModel.from_xml_path(path)


class _FastSawyer(SawyerXYZEnv):
    """The parts that all 50 environments share, by cheaper means."""

    data: _NamedData
    advance: Callable[[Any, int], None] | None = None
    """Physics steps under a control in place of the benchmark's own, if given."""
    _placing = False

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        model = copy.copy(compiled(self.fullpath))
        visual = model.vis.global_
        visual.offwidth = max(visual.offwidth, self.width)
        visual.offheight = max(visual.offheight, self.height)
        self._link(model, _NamedData(model))
        return model, self._data

    def _link(self, model: mujoco.MjModel, data: _NamedData) -> None:
        """Keep the arrays and ids for every step; arrays are views of ``data``."""
        self._data = data
        self._hand = data.body("hand").xpos
        self._claws = data.body("rightclaw").xpos, data.body("leftclaw").xpos
        self._tips = data.site("rightEndEffector").xpos, data.site("leftEndEffector").xpos
        self._pad_bodies = data.body("leftpad").xpos, data.body("rightpad").xpos
        self._pads = model.geom("leftpad_geom").id, model.geom("rightpad_geom").id
        self._mocap_pos, self._mocap_quat = data.mocap_pos, data.mocap_quat
        self._ctrl = data.ctrl

    def close(self) -> None:
        super().close()
        self._data.release()

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        # The benchmark resets twice: a pass on the old state, which draws and moves the
        # fixtures, then everything again from blank data. The first pass needs no physics.
        self.curr_path_length = 0
        self._placing = True
        self.reset_model()
        self._placing = False
        obs, info = MujocoEnv.reset(self)
        self._prev_obs = obs[:N_FRAME].copy()
        obs[N_FRAME:-3] = self._prev_obs
        return obs.astype(np.float64), info

    def _reset_hand(self, steps: int = 50) -> None:
        if self._placing:
            self.init_tcp = self.tcp_center
        else:
            super()._reset_hand(steps)

    def get_endeff_pos(self) -> Array:
        hand: Array = self._hand
        return hand

    @property
    def tcp_center(self) -> Array:
        right, left = self._tips
        middle: Array = (right + left) / 2.0
        return middle

    def touching_object(self, object_geom_id: int) -> bool:
        contact = self._data.contact
        pairs = contact.geom.tolist()
        left, right = self._pads
        forces = [0.0, 0.0]
        for row, pair in enumerate(pairs):
            if object_geom_id in pair:
                for side, pad in enumerate((left, right)):
                    if pad in pair:
                        address = contact.efc_address[row]
                        forces[side] += float(self._data.efc_force[address])
        return forces[0] > 0 and forces[1] > 0

    def set_xyz_action(self, action: NDArray[Any]) -> None:
        # Up to the sum with mocap_pos, numbers have the action's precision, mostly float32.
        step = np.maximum(action, -1)
        np.minimum(step, 1, out=step)
        step *= self.action_scale
        position = self._mocap_pos[0]
        moved = position + step
        np.maximum(moved, self.mocap_low, out=moved)
        np.minimum(moved, self.mocap_high, out=position)
        self._mocap_quat[:] = _MOCAP_QUAT

    def do_simulation(self, ctrl: Any, n_frames: int) -> None:
        if self.advance is not None:
            self.advance(ctrl, n_frames)
            return
        self._ctrl[:] = ctrl
        mujoco.mj_step(self.model, self._data, nstep=n_frames)

    def _get_curr_obs_combined_no_goal(self) -> Array:
        right, left = self._claws
        span = right - left
        opening = math.sqrt(span.dot(span)) / _GRIPPER_SPAN
        position, orientation = self._get_pos_objects(), self._get_quat_objects()
        positions, orientations = position.tolist(), orientation.tolist()
        seen = [*self._hand.tolist(), min(max(opening, 0.0), 1.0)]
        for i in range(len(positions) // 3):
            seen += positions[3 * i : 3 * i + 3]
            seen += orientations[4 * i : 4 * i + 4]
        frame = np.zeros(N_FRAME)
        frame[: len(seen)] = seen
        return frame

    def _get_obs(self) -> Array:
        obs = np.zeros(2 * N_FRAME + 3)
        frame = self._get_curr_obs_combined_no_goal()
        obs[:N_FRAME] = frame
        obs[N_FRAME:-3] = self._prev_obs
        if not self._partially_observable:
            obs[-3:] = self._get_pos_goal()
        self._prev_obs = frame
        return obs

    def step(self, action: NDArray[Any]) -> tuple[Array, Any, bool, bool, dict[str, Any]]:
        if not self._set_task_called:
            raise RuntimeError("set_task comes before step")
        if self.curr_path_length >= self.max_path_length:
            raise ValueError("the episode is over: reset comes before step")
        self.set_xyz_action(action[:3])
        grip = action[3]
        self.do_simulation((grip, -grip), self.frame_skip)
        self.curr_path_length += 1
        for name, position in self._target_site_config:
            self._data.site(name).xpos = position[:3]
        mujoco.mj_forward(self.model, self._data)
        space = self.sawyer_observation_space
        obs = self._get_obs()
        np.maximum(obs, space.low, out=obs)  # type: ignore[attr-defined]
        np.minimum(obs, space.high, out=obs)  # type: ignore[attr-defined]
        self._last_stable_obs = obs
        reward, info = self.evaluate_state(obs, action)  # type: ignore[arg-type]
        over = self.curr_path_length == self.max_path_length
        return obs.copy(), reward, False, over, info


def _rebind(function: types.FunctionType) -> types.FunctionType:
    """Return the same code looking its helpers up in ``_SWAPS`` first."""
    closure = function.__closure__
    if closure is not None and function.__code__.co_freevars == ("func",):
        # The decorator checks that set_task was called; step checks it once for all.
        return _rebind(closure[0].cell_contents)
    scope = {**function.__globals__, **_SWAPS}
    bound = types.FunctionType(
        function.__code__, scope, function.__name__, function.__defaults__, closure
    )
    bound.__kwdefaults__ = function.__kwdefaults__
    return bound


def _rebound_methods(stock: type) -> dict[str, Any]:
    """Return the methods of a stock class that evaluate a state, bound to ``_SWAPS``."""
    methods: dict[str, Any] = {}
    for cls in reversed(stock.__mro__):
        if not issubclass(cls, SawyerXYZEnv):
            continue
        for name, member in vars(cls).items():
            wrap: Callable[[Any], Any] = lambda function: function  # noqa: E731
            if isinstance(member, staticmethod):
                member, wrap = member.__func__, staticmethod
            if not isinstance(member, types.FunctionType) or name.startswith("__"):
                continue
            if "reset" in name or "set_" in name:
                continue  # once an episode: the benchmark's own code, untouched
            ours = cls is SawyerXYZEnv and name == "_gripper_caging_reward"
            methods[name] = caging if ours else wrap(_rebind(member))
    return methods


@functools.cache
def fast_class(stock: Any) -> Any:
    """Return the fast subclass of a class of ``metaworld.env_dict.ALL_V3_ENVIRONMENTS``."""
    rebound = type(stock.__name__, (stock,), _rebound_methods(stock))
    return type(stock.__name__, (_FastSawyer, rebound), {"__doc__": stock.__doc__})
