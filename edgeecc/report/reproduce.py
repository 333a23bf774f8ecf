"""The commands that make a run again from its own folder, with every option, and the versions that made it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

from edgeecc.cost.hardware import PRESETS
from edgeecc.normalisation import read_normalisation
from edgeecc.report.fields import Fields
from edgeecc.report.run_files import RunFiles
from edgeecc.run_folder import profile_name
from edgeecc.run_profiles import METERED

#: Options of training: field -> option.
_TRAINING = {
    "batch_size": "--batch-size", "lr": "--lr", "rise": "--rise", "weight_decay": "--weight-decay",
    "distill": "--distill", "optimizer": "--optimizer", "seed": "--seed",
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """How a run is made again.

    Args:
        commands: an argument list each, the first word is the program.
        notes: what these commands cannot do, in words.
        versions: package -> version that made the run.
    """

    commands: Tuple[Tuple[str, ...], ...]
    notes: Tuple[str, ...]
    versions: Mapping[str, str]

    def text(self) -> str:
        """Return the commands as a shell takes them, an option a line."""
        return "\n\n".join(_folded(command) for command in self.commands)


def recipe_of(files: RunFiles) -> Recipe:
    """Return how a run is made again, beside itself.

    Raises: ArtifactError when run.json is damaged.
    """
    path, made_by = files.folder.path, files.run.under("made_by")
    versions = {name: str(value)[:60] for name, value in made_by.data.items() if name != "made_at"}
    absent = _absent(files)
    if absent:
        note = f"The run is of a version that kept no {', '.join(absent)}: it cannot be made again from its files."
        return Recipe((), (note,), versions)
    again = str(path.parent / f"{path.resolve().name}-again")
    commands = [_prune(files, again), *_exports(files, again)]
    return Recipe(tuple(map(tuple, commands)), tuple(_notes(files)), versions)


def as_json(recipe: Recipe) -> Dict[str, object]:
    """Return it as JSON."""
    return {
        "commands": [shlex.join(command) for command in recipe.commands],
        "notes": list(recipe.notes),
        "versions": dict(recipe.versions),
    }


def _absent(files: RunFiles) -> List[str]:
    """Return what run.json lacks of what its command needs."""
    request, source = files.run.under("request"), files.run.under("source")
    needed = ("budget", "data", "method", "steps", "finetune_steps", "training")
    names = [name for name in needed if not request.has(name)]
    return names + [name for name in ("network", "input_shape") if not source.has(name)]


def _prune(files: RunFiles, again: str) -> List[str]:
    request, source, path = files.run.under("request"), files.run.under("source"), files.folder.path
    is_program = source.has("program_sha256")
    network = str(path / "program.pt2") if is_program else source.text("network")
    shape = "x".join(f"{int(size)}" for size in source.numbers("input_shape"))
    words = [*_program(files), "prune", str(path / "dense.safetensors")]
    words += ["--network", network, "--input", shape, *_normalise(source), *_budgets(request)]
    words += ["--paper-groups"] if source.flag("paper_groups") else []
    words += _prices(files, request)
    words += ["--data", request.text("data"), "--method", request.text("method")]
    for name in ("steps", "finetune_steps"):
        if name == "steps" or not request.under("training").objects("finetune"):
            words += [f"--{name.replace('_', '-')}", str(int(request.number(name)))]
    words += [*_training(request.under("training")), *_weights(request)]
    words += ["--precision", request.text("precision", "fp32")]
    settings = request.under("wsp" if files.kind == "weights" else "settings")
    for name, value in settings.data.items():
        words += ["--set", f"{name}={_written(value)}"]
    return [*words, "--run", again]


def _program(files: RunFiles) -> List[str]:
    processes = int(files.result.under("compute").maybe("processes") or 1)
    if processes > 1:
        return ["torchrun", f"--nproc_per_node={processes}", "-m", "edgeecc"]
    return ["edgeecc"]


def _normalise(source: Fields) -> List[str]:
    found = read_normalisation(source.data.get("normalisation"), source.source)
    if found is None:
        return []
    ends = (",".join(map(repr, values)) for values in (found.mean, found.deviation))
    return ["--normalise", "/".join(ends)]


def _budgets(request: Fields) -> List[str]:
    words: List[str] = []
    for asked in (request, *request.objects("further_budgets")):
        text = asked.text("budget")
        words += ["--budget", text]
        if text.endswith("%") and asked.text("metric", "energy") != "energy":
            words += ["--of", asked.text("metric")]
    return words


def _prices(files: RunFiles, request: Fields) -> List[str]:
    """Return devices, profiles and the margin: those of the run's own folder where it still keeps them."""
    asked = [request, *request.objects("further_budgets")]
    devices = dict.fromkeys(one.text("device", "") for one in asked)
    if files.kind == "weights":
        return ["--device", files.result.text("device")]
    words = [word for device in devices if device for word in ("--device", device)]
    if not _is_fitted(files):
        kept = [profile_name(bound.metric) for bound in files.bounds if bound.metric in METERED]
        words += [
            word
            for name in kept
            if files.folder.has(name)
            for word in ("--profile", str(files.folder.file(name)))
        ]
    margin = _margin(asked)
    return words if margin is None else [*words, "--margin", margin]


