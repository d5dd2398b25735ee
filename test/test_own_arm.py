# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""An arm of the user's own: any file, any names, any number of joints."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import mujoco
import numpy as np
import pytest

from ndp_ros import cli
from ndp_ros.arms.inspection import inspect
from ndp_ros.arms.joints import ArmJoints
from ndp_ros.arms.mujoco import MujocoArm
from ndp_ros.arms.scenes import Scene
from ndp_ros.control.arm import ARMS_VARIABLE, ArmConfig, Command, JointState, arm_files
from ndp_ros.control.arm_model import compile_arm
from ndp_ros.control.omega import InverseDynamics
from ndp_ros.control.rigid_body import RigidBody
from ndp_ros.errors import ConfigError, TaskError
from ndp_ros.tasks.choice import make

EXAMPLES = Path(__file__).parent.parent / "examples"
UR5E, PANDA = EXAMPLES / "ur5e" / "arm.yaml", EXAMPLES / "panda" / "arm.yaml"

# A ball before the arm, a fan between its joints, servos of another simulator, and fingers of
# which one is passive: what no list of the first n joints describes.
CRANE = """
<mujoco><compiler angle="radian"/><worldbody>
  <body name="ball" pos="1 1 0.1"><freejoint/><geom size="0.05"/></body>
  <body name="pillar" pos="0.2 -0.1 0.3" quat="0.9 0 0 0.4">
    <body name="a"><joint name="swing" axis="0 0 1" damping="0.5" armature="0.1"/>
      <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.03"/>
      <body name="fan" pos="0.1 0 0.1"><joint name="fan" axis="0 0 1"/><geom size="0.02"/></body>
      <body name="b" pos="0.3 0 0">
        <joint name="lift" axis="0 1 0" range="-1 1" limited="true" damping="0.5" armature="0.1"/>
        <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.03"/>
        <body name="c" pos="0.3 0 0">
          <joint name="reach" type="slide" axis="1 0 0" damping="5" armature="0.1"/>
          <geom type="capsule" fromto="0 0 0 0.1 0 0" size="0.02"/>
          <body name="d" pos="0.1 0 0">
            <joint name="twist" axis="1 0 0" damping="0.5" armature="0.1"/>
            <geom size="0.03"/><site name="hook" pos="0.05 0 0"/>
            <body name="l" pos="0.1 0.05 0"><joint name="left" type="slide" axis="0 1 0"
              damping="5"/><geom size="0.01" mass="0.05"/></body>
          </body></body></body></body></body></worldbody>
  <actuator><position name="s" joint="lift" kp="100"/><position joint="swing" kp="100"/></actuator>
</mujoco>"""
CRANE_YAML = """
name: crane
model: parts/crane.xml
joint_names: [lift, swing, reach, twist, jaw]
gripper: true
fingers: [left]
hand: hook
lower: [-0.9, -3, -0.1, -3, 0.0]
upper: [0.9, 3, 0.1, 3, 0.03]
max_velocity: [2, 2, 1, 3, 0.1]
max_acceleration: [10, 10, 5, 20, 2]
max_torque: [60, 60, 60, 20, 10]
max_torque_rate: [6000, 6000, 6000, 2000, 0]
home: [-0.2, 0.1, 0.0, 0.3, 0.01]
"""


