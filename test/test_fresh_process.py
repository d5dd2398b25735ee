# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Imports and steps change nothing else in the process: no environment, no GL library."""

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.live

DRAWS = ("libosmesa", "libegl", "libgl.so", "libllvm", "_dri.so", "libgallium")


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("task", ["throw", "throw-gen3", "pick", "push"])
def test_import_make_reset_and_step_load_nothing_that_draws(task) -> None:
    code = f"""
        import os
        import gymnasium  # which sets a variable of its own
        before = dict(os.environ)
        import numpy as np, ndp_ros.tasks
        from ndp_ros.tasks.choice import TaskChoice
        env = TaskChoice({task!r}, 5).make()
        env.reset(seed=0)
        env.step(np.zeros(env.action_space.shape))
        maps = open("/proc/self/maps").read().lower()
        print([name for name in {DRAWS!r} if name in maps])
        print({{n: v for n, v in os.environ.items() if before.get(n) != v}})
        env.close()
    """
    assert run(code).splitlines() == ["[]", "{}"]


def test_no_module_changes_the_environment_when_it_is_imported() -> None:
    code = f"""
        import importlib, os, pkgutil
        import gymnasium  # which sets a variable of its own
        import ndp_ros
        before = dict(os.environ)
        for module in pkgutil.walk_packages(ndp_ros.__path__, "ndp_ros."):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:  # ROS's launch, the vendor's client
                assert not (error.name or "").startswith("ndp_ros"), error
        print({{n: v for n, v in os.environ.items() if before.get(n) != v}})
        maps = open("/proc/self/maps").read().lower()
        print([name for name in {DRAWS!r} if name in maps])
    """
    assert run(code).splitlines()[-2:] == ["{}", "[]"]
