# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The copyright lines of the source files, and the linter of ROS 2 where it is installed."""

import ast
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from ndp_ros.license import HOLDER, LICENSE, SPDX

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ["benchmarks", "docs", "examples", "interfaces", "launch", "ndp_ros", "test", "tools"]
COMMENTS = {".py": "# ", ".cmake": "# ", ".c": "// ", ".h": "// ", ".cpp": "// "}


def source_files() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")]
    files = [path for path in found if path.suffix in COMMENTS and path.stat().st_size]
    return [ROOT / "setup.py", *(p for p in files if "__pycache__" not in p.parts)]


def test_every_source_file_begins_with_holder_and_licence() -> None:
    files = source_files()
    assert len(files) > 300
    for path in files:
        mark = COMMENTS[path.suffix]
        lines = [f"Copyright 2026 {HOLDER}", f"SPDX-License-Identifier: {SPDX}"]
        begin = "".join(f"{mark}{line}\n" for line in lines) + "\n"
        assert path.read_text(encoding="utf-8").startswith(begin), path


def test_licence_and_contributing_are_those_that_the_entry_point_describes() -> None:
    setup = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    texts = {node.value for node in ast.walk(setup) if isinstance(node, ast.Constant)}
    assert "bsd_3_clause_spdx = ndp_ros.license:LICENSE" in texts
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    before, after = LICENSE.license_files[0].split("{copyright}")
    assert licence.startswith(before) and licence.endswith(after) and HOLDER in licence
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert LICENSE.contributing_files[0] in contributing


def test_ament_copyright_finds_no_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = pytest.importorskip(
        "ament_copyright.main", reason="ament_copyright is part of a ROS 2 installation only"
    ).main
    licenses = pytest.importorskip("ament_copyright.licenses")
    assert LICENSE._fields == licenses.LicenseEntryPoint._fields
    registered = entry_points(group="ament_copyright.license").names
    assert "bsd_3_clause_spdx" in registered, "ndp_ros was installed before: do it again"
    monkeypatch.chdir(ROOT)
    assert main([*FOLDERS, "setup.py", "LICENSE", "CONTRIBUTING.md"]) == 0, capsys.readouterr()
    assert "No problems found" in capsys.readouterr().out
