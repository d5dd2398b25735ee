# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The message package: what is described is what is built, for colcon and for pip alike."""

import dataclasses
import re
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

import ndp_ros
from ndp_ros.dmp.config import DmpConfig
from ndp_ros.streaming.layout import PHASES

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "interfaces"


def fields(path: Path) -> list[tuple[str, str]]:
    """Return type and name of every field in a definition, constants left out."""
    lines = [line.split("#")[0].split() for line in path.read_text().splitlines()]
    return [(line[0], line[1]) for line in lines if len(line) == 2 and "=" not in line[1]]


def constants(path: Path) -> dict[str, str]:
    found = re.findall(r"^\w+ ([A-Z_]+)=(\S+)", path.read_text(), re.MULTILINE)
    return dict(found)


def test_a_segment_carries_everything_that_fixes_the_response() -> None:
    named = {name for _, name in fields(PACKAGE / "msg" / "DmpParameters.msg")}
    assert {f.name for f in dataclasses.fields(DmpConfig)} <= named
    assert {"joint_names", "goal", "weights", "duration", "start", "checkpoint"} <= named


def test_states_are_the_phases_of_the_streamer() -> None:
    states = constants(PACKAGE / "msg" / "Status.msg")
    assert set(states.values()) == set(PHASES)


def test_every_definition_is_built() -> None:
    text = (PACKAGE / "CMakeLists.txt").read_text()
    listed = set(re.findall(r'"((?:msg|srv|action)/\w+\.\w+)"', text))
    there = {
        str(p.relative_to(PACKAGE))
        for kind in ("msg", "srv", "action")
        for p in PACKAGE.glob(f"{kind}/*")
    }
    assert listed == there


@pytest.mark.parametrize("folder", [ROOT, PACKAGE])
def test_both_packages_say_the_same_to_colcon_and_to_pip(folder: Path) -> None:
    package = ElementTree.parse(folder / "package.xml").getroot()
    name, version = package.findtext("name"), package.findtext("version")
    if folder == PACKAGE:
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        assert project["name"].replace("-", "_") == name
        assert project["version"] == version
        assert project["license"]["text"] == package.findtext("license")
    else:
        setup = (folder / "setup.py").read_text()
        assert f'NAME = "{name}"' in setup
        assert version == ndp_ros.__version__
        assert f"\nversion: {version}\n" in (folder / "CITATION.cff").read_text()
        assert f'license="{package.findtext("license")}"' in setup
        assert (folder / "resource" / str(name)).exists()


def test_the_pixi_file_builds_both_packages_with_extras_that_exist() -> None:
    pixi = tomllib.loads((ROOT / "pixi.toml").read_text())
    setup = (ROOT / "setup.py").read_text()
    for extra in pixi["pypi-dependencies"][ndp_ros.__name__]["extras"]:
        assert f'    "{extra}": [' in setup
    assert pixi["tasks"]["build"].split()[-2:] == [".", PACKAGE.name]
    assert all("://" not in channel for channel in pixi["workspace"]["channels"])


def test_every_node_can_be_run_by_its_name() -> None:
    setup = (ROOT / "setup.py").read_text()
    nodes = {p.stem for p in (ROOT / "ndp_ros" / "nodes").glob("*_node.py")}
    assert nodes == {p.name for p in (ROOT / "scripts").iterdir()} - {"ndp"}
    for name in nodes:
        assert f'"{name} = ndp_ros.nodes.{name}:main"' in setup
        assert (ROOT / "scripts" / name).stat().st_mode & 0o111


def test_what_is_installed_is_what_is_described() -> None:
    messages = pytest.importorskip("ndp_interfaces.msg", reason="needs `pip install ./interfaces`")
    services = pytest.importorskip("ndp_interfaces.srv")
    for path in PACKAGE.glob("msg/*.msg"):
        built = getattr(messages, path.stem)
        assert list(built.get_fields_and_field_types()) == [name for _, name in fields(path)]
        for name, value in constants(path).items():
            assert getattr(built, name) == value
    for path in PACKAGE.glob("srv/*.srv"):
        built = getattr(services, path.stem)
        both = [
            *built.Request.get_fields_and_field_types(),
            *built.Response.get_fields_and_field_types(),
        ]
        assert both == [name for _, name in fields(path)]
