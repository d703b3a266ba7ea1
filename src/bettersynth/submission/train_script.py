"""The kit's train script: its editable block, and the rest, which nobody may change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

from bettersynth.config.submission import track_rules
from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import ConfigError
from bettersynth.core.fingerprint import digest_bytes
from bettersynth.core.lang import t
from bettersynth.train.preset import load_preset

TRAIN_SCRIPT = "toolkit/train_mgm_2b_stage_1.sh"
TRAIN_SCRIPT_10K = "toolkit/train_mgm_2b_stage_1_10k_baseline.sh"

VARIABLES = (
    "EXP_NAME",
    "PRETRAIN_DATASET",
    "PRETRAIN_DATASET_IMAGE_PATH",
    "PRETRAIN_BATCH_SIZE_PER_GPU",
    "PRETRAIN_GRADIENT_ACCUMULATION_STEPS",
    "PRETRAIN_DATALOADER_NUM_WORKERS",
    "FINETUNE_BATCH_SIZE_PER_GPU",
    "FINETUNE_GRADIENT_ACCUMULATION_STEPS",
    "FINETUNE_DATALOADER_NUM_WORKERS",
    "LOGGING_STEP",
    "CKPT_SAVE_STEPS",
    "TOTAL_SAVE_CKPT_LIMIT",
    "INFER_CUDA_IDX",
)
"""What may be set, and nothing else may stand in the block."""

_TEXT = {"EXP_NAME", "PRETRAIN_DATASET", "PRETRAIN_DATASET_IMAGE_PATH", "INFER_CUDA_IDX"}
_FORMS = {
    "EXP_NAME": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"),
    "INFER_CUDA_IDX": re.compile(r"\d+(,\d+)*"),
}
# No shell expansion in a value: a command hidden in the block would run outside of what the rules allow.
_PATH = re.compile(r"[^\s$`\\;&|<>(){}*?!'\"]+")
_NUMBER = re.compile(r"[1-9]\d{0,8}|0")
_BEGIN = re.compile(r"^#+ *Editable Part Begins *#+$")
_END = re.compile(r"^#+ *Editable Part Ends *#+$")
_ASSIGNMENT = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*)=(.*)$")


@dataclass(frozen=True)
class ScriptReading:
    """A train script taken apart: variables of the block, the digest of the rest, and what is wrong with the block."""

    values: Mapping[str, str]
    locked_digest: str
    problems: tuple[str, ...]

    def number(self, name: str) -> int | None:
        """A variable as a number, or None when it is not one."""
        value = self.values.get(name, "")
        return int(value) if _NUMBER.fullmatch(value) else None


def read_script(text: str) -> ScriptReading:
    """Take a train script apart. Line ends and spaces at line ends do not count as changes."""
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").rstrip("\n").split("\n")]
    begins = [number for number, line in enumerate(lines) if _BEGIN.match(line)]
    ends = [number for number, line in enumerate(lines) if _END.match(line)]
    if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
        problem = t("the editable block is not marked by one line 'Editable Part Begins' and one 'Editable Part Ends'")
        return ScriptReading({}, digest_bytes("\n".join(lines).encode()), (problem,))
    locked = lines[: begins[0] + 1] + lines[ends[0] :]
    values: dict[str, str] = {}
    problems: list[str] = []
    for line in lines[begins[0] + 1 : ends[0]]:
        wrong = _read_line(line, values)
        if wrong:
            problems.append(wrong)
    missing = [name for name in VARIABLES if name not in values]
    if missing:
        problems.append(t("the editable block lacks {names}", names=", ".join(missing)))
    return ScriptReading(values, digest_bytes("\n".join(locked).encode()), tuple(problems))


def _read_line(line: str, values: dict[str, str]) -> str | None:
    """Note a line's variable; returns what is wrong with the line."""
    if not line.strip() or line.lstrip().startswith("#"):
        return None
    match = _ASSIGNMENT.match(line)
    if match is None or match[1] not in VARIABLES:
        return t("not allowed in the editable block: {line}", line=line.strip()[:80])
    name, value = match[1], match[2].strip()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    if name in values:
        return t("set twice in the editable block: {name}", name=name)
    form = _FORMS.get(name, _PATH if name in _TEXT else _NUMBER)
    if not form.fullmatch(value):
        return t("not a plain value in the editable block: {line}", line=line.strip()[:80])
    values[name] = value
    return None


