# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Configuration: one dataclass gives YAML, flags and documentation, and says what is wrong."""

import argparse
import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest

from ndp_ros import cli
from ndp_ros.config import (
    add_arguments,
    fields_of,
    from_mapping,
    load,
    nest,
    param,
    to_mapping,
)
from ndp_ros.control.arm import ArmConfig
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.errors import ConfigError
from ndp_ros.files import layers, read_yaml
from ndp_ros.observation import ObservationField, arm_observation, assemble, field_slice
from ndp_ros.policies.spec import PolicySpec
from ndp_ros.streaming.config import RuntimeConfig


@dataclass(frozen=True)
class Example:
    rate: int = param(1000, doc="Loop rate.", unit="Hz", minimum=500, maximum=5000)
    gains: tuple[float, ...] = param((1.0, 2.0), doc="Gains.", minimum=0.0)
    kernel: str = param("gaussian", doc="Kernel.", choices=("gaussian", "linear"))
    record: bool = param(True, doc="Whether to record.")
    path: str | None = param(None, doc="A file.")


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"rate": 0}, "rate is 0: Loop rate. ([Hz], 500 to 5000)"),
        ({"rate": 1000.5}, "expected int"),
        ({"rate": True}, "expected int"),
        ({"rate": "fast"}, "expected int"),
        ({"gains": [1.0, -1.0]}, "gains is -1.0"),
        ({"gains": [float("nan")]}, "gains is nan"),
        ({"gains": 3}, "expected a list"),
        ({"kernel": "cubic"}, "'cubic' is not one of [gaussian, linear]"),
        ({"record": "yes"}, "expected true or false"),
        ({"speed": 1}, "'speed' is not one of [rate, gains, kernel, record, path]"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(values, part):
    with pytest.raises(ConfigError, match=r"x\.yaml") as caught:
        from_mapping(Example, values, source="x.yaml")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_plain_values_round_trip():
    example = Example(rate=2000, gains=(0.5,), path="a")
    assert from_mapping(Example, to_mapping(example)) == example


def test_nested_configurations_round_trip():
    spec = PolicySpec(
        method="ndp",
        task="throw",
        arm="jaco",
        joint_names=("a", "b"),
        observation=arm_observation(2, ("cube",)),
        control_dt=0.02,
        k=5,
        action_scale=(0.1, 0.1),
        dmp=DmpConfig(kernel="linear"),
    )
    assert from_mapping(PolicySpec, to_mapping(spec)) == spec


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("rate: 500\nkernel: linear\n")
    parser = argparse.ArgumentParser()
    add_arguments(parser, Example)
    given = parser.parse_args(["--rate", "2000", "--no-record", "--gains", "3", "4"])
    found = load(Example, path, nest(Example, vars(given)))
    assert found == Example(2000, (3.0, 4.0), "linear", False)


def test_help_shows_unit_bounds_and_default():
    parser = argparse.ArgumentParser()
    add_arguments(parser, Example)
    text = " ".join(parser.format_help().split())
    assert "Loop rate. ([Hz], 500 to 5000) (default: 1000)" in text


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"minimum": 1}, "at least 1"),
        ({"maximum": 0.5}, "at most 0.5"),
        ({"minimum": 0, "maximum": 2**63 - 1}, "0 to 2^63 - 1"),
    ],
)
def test_help_names_the_bounds_that_there_are(bounds, words):
    made = dataclasses.make_dataclass("Made", [("n", int, param(1, doc="A count.", **bounds))])
    (found,) = fields_of(made)
    assert found.describe() == f"A count. ({words})"


def test_an_empty_choice_is_left_out_of_the_help_and_quoted_in_an_error():
    level = param("", doc="Level; empty: the default.", choices=("", "debug", "info"))
    made = dataclasses.make_dataclass("Made", [("level", str, level)])
    (found,) = fields_of(made)
    assert found.describe() == "Level; empty: the default. (one of debug, info)"
    with pytest.raises(ConfigError, match=r"'loud' is not one of \['', debug, info\]"):
        from_mapping(made, {"level": "loud"}, source="x")