@pytest.fixture
def crane(tmp_path: Path) -> Path:
    """Write the crane into two folders; return its arm file."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "crane.xml").write_text(CRANE)
    (tmp_path / "crane.yaml").write_text(CRANE_YAML)
    return tmp_path / "crane.yaml"


def chain(folder: Path, n: int) -> Path:
    """Write a URDF of a chain of n joints with meshes that are not there, and its arm file."""
    names, effort = [f"{'ab'[i % 2]}-{i}" for i in range(n)], 400
    links = ['<link name="foot"/>']
    for i, name in enumerate(names):
        parent = "foot" if i == 0 else f"link {i - 1}"
        axis = "0 0 1" if i % 2 == 0 else "0 1 0"
        links.append(
            f'<link name="link {i}"><inertial><mass value="1"/><origin xyz="0 0 0.05"/>'
            '<inertia ixx="0.01" iyy="0.01" izz="0.005" ixy="0" ixz="0" iyz="0"/></inertial>'
            '<visual><geometry><mesh filename="package://nowhere/a.dae"/></geometry></visual>'
            f'</link><joint name="{name}" type="revolute"><parent link="{parent}"/>'
            f'<child link="link {i}"/><origin xyz="0 0 0.1"/><axis xyz="{axis}"/>'
            f'<limit lower="-2" upper="2" effort="{effort}" velocity="2"/>'
            '<dynamics damping="0.5" friction="0"/></joint>'
        )
    (folder / "chain.urdf").write_text(f'<robot name="chain">{"".join(links)}</robot>')
    each = {
        "lower": -2,
        "upper": 2,
        "max_velocity": 2,
        "max_acceleration": 10,
        "max_torque": effort,
        "max_torque_rate": 40000,
        "home": 0.1,
    }
    lists = "".join(f"{key}: {[value] * n}\n" for key, value in each.items())
    head = f"name: chain\nmodel: chain.urdf\ngripper: false\njoint_names: {names}\n"
    (folder / "chain.yaml").write_text(head + lists)
    return folder / "chain.yaml"


def test_an_arm_anywhere_in_a_model_is_read_and_driven_in_its_own_order(crane: Path) -> None:
    config = ArmConfig.named(str(crane))
    arm = MujocoArm(config, Scene(str(crane)))
    setpoint, state = arm.reset(0), arm.read(JointState.zeros(5))
    assert state.position == pytest.approx(config.home)
    assert state.position[0] == arm.data.joint("lift").qpos[0]
    body = RigidBody(arm.model, config.joint_names[:4])
    law, command = InverseDynamics(body, 25.0), Command.zeros(5, "torque")
    target = setpoint + np.array([0.3, -0.4, 0.05, 0.5, 0.01])
    for _ in range(1000):
        law(target, np.zeros(5), np.zeros(5), arm.read(state), command)
        arm.write(command)
        arm.step(0.002)
    assert state.position == pytest.approx(target, abs=2e-3)
    assert sorted(arm.objects()) == ["ball"]


SKY = '<asset><texture type="skybox" builtin="flat" width="8" height="8"/></asset>'


@pytest.mark.parametrize("own", ["", SKY])
def test_an_arm_stands_on_tiles_under_one_sky_its_own_if_it_has_one(crane: Path, own: str) -> None:
    file = crane.parent / "parts" / "crane.xml"
    file.write_text(CRANE.replace("<worldbody>", f"{own}<worldbody>"))
    model = MujocoArm(ArmConfig.named(str(crane)), Scene(str(crane))).model
    assert (model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX).sum() == 1
    (floor,) = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE)
    assert model.mat_texid[model.geom_matid[floor]].max() >= 0


def test_poses_are_given_in_the_frame_of_the_base_wherever_it_is(crane: Path) -> None:
    arm = MujocoArm(ArmConfig.named(str(crane)), Scene(str(crane)))
    joints = ArmJoints(arm.model, arm.config)
    assert arm.model.body(joints.base).name == "pillar"
    place = arm.objects()["ball"][:3]
    turn = arm.data.xmat[joints.base].reshape(3, 3)
    assert turn @ place + (0.2, -0.1, 0.3) == pytest.approx((1.0, 1.0, 0.1))


@pytest.mark.parametrize("n", [4, 14])
def test_a_urdf_of_any_number_of_joints_is_an_arm(tmp_path: Path, n: int) -> None:
    config = ArmConfig.named(str(chain(tmp_path, n)))
    notes = "\n".join(inspect(config))
    assert f"joints: {n} (a-0, b-1," in notes and "no gripper" in notes
    env = make("reach", arm=str(tmp_path / "chain.yaml"))
    obs, _ = env.reset(seed=1)
    assert obs.shape == (4 * n + 18,)
    _, reward, *_ = env.step(np.zeros((5, n)))
    assert np.isfinite(reward)


@pytest.mark.parametrize("name", [str(UR5E), str(PANDA), "jaco", "gen3"])
def test_the_inverse_dynamics_of_an_arm_is_that_of_its_compiled_model(name: str) -> None:
    config = ArmConfig.named(name)
    model, rng, n = compile_arm(config), np.random.default_rng(3), config.n_arm
    joints, body = ArmJoints(model, config), RigidBody(model, config.joint_names[:n])
    data = mujoco.MjData(model)
    for _ in range(10):
        q, v, a = rng.uniform(-1, 1, n), rng.normal(size=n), rng.normal(size=n)
        data.qpos[joints.arm.q], data.qvel[joints.arm.v], data.qacc[joints.arm.v] = q, v, a
        mujoco.mj_inverse(model, data)
        expected = (data.qfrc_inverse + data.qfrc_constraint)[joints.arm.v]
        found = body.inverse_dynamics(q, v, a) + body.damping * v
        np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize(
    ("file", "hand"),
    [(UR5E, (-0.4919, -0.1333, 0.4879)), (PANDA, (0.3069, 0.0, 0.4869))],
)
def test_the_hand_of_an_example_is_where_the_published_kinematics_have_it(
    file: Path, hand: tuple[float, float, float]
) -> None:
    arm = MujocoArm(ArmConfig.named(str(file)), Scene(str(file)))
    assert arm.joints.hand_pose(arm.data)[0] == pytest.approx(hand, abs=1e-3)


@pytest.mark.parametrize("arm", [str(UR5E), str(PANDA), "jaco", "gen3"])
def test_reach_is_a_success_with_the_hand_at_the_goal_and_only_there(arm: str) -> None:
    near = make("reach", arm=arm, arm_noise=0.0, goal_range=0.01, horizon=0.5).unwrapped
    dof = len(near.joint_names)
    near.reset(seed=2)
    _, _, over, _, info = near.step(np.zeros((5, dof)))
    assert over and info["outcome"]["success"]
    far = make("reach", arm=arm, arm_noise=0.0, goal_range=1.0, horizon=0.5).unwrapped
    far.reset(seed=2)
    outcome = far.step(np.zeros((5, dof)))[4]["outcome"]
    assert not outcome["success"] and outcome["distance"] > far.config.near


def test_the_goal_of_reach_is_observed_as_position_and_two_axes(crane: Path) -> None:
    env = make("reach", arm=str(crane)).unwrapped
    obs, _ = env.reset(seed=4)
    base = env.robot.joints.base
    turn, at = env.robot.data.xmat[base].reshape(3, 3), env.robot.data.xpos[base]
    goal = env.robot.data.body("goal")
    assert turn @ obs[-18:-15] + at == pytest.approx(goal.xpos)
    assert turn @ obs[-15:-12] == pytest.approx(goal.xmat.reshape(3, 3)[:, 0])
    assert turn @ obs[-12:-9] == pytest.approx(goal.xmat.reshape(3, 3)[:, 1])


def test_arms_are_found_on_a_search_path(crane: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ARMS_VARIABLE, f"{crane.parent}:{EXAMPLES}")
    assert {"crane", "ur5e", "panda", "jaco", "gen3"} <= arm_files().keys()
    assert ArmConfig.named("crane").model_path == crane.parent / "parts" / "crane.xml"
    assert ArmConfig.named("ur5e").n_arm == 6


def test_check_says_what_will_be_done_with_an_arm(
    crane: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = crane.read_text().replace("lower: [-0.9,", "lower: [-1.5,")
    crane.write_text(text.replace("max_torque: [60,", "max_torque: [2,"))
    assert cli.main(["check", str(crane)]) == 0
    said = capsys.readouterr().out
    assert "warning: lift goes from -1.5 to 0.9 rad here, in the model from -1 to 1" in said
    assert "warning: lift cannot carry the arm's weight" in said
    assert "joints: 4 (lift, swing, reach, twist); jaw moves left" in said


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[lift, swing", "[lifted, swing", "joint: 'lifted' is not one of"),
        ("fingers: [left]", "fingers: [right]", "finger: 'right' is not one of"),
        ("fingers: [left]\n", "", "has no joint jaw or finger_1: name the joints"),
        ("hand: hook", "hand: claw", "hand: 'claw' is not one of"),
        ("20, 10]", "20, 0]", "give the force of the fingers as the gripper's entry"),
        ("home: [-0.2", "home: [-2.0", "home is outside the limits: lift at -2"),
        ("parts/crane.xml", "parts/none.xml", "parts/none.xml is not part of this installation"),
    ],
)
def test_a_mistake_in_an_arm_file_is_one_line_that_says_what_to_do(
    crane: Path, old: str, new: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    crane.write_text(crane.read_text().replace(old, new))
    assert cli.main(["check", str(crane)]) == 2
    said = capsys.readouterr().err
    assert words in said and len(said.splitlines()) == 1


def test_the_arm_file_of_the_page_is_sound_and_check_says_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (UR5E.parents[2] / "docs" / "own_arm.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page, re.S | re.M)
    folder = tmp_path / "my_arm"
    folder.mkdir()
    (folder / "arm.yaml").write_text(block)
    shutil.copy(UR5E.parent / "ur5e.xml", folder)
    monkeypatch.chdir(folder)
    assert cli.main(["check", "arm.yaml"]) == 0
    said = capsys.readouterr().out
    shown = page.partition("    arm.yaml: sound arm\n")[2].partition("\n\n")[0].splitlines()
    assert len(shown) > 4
    for line in shown:
        parts = re.split(r"\.\.\.|7e-14", line.strip())  # rounding differs between machines
        assert re.search(".*".join(map(re.escape, parts)), said), line


def test_an_arm_that_does_not_exist_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'ur6' is not one of \[gen3, jaco, sawyer"):
        ArmConfig.named("ur6")
    with pytest.raises((ConfigError, TaskError), match="no arm file"):
        make("reach", arm=str(tmp_path / "none.yaml"))
