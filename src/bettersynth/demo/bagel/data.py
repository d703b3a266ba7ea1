"""Records of the demo world for joint training: drawing, describing, answering, and both in one conversation.

Pictures are made of the base vocabulary only; the evaluation's combinations of colour and kind are never shown.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

from bettersynth.core.artifact import write_atomic
from bettersynth.core.seed import generator
from bettersynth.demo.world.language import ask_any, caption
from bettersynth.demo.world.render import render
from bettersynth.demo.world.scene import Scene, sample_scene
from bettersynth.demo.world.vocab import BASE_VOCAB

MIX = {"draw": 0.5, "describe": 0.3, "answer": 0.15, "story": 0.05}
"""Shares of the kinds of records."""
DESCRIBE = ("describe the picture", "what do we see", "what is in the picture")
DRAW = ("draw", "make a picture of", "show")
_PLAIN_PROMPTS = 0.7
"""Share of drawing records that are a plain prompt, as the compositional check asks; the others ask in a sentence."""
_WITHOUT_SIGNS = 0.5
_PER_FOLDER = 1000


def write_records(folder: Path, *, count: int, seed: int = 0, name: str = "train") -> dict[str, int]:
    """Write ``NAME.jsonl`` and its pictures below ``folder``; the same arguments give the same bytes.

    Returns:
        Records by kind.
    """
    rng = generator(seed, "demo-bagel", name)
    lines: list[str] = []
    kinds: Counter[str] = Counter()
    for number in range(count):
        scene = draw_scene(rng)
        path = f"images/{name}/{number // _PER_FOLDER:03d}/{number:06d}.png"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        render(scene).save(folder / path)
        kind = rng.choices(list(MIX), list(MIX.values()))[0]
        kinds[kind] += 1
        lines.append(json.dumps({"id": f"{name}-{number:06d}", **make_record(kind, scene, path, rng)}))
    write_atomic(folder / f"{name}.jsonl", ("\n".join(lines) + "\n").encode())
    return dict(sorted(kinds.items()))


def draw_scene(rng: random.Random) -> Scene:
    """One scene of the base vocabulary; half of them have no sign, as most prompts ask for none."""
    return sample_scene(rng, BASE_VOCAB, max_signs=0 if rng.random() < _WITHOUT_SIGNS else 1)


def make_record(kind: str, scene: Scene, path: str, rng: random.Random) -> dict[str, Any]:
    """A record of one of :data:`MIX`'s kinds about a scene whose picture is at ``path``."""
    text = caption(scene, rng)
    picture = {"type": "image", "image_path": path}
    if kind == "draw" and rng.random() < _PLAIN_PROMPTS:
        return {"text_prompt": text, "image_path": path}
    if kind == "draw":
        return _turns(_say("user", f"{rng.choice(DRAW)} {text}"), {"role": "assistant", **picture})
    if kind == "describe":
        return _turns({"role": "user", **picture}, _say("user", rng.choice(DESCRIBE)), _say("assistant", text))
    question = ask_any(scene, rng)
    if kind == "answer":
        return _turns({"role": "user", **picture}, _say("user", question.text), _say("assistant", question.answer))
    return _turns(
        *(_say("user", f"{rng.choice(DRAW)} {text}"), {"role": "assistant", **picture}),
        *(_say("user", question.text), _say("assistant", question.answer)),
    )


def _turns(*turns: dict[str, str]) -> dict[str, Any]:
    return {"conversations": list(turns)}


def _say(role: str, text: str) -> dict[str, str]:
    return {"role": role, "type": "text", "content": text}