def test_help_names_groups_as_their_sections_and_defaults_as_they_are_typed(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help-all"])
    text = " ".join(capsys.readouterr().out.split())
    for group in ("run options:", "ppo options:", "policy options:", "dmp options:"):
        assert group in text
    assert "(default: )" not in text and "(default: ()" not in text and " inf)" not in text
    assert "Further options of the task, name=value. (default: none)" in text


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", ""])
def test_a_file_that_is_no_mapping_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"x\.yaml") as caught:
        load(Example, path)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_there_twice_is_refused_with_its_line(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("rate: 500\nkernel: linear\nrate: 1000\n")
    with pytest.raises(ConfigError, match=r"x\.yaml.*rate is there twice.*line 3"):
        load(Example, path)


def test_a_name_over_a_merged_one_is_no_second_one(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: &a {b: 1, c: 2}\nd:\n  <<: *a\n  b: 3\n")
    assert read_yaml(path)["d"] == {"b": 3, "c": 2}


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load(Example, "nowhere.yaml")


def test_an_unknown_preset_lists_the_presets():
    with pytest.raises(ConfigError, match="paper, released, default"):
        DmpConfig.preset("fast")


def test_an_arm_whose_lists_differ_in_length_is_refused():
    with pytest.raises(ConfigError, match="upper has 1 values for 2 joints"):
        ArmConfig(
            name="x",
            joint_names=("a", "b"),
            gripper=False,
            lower=(0, 0),
            upper=(1,),
            max_velocity=(1, 1),
            max_acceleration=(1, 1),
            max_torque=(1, 1),
            max_torque_rate=(1, 1),
            home=(0, 0),
            model="models/x.xml",
        )


def test_the_observation_keeps_the_order_of_its_fields():
    fields = arm_observation(2, ("cube",))
    values = {f.name: np.full(f.size, i) for i, f in enumerate(fields)}
    vector = assemble(fields, values)
    assert vector.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4]
    assert vector[field_slice(fields, "setpoint")].tolist() == [2, 2]


def test_a_missing_observation_is_named():
    with pytest.raises(ConfigError, match="object/cube"):
        assemble([ObservationField("object/cube", 3)], {})


def test_values_of_a_file_lie_over_those_of_its_base(tmp_path):
    (tmp_path / "general.yaml").write_text("rate: 500\nkernel: linear\nppo: {lr: 1, steps: 2}\n")
    (tmp_path / "middle.yaml").write_text("base: general\nrate: 600\n")
    (tmp_path / "own.yaml").write_text("base: middle\npath: x\nppo: {lr: 3}\n")
    assert read_yaml(tmp_path / "own.yaml") == {
        "rate": 600,
        "kernel": "linear",
        "path": "x",
        "ppo": {"lr": 3, "steps": 2},
    }
    assert [path.stem for path, _ in layers(tmp_path / "own.yaml")] == ["general", "middle", "own"]


def test_a_file_of_one_s_own_builds_on_one_that_ships(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("base: runtime/hardware\nvelocity_margin: 0.5\n")
    config = load(RuntimeConfig, own)
    assert config == RuntimeConfig.named("hardware", velocity_margin=0.5)


def test_a_base_that_is_missing_or_circular_is_refused(tmp_path):
    (tmp_path / "one.yaml").write_text("base: two\n")
    (tmp_path / "two.yaml").write_text("base: one\n")
    with pytest.raises(ConfigError, match=r"one\.yaml is its own base"):
        read_yaml(tmp_path / "one.yaml")
    (tmp_path / "two.yaml").write_text("base: three\n")
    with pytest.raises(ConfigError, match=r"two\.yaml: base: 'three' is not one of \[one\]"):
        read_yaml(tmp_path / "one.yaml")