def _margin(asked: List[Fields]) -> Optional[str]:
    """Return the margin where all budgets have the same; others follow from the profiles."""
    margins = {one.maybe("margin") or 0.0 for one in asked}
    return repr(margins.pop()) if len(margins) == 1 else None


def _training(training: Fields) -> List[str]:
    words: List[str] = []
    for name, option in _TRAINING.items():
        if training.has(name):
            words += [option, _written(training.data[name])]
    for stage in training.objects("finetune"):
        words += ["--finetune", _stage(stage)]
    if training.flag("class_weights") is False:
        words.append("--no-class-weights")
    return words


def _stage(stage: Fields) -> str:
    parts = [str(int(stage.number("steps")))]
    parts += [f"{name}={stage.number(name)!r}" for name in ("lr", "distill") if stage.has(name)]
    return ",".join([*parts, *(["constant"] if stage.text("decay", "") == "constant" else [])])


def _weights(request: Fields) -> List[str]:
    """Return the options of methods that remove single weights."""
    words = ["--input-mask"] if request.flag("input_mask") else []
    return [*words, "--pattern", request.text("pattern")] if request.has("pattern") else words


def _exports(files: RunFiles, again: str) -> List[List[str]]:
    fit = files.result.under("fit_budget")
    if files.exported is None and not fit.data:
        return []
    words = ["edgeecc", "export", again]
    if fit.data:
        words += ["--fit-budget", "--confidence", repr(fit.number("confidence"))]
    built = [
        [*words[:3], "--trt", "--device", manifest.text("device")] for _, manifest in files.engines
    ]
    return [words, *built]


def _notes(files: RunFiles) -> List[str]:
    request, words = files.run.under("request"), []
    data = request.text("data")
    if ":" in data:
        words.append(f"The files of {data} are looked for from the working directory.")
    if _is_fitted(files):
        words.append(
            "The run's own cost model was corrected by export --fit-budget since: the command takes the device's "
            "calibration, as it was."
        )
    if any((request.maybe(name) or 0.0) > 0.0 for name in ("judged", "val_apart")):
        words.append(
            "It is a cell of edgeecc compare, which holds images out that edgeecc prune does not."
        )
    preset = files.result.text("device", "").partition(":")[2]
    if files.kind == "weights" and preset not in PRESETS:
        words.append(
            f"The array {preset} is of a TOML file of yours; name it as --device systolic:FILE.toml."
        )
    words.append(
        "With these versions on the same kind of machine pruning chooses the same channels; measured figures scatter."
    )
    return words


def _is_fitted(files: RunFiles) -> bool:
    return bool(files.result.under("fit_budget").data)


def _written(value: object) -> str:
    """Return a setting as --set and options read it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def _folded(command: Tuple[str, ...]) -> str:
    lines: List[str] = []
    for word in map(shlex.quote, command):
        if word.startswith("--") or not lines:
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return " \\\n    ".join(lines)


def command(*words: str, path: Path) -> str:
    """Return a command on a run as a shell takes it."""
    return shlex.join(["edgeecc", *words[:1], str(path), *words[1:]])
