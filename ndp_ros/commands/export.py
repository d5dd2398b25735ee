"""``ndp export``: make a checkpoint of a run fit to be shipped: measured, with a card."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import yaml

from ndp_ros import checkpoint
from ndp_ros.arguments import positive, whole
from ndp_ros.commands.evaluate import require_fit, task_of, write_lines
from ndp_ros.config import read_yaml
from ndp_ros.errors import TrainingError
from ndp_ros.outputs import require_folder, write_output
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.training.curves import Curve, bands, draw, read_curve
from ndp_ros.training.directory import BEST, CHECKPOINTS, CONFIG, LAST, PROVENANCE
from ndp_ros.training.evaluation import Episode, make_actor, plain, run_episode, summarise
from ndp_ros.training.experiment import observed
from ndp_ros.training.logs import CSV_NAME, ProgressLine

_EPILOG = """\
What is written: policy and normaliser without the state of the training, and a card that says
what it is, how it was made and how often it succeeds. With --results the learning curve, its
picture and every episode of the evaluation go there.

examples:
  ndp export runs/throw-ndp-0 -o models/checkpoints/jaco_throw --results results/jaco_throw
  ndp export runs/pick-ndp-1 -o models/checkpoints/jaco_pick --which last --seed 7
"""

_CURVE = "eval_success"
_FIGURES = (
    ("saturation", "torque saturation", 100.0, "{:.1f} % of ticks"),
    ("max_joint_speed", "largest joint speed", 1.0, "{:.2f} rad/s"),
    ("tracking_rms", "tracking error", 1000.0, "{:.1f} mrad rms"),
)
_FIGURES_OF_A_HAND = (
    ("saturation", "displacements over one unit", 100.0, "{:.1f} %"),
    ("max_joint_speed", "largest joint speed", 1.0, "{:.2f} rad/s"),
    ("tracking_rms", "hand behind its setpoint", 1000.0, "{:.1f} mm rms"),
)
"""Those of a policy whose y is where the hand is."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder")
    parser.add_argument("--which", choices=(BEST, LAST), default=BEST, help="default: best")
    parser.add_argument("--episodes", type=positive, default=200, help="episodes (default: 200)")
    parser.add_argument("--seed", type=whole, default=7, help="first start state (default: 7)")
    parser.add_argument("--about", default="", metavar="TEXT", help="first sentence of the card")
    parser.add_argument("--results", type=Path, metavar="DIR", help="curve and evaluation go here")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def main(args: argparse.Namespace) -> int:
    """Evaluate, write, and say how it went."""
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
    episodes = _evaluate(saved, args)
    report = {"checkpoint": saved.id, "seed": args.seed, **plain(summarise(episodes))}
    if args.json:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        sys.stdout.write(f"{args.output}: success {report['success_rate']:.3f}\n")
    sys.stdout.flush()  # the figures are out, whatever happens to the files
    text = card(args.output, saved, args.which, args.about, report)
    origin = {**saved.provenance, "config": _anywhere(saved.provenance.get("config", {}))}
    checkpoint.save(args.output, saved.spec, saved.tensors, origin, card=text)
    if curve:
        _write_results(args.run, args.results, report, episodes, curve)
    return 0


def _require_outside_runs(folder: Path) -> None:
    """Refuse to write into a run: its training may write there at any time.

    Raises:
        TrainingError: If the folder is inside one.
    """
    for parent in folder.absolute().parents:
        if (parent / CONFIG).is_file() and (parent / CHECKPOINTS).is_dir():
            raise TrainingError(f"--output is inside the run {parent}: name a folder of its own")


def _evaluate(saved: checkpoint.Checkpoint, args: argparse.Namespace) -> list[Episode]:
    env = task_of(saved, []).make()
    actor = make_actor(ArrayPolicy(saved.spec, saved.tensors))
    episodes: list[Episode] = []
    try:
        require_fit(saved, env)
        with ProgressLine(f"export {args.run}", args.episodes, unit="episodes") as line:
            for n in range(args.episodes):
                episodes.append(run_episode(env, actor, args.seed + n))
                rate = sum(bool(e["success"]) for e in episodes) / len(episodes)
                line.show(n + 1, [("success", f"{rate:.2f}")])
    finally:
        env.close()
    return episodes


def card(
    folder: Path, saved: checkpoint.Checkpoint, which: str, about: str, report: dict[str, Any]
) -> str:
    """Return what a checkpoint is, for people.

    Args:
        folder: Where it is.
        saved: The checkpoint.
        which: ``best`` or ``last`` of its run.
        about: A sentence in front, or nothing.
        report: Figures of its evaluation.
    """
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
    figures = _FIGURES_OF_A_HAND if spec.joint_names[:3] == ("x", "y", "z") else _FIGURES
    rows += [
        (title, form.format(scale * report[key]))
        for key, title, scale, form in figures
        if report.get(key) is not None
    ]
    lines = [f"# {folder.name}", ""]
    lines += [about or f"A policy of method `{spec.method}` for the task {task} on the {spec.arm}."]
    lines += ["", "| | |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows), ""]
    lines += ["Commit, versions and the whole configuration are in `config.json`.", ""]
    return "\n".join(lines)


def _anywhere(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration whose demonstrations are named without this machine's folders."""
    file = config.get("demonstrations")
    return {**config, "demonstrations": "/".join(Path(file).parts[-2:])} if file else config


def _write_results(
    run: Path, folder: Path, report: dict[str, Any], episodes: list[Episode], curve: Curve
) -> None:
    """Copy what a run recorded and add the evaluation and a picture of the curve."""
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
