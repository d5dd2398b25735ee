# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""``ndp export``: copy a checkpoint out of its run, evaluated and with a card."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from ndp_ros import checkpoint
from ndp_ros.commands.evaluate import HAND, write_lines
from ndp_ros.errors import TrainingError
from ndp_ros.files import read_yaml, require_folder, write_output
from ndp_ros.tasks.contract import plain
from ndp_ros.training.curve_pictures import draw
from ndp_ros.training.curves import Curve, bands, read_curve
from ndp_ros.training.directory import BEST, CHECKPOINTS, CONFIG, PROVENANCE
from ndp_ros.training.evaluate import measure, task_choice
from ndp_ros.training.evaluation import Episode, summarise
from ndp_ros.training.logs import CSV_NAME, ProgressLine
from ndp_ros.training.provenance import observed

ONNX = "policy.onnx"

_CURVE = "eval_success"
_FIGURES = (
    ("saturation", "torque saturation", 100.0, "{:.1f} % of ticks"),
    ("max_joint_speed", "largest joint speed", 1.0, "{:.2f} rad/s"),
    ("tracking_rms", "tracking error", 1000.0, "{:.1f} mrad rms"),
    ("jerk", "jerk of the setpoints", 1.0, "{:.0f} rad/s³ rms"),
)
_FIGURES_OF_A_HAND = (
    ("saturation", "displacements over one unit", 100.0, "{:.1f} %"),
    ("max_joint_speed", "largest joint speed", 1.0, "{:.2f} rad/s"),
    ("tracking_rms", "hand behind its setpoint", 1000.0, "{:.1f} mm rms"),
)
"""Figures of a policy whose y is the position of the hand."""


def main(args: argparse.Namespace) -> int:
    """Evaluate the checkpoint, write it and print the figures."""
    if not (args.run / CONFIG).is_file():
        raise TrainingError(f"{args.run} is no run directory: it has no {CONFIG}")
    require_folder(args.output, "--output")
    _require_outside_runs(args.output)
    checkpoint.require_replaceable(args.output)
    curve = None
    if args.results:
        require_folder(args.results, "--results")
        curve = read_curve(args.run, _CURVE)
    saved = checkpoint.load(args.run / CHECKPOINTS / args.which)
    with closing(task_choice(saved, []).make()) as env:
        line = ProgressLine(f"export {args.run}", args.episodes, unit="episodes")
        episodes = measure(saved, env, args.episodes, args.seed, line)
    report = {"checkpoint": saved.id, "seed": args.seed, **plain(summarise(episodes))}
    if args.json:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        sys.stdout.write(f"{args.output}: success {report['success_rate']:.3f}\n")
    sys.stdout.flush()  # the figures are out, whatever happens to the files
    text = card(args.output, saved, args.which, args.about, report)
    origin = {**saved.provenance, "config": _anywhere(saved.provenance.get("config", {}))}
    extra = {}
    if args.onnx:
        from ndp_ros.policies.onnx import to_onnx

        extra[ONNX] = to_onnx(saved.spec, saved.tensors)
    checkpoint.save(args.output, saved.spec, saved.tensors, origin, text, extra)
    if curve:
        _write_results(args.run, args.results, report, episodes, curve)
    return 0


def _require_outside_runs(folder: Path) -> None:
    """Check that a folder is not inside a run, whose training may write there at any time.

    Raises:
        TrainingError: If it is.
    """
    for parent in folder.absolute().parents:
        if (parent / CONFIG).is_file() and (parent / CHECKPOINTS).is_dir():
            raise TrainingError(f"--output is inside the run {parent}: name a folder of its own")


def card(
    folder: Path, saved: checkpoint.Checkpoint, which: str, about: str, report: dict[str, Any]
) -> str:
    """Return the card of a checkpoint, ``best`` or ``last`` of its run, in Markdown."""
    spec, origin = saved.spec, saved.provenance
    config = origin.get("config", {})
    options = " ".join(config.get("task_options", ()))
    task = f"`{spec.task}`" + (f" with `{options}`" if options else "")
    low, high = report["ci95"]
    chosen = "the best of its checkpoints by evaluation" if which == BEST else "its last checkpoint"
    samples = origin.get("samples", 0)
    seen = (
        f"{samples:,} control steps of {1000 * spec.control_dt:g} ms, "
        f"{observed(origin, spec):,} of them observed (k = {spec.k})"
    )
    if config.get("demonstrations"):
        seen = f"{samples:,} control steps of demonstrations, with repetition (k = {spec.k})"
    machine = origin.get("machine", {})
    rows = [
        ("made by", f"`{origin.get('command', '')}`, seed {origin.get('seed')}; {chosen}"),
        ("samples", seen),
        ("machine", f"{machine.get('architecture')}, {machine.get('cores')} cores"),
        (
            "evaluation",
            f"`ndp eval {shlex.quote(str(folder))} --episodes {report['episodes']} --seed "
            f"{report['seed']}`: success {report['success_rate']:.3f} "
            f"(95 % interval {low:.3f} to {high:.3f})",
        ),
    ]
    figures = _FIGURES_OF_A_HAND if spec.joint_names[:3] == HAND else _FIGURES
    rows += [
        (title, form.format(scale * report[key]))
        for key, title, scale, form in figures
        if report.get(key) is not None
    ]
    lines = [f"# {folder.name}", ""]
    arm = "" if spec.task.endswith(spec.arm) else f" on the {spec.arm}"
    lines += [about or f"A policy of method `{spec.method}` for the task {task}{arm}."]
    lines += ["", "| | |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows), ""]
    lines += ["Commit, versions and the whole configuration are in `config.json`.", ""]
    return "\n".join(lines)


def _anywhere(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without this machine's folders in the path of demonstrations."""
    file = config.get("demonstrations")
    return {**config, "demonstrations": "/".join(Path(file).parts[-2:])} if file else config


def _write_results(
    run: Path, folder: Path, report: dict[str, Any], episodes: list[Episode], curve: Curve
) -> None:
    """Copy the records of a run and add the evaluation and a picture of the curve."""
    try:
        for name in (CSV_NAME, PROVENANCE):
            write_output(folder / name, (run / name).read_bytes())
        config = yaml.safe_dump(_anywhere(read_yaml(run / CONFIG)), sort_keys=False)
        write_output(folder / CONFIG, config)
        write_output(folder / "evaluation.json", json.dumps(report) + "\n")
    except OSError as error:
        raise TrainingError(f"cannot write to {folder}: {error.strerror}") from error
    write_lines(folder / "evaluation.jsonl", episodes)
    draw(bands([curve]), _CURVE, "observed", folder / "curve.png")