def fill_script(text: str, values: Mapping[str, str | int]) -> str:
    """The script with variables of its editable block set.

    Raises:
        ConfigError: a name that the block does not have, or a value that is not allowed there.
    """
    for name, value in values.items():
        if name not in VARIABLES:
            raise ConfigError(t("not a variable of the editable block"), got=name, expected=", ".join(VARIABLES))
        quoted = f'"{value}"' if name == "INFER_CUDA_IDX" else str(value)
        problem = _read_line(f"{name}={quoted}", {})
        if problem:
            raise ConfigError(problem)
        # Only the first place: the script's locked part uses the same names further down.
        text = re.sub(rf"^{name}=.*$", lambda _, line=f"{name}={quoted}": line, text, count=1, flags=re.MULTILINE)  # type: ignore[misc]
    return text


def save_script(workspace: Path, values: Mapping[str, str | int], *, track: str) -> Path:
    """Write ``output/train.sh`` as the kit's train script does when it has finished, for a run that went without it.

    The kit's own script is taken when there is one, so that an adopted kit keeps its form.

    Args:
        values: variables of the editable block, e.g. ``{"EXP_NAME": "balanced-1"}``.

    Raises:
        ConfigError: a name that the block does not have, or a value that is not allowed there.
        DataError: the folder cannot be written.
    """
    own = workspace / (TRAIN_SCRIPT_10K if track == "10k" else TRAIN_SCRIPT)
    text = own.read_text(encoding="utf-8") if own.is_file() else render_script(track)
    path = workspace / "output" / "train.sh"
    write_atomic(path, fill_script(text, values).encode())
    return path


@lru_cache(maxsize=8)
def render_script(track: str) -> str:
    """The train script as this version ships it for a track, its editable block at the defaults."""
    rules, name = track_rules(track), "solution" if track == "open" else track
    preset = load_preset(name)
    template = resources.files("bettersynth.submission").joinpath("locked", TRAIN_SCRIPT + ".tmpl")
    text = template.read_text(encoding="utf-8")
    places = {
        "TRACK": track,
        "PRESET": name,
        "SEED": rules.seed,
        "INSTRUCT": rules.instruct,
        "INSTRUCT_FILE": rules.instruct_file.rpartition("/")[2],
        "MAX_SAMPLE_NUM": str(rules.max_samples or preset.pretrain.get("samples_seen", 0)),
        "PRETRAIN_BATCH": str(preset.pretrain["global_batch"]),
        "FINETUNE_BATCH": str(preset.finetune["global_batch"]),
    }
    for name, value in places.items():
        text = text.replace(f"@{name}@", value)
    if track == "demo":
        text = fill_script(
            text,
            {
                "PRETRAIN_DATASET": "../output/processed_data/processed_data.jsonl",
                "PRETRAIN_DATASET_IMAGE_PATH": f"../input/{rules.seed}",
                "PRETRAIN_BATCH_SIZE_PER_GPU": int(preset.pretrain["per_device_batch_size"]),
                "PRETRAIN_GRADIENT_ACCUMULATION_STEPS": _accumulation(preset.pretrain),
                "FINETUNE_BATCH_SIZE_PER_GPU": int(preset.finetune["per_device_batch_size"]),
                "FINETUNE_GRADIENT_ACCUMULATION_STEPS": _accumulation(preset.finetune),
            },
        )
    elif track == "open":
        text = fill_script(
            text,
            {
                "PRETRAIN_GRADIENT_ACCUMULATION_STEPS": _accumulation(preset.pretrain),
                "FINETUNE_GRADIENT_ACCUMULATION_STEPS": _accumulation(preset.finetune),
            },
        )
    return text


def _accumulation(settings: Mapping[str, int]) -> int:
    return int(settings["global_batch"]) // int(settings["per_device_batch_size"])
