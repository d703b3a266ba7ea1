"""The model card of an exported checkpoint: only what its records say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bettersynth.core.record import EvalResult
from bettersynth.report.markdown import escape_markdown, markdown_table
from bettersynth.report.text import interval, number, points
from bettersynth.report.verdict import require_provenance

_FRONT = """---
library_name: transformers
pipeline_tag: image-text-to-text
license: other
tags:
- bettersynth
- mgm
- vision-language
---"""
_LIMITS = (
    "Answers may be wrong or invented. The model looks at one picture per question and was trained on short answers in "
    "English. The licences of the base models and of the training data apply."
)
_SETTINGS = ("lr", "scheduler", "warmup_ratio", "global_batch", "epochs", "samples_seen", "precision", "seed")


def model_card(
    name: str,
    *,
    config: Mapping[str, Any],
    weights: Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
    scores: Sequence[EvalResult] = (),
    has_code: bool = True,
) -> str:
    """The card as Markdown with a front matter that the hub reads.

    Args:
        config: the checkpoint's ``config.json``.
        weights: ``parameters`` and ``dtype``.
        training: the ``facts`` and ``parents`` of the checkpoint's manifest, when there is one.
        scores: with provenance.

    Raises:
        ProvenanceError: a score does not say where it comes from.
    """
    require_provenance({name: tuple(scores)})
    summary = (
        f"A vision-language model of the MGM (Mini-Gemini) family with {weights['parameters']:,} parameters in "
        f"{weights['dtype']}: Gemma with a CLIP tower, a ConvNeXt tower, patch-info mining and a projector."
    )
    parts = [_FRONT, f"# {escape_markdown(name)}", summary, _bases(config), "## Use", _usage(has_code)]
    if training:
        parts += ["## Training", _training(training)]
    if scores:
        parts += ["## Scores", _scores(scores)]
    return "\n\n".join([*parts, "## Limits", _LIMITS]) + "\n"


def _bases(config: Mapping[str, Any]) -> str:
    rows = [
        ["language model", str(config.get("_name_or_path", ""))],
        ["low-resolution tower", str(config.get("mm_vision_tower", ""))],
        ["high-resolution tower", str(config.get("mm_vision_tower_aux", ""))],
        ["picture", f"{config.get('image_size_aux')} px, {config.get('image_aspect_ratio')}"],
    ]
    return markdown_table(["made from", ""], [row for row in rows if row[1]])


def _usage(has_code: bool) -> str:
    lines = [
        "```python",
        "import bettersynth  # pip install 'bettersynth[train]'",
        "from transformers import AutoModelForCausalLM, AutoProcessor",
        "",
        'model = AutoModelForCausalLM.from_pretrained("FOLDER")',
        'processor = AutoProcessor.from_pretrained("FOLDER")',
        'question = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]',
        'inputs = processor(text=processor.apply_chat_template(question), images=["picture.jpg"])',
        "new = model.generate(**inputs, max_new_tokens=64)[:, inputs['input_ids'].shape[1] :]",
        "print(processor.batch_decode(new)[0])",
        "```",
        "",
        "In a terminal: `bettersynth chat FOLDER --image picture.jpg`.",
    ]
    if has_code:
        lines.append("Without `import bettersynth` (it must be installed all the same): `trust_remote_code=True`.")
    return "\n".join(lines)


def _training(record: Mapping[str, Any]) -> str:
    facts = record.get("facts", {})
    settings = facts.get("identity", {}).get("settings", {})
    rows = [["stage", str(facts.get("stage", ""))]]
    names = {"rows_trained": "records trained on", "steps": "optimizer steps", "mean_loss": "mean loss"}
    rows += [[label, number(float(facts[key]))] for key, label in names.items() if facts.get(key) is not None]
    rows += [[key.replace("_", " "), str(settings[key])] for key in _SETTINGS if settings.get(key) is not None]
    rows += [[f"digest of {role}", str(digest)] for role, digest in sorted(record.get("parents", {}).items())]
    return markdown_table(["", ""], [row for row in rows if row[1]])


def _scores(scores: Sequence[EvalResult]) -> str:
    rows = []
    for score in scores:
        mark = "at chance" if score.at_chance else ""
        value = f"{points(score.score.value)} {interval(score.score)}"
        rows.append([score.protocol, value, points(score.chance), f"{score.num_questions:,}", mark])
    first = scores[0].provenance
    digests = ", ".join(f"{key} {first[key]}" for key in ("checkpoint", "decoding") if key in first)
    table = markdown_table(["protocol", "% with 95 % interval", "chance %", "questions", ""], rows)
    return f"{table}\n\nMade from the checkpoint before export ({digests})."
