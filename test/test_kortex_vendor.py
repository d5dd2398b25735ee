# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Kinova's own client: against the emulated arm, and behind ours as ``driver:=vendor``."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kortex_support import HOST

from ndp_ros.arms.kortex import vendor
from ndp_ros.arms.kortex.config import KortexConfig
from ndp_ros.bringup import arm as hardware
from ndp_ros.bringup.arm import HardwareConfig
from ndp_ros.emulator.config import EmulatorConfig
from ndp_ros.emulator.process import EmulatorProcess
from ndp_ros.errors import ConfigError

pytestmark = pytest.mark.live

HERE = Path(__file__).parent
needs_the_package = pytest.mark.skipif(
    importlib.util.find_spec(vendor.PACKAGE) is None,
    reason="needs kortex_api, Kinova's Python package, which is on no package index",
)


# What its user is told.


def test_missing_package_is_one_line_that_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, vendor.PACKAGE, None)
    vendor.load.cache_clear()
    with pytest.raises(ConfigError, match=r"kortex_api .*leave driver out") as caught:
        vendor.load()
    assert "\n" not in str(caught.value)


def test_package_is_looked_for_before_anything_starts(monkeypatch):
    hidden = f"import sys; sys.modules['{vendor.PACKAGE}'] = None; "
    monkeypatch.setattr(vendor, "_PROBE", hidden + vendor._PROBE)  # noqa: SLF001
    with pytest.raises(ConfigError, match=r"^driver:=vendor needs .*kortex_api.* not installed"):
        vendor.require(vendor.environment())


def test_package_that_protobuf_refuses_is_one_line_that_says_what_to_set(tmp_path):
    package = tmp_path / vendor.PACKAGE
    package.mkdir()
    package.joinpath("__init__.py").write_text("raise TypeError('Too old.\\nA long story.')\n")
    with pytest.raises(ConfigError, match=rf"\(Too old\): set {vendor.PROTOBUF_VARIABLE}=python"):
        vendor.require({"PYTHONPATH": str(tmp_path)})


def test_other_hardware_has_no_driver():
    with pytest.raises(ConfigError, match="driver is for hardware:=kortex"):
        hardware.processes(HardwareConfig(hardware="mock", kortex=KortexConfig(driver="vendor")))


def test_notice_names_the_driver():
    told = hardware.notice(HardwareConfig(kortex=KortexConfig("192.0.2.1", driver="vendor")))
    assert "through kortex_api" in told


def test_integrator_gets_the_driver_and_the_protobuf_that_it_needs(monkeypatch):
    monkeypatch.delenv(vendor.PROTOBUF_VARIABLE, raising=False)
    for driver in ("vendor", "builtin"):
        config = HardwareConfig(kortex=KortexConfig("192.0.2.1", driver=driver))
        settings, environment = hardware.kortex_settings(config, None, 0.03)
        assert settings.driver == driver
        assert environment.get(vendor.PROTOBUF_VARIABLE) == {"vendor": "python"}.get(driver)


# With the package.


def run(*arguments: str, timeout: float, **variables: str) -> None:
    """Run Python with the variables that the package needs; what it says is shown if it fails."""
    found = subprocess.run(
        [sys.executable, *arguments],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        env={**os.environ, **vendor.environment(), **variables},
        timeout=timeout,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-4000:]


@needs_the_package
def test_unmodified_client_runs_a_session_with_the_emulated_arm():
    patient = EmulatorConfig(port=0, udp_port=0, watchdog=5.0, cycle=0.001, host=HOST)
    with EmulatorProcess(patient) as process:
        script = str(HERE / "vendor_session.py")
        run(script, str(process.port), str(process.udp_port), "5000", timeout=400.0)
        record = process.control.do("record")
    assert record["frames"] >= 5000
    assert record["not_finite"] == 0


@needs_the_package
def test_arm_keeps_its_contract_with_the_vendors_client():
    contract = str(HERE / "test_kortex_arm.py")
    run(
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore",
        contract,
        timeout=900.0,
        NDP_TEST_DRIVER="vendor",
    )
