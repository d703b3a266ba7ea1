"""Unified generation: texts and pictures in any order in, texts and pictures in order out, one or many at a time.

The published weights never begin a picture by themselves. Three ways decide what comes next, and every result says
which one did:

| way | decides by |
| --- | --- |
| control | the caller: ``output="image"``, ``output=("text", "image")`` |
| learned | the model: its likeliest token behind a closing marker is an image start, a text start, or the end |
| rule | words: the request asks for a picture, or the model's own text holds ``<image>`` |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.core.seed import derive_seed
from bettersynth.infer.image_rule import IMAGE_MARK, kinds_by_words
from bettersynth.infer.unified_options import check_length, check_size
from bettersynth.infer.unified_reading import Memory, Reader, rules_of
from bettersynth.infer.unified_turn import THOUGHT_END, Turn
from bettersynth.infer.unified_types import Decision, How, Output, Part, UnifiedRequest, UnifiedResult, request_of
from bettersynth.models.bagel.autoencoder import AutoEncoder
from bettersynth.models.bagel.context import read_text
from bettersynth.models.bagel.draw import Drawing, DrawSettings, decode, draw, start_noise
from bettersynth.models.bagel.files import TOKENIZER_FILE
from bettersynth.models.bagel.generate import Sampling, generate_text, logits_after
from bettersynth.models.bagel.interleave import Interleaver
from bettersynth.models.bagel.model import BagelModel
from bettersynth.models.bagel.resize import ResizeRule, to_bytes
from bettersynth.models.bagel.tokens import BagelTokenizer

THINK_BEFORE_TEXT = (
    "Think about the request first. Put your reasoning between <think> and </think>, and the answer after it."
)
THINK_BEFORE_IMAGE = (
    "Plan the picture first. Between <think> and </think>, say what it has to show, where, and in which style."
)


class InterleaveInferencer:
    """Answers with texts and pictures.

    Args:
        model: a BAGEL model, or the folder of one.
        vae_model: its autoencoder; by default the one that the model carries.
        tokenizer: by default that of the model's folder; without one, texts are given and come back as ids.
        vae_transform, vit_transform: how input pictures are resized; by default from the sizes of the model's tables.
        new_token_ids: accepted as the original passes it; the ids are those of the model's configuration.

    Raises:
        ConfigError: a model without an autoencoder.
    """

    def __init__(
        self,
        model: BagelModel | Path | str,
        vae_model: AutoEncoder | None = None,
        tokenizer: BagelTokenizer | None = None,
        vae_transform: ResizeRule | None = None,
        vit_transform: ResizeRule | None = None,
        new_token_ids: dict[str, int] | None = None,
    ) -> None:
        if isinstance(model, (str, Path)):
            model = load_model(Path(model))
        if vae_model is not None:
            model.set_autoencoder(vae_model)
        if not model._autoencoder:
            raise ConfigError(t("the model has no autoencoder"), expected="ae.safetensors")
        folder = Path(model.tokenizer_folder) if model.tokenizer_folder else None
        if tokenizer is None and folder is not None and (folder / TOKENIZER_FILE).is_file():
            tokenizer = BagelTokenizer(folder)
        vae_rule, vit_rule = rules_of(model)
        interleaver = Interleaver(model.eval(), vae_transform or vae_rule, vit_transform or vit_rule)
        self.model, self.reader = model, Reader(interleaver, tokenizer)

    # -- what callers use ----------------------------------------------------------------------------------------

    def unified_generate(self, prompt: Any, **options: Any) -> UnifiedResult:
        """Texts and pictures in order for one prompt.

        Args:
            prompt: a text, a picture, or a list of both (see :func:`unified_types.parts_of`), or a ready request.
            options: fields of :class:`UnifiedRequest` and of :class:`DrawSettings`; the original's names too.

        Raises:
            ConfigError: unknown or unsupported options. DataError: a picture cannot be read.
        """
        return self.generate_batch([prompt], **options)[0]

    def generate_batch(
        self, prompts: Sequence[Any], *, seeds: Sequence[int] | None = None, **options: Any
    ) -> list[UnifiedResult]:
        """One result per prompt; sizes, kinds and settings may differ. A result does not depend on its neighbours.

        Args:
            prompts: as for :meth:`unified_generate`.
            seeds: one per prompt.
            options: for all of them.
        """
        requests = [request_of(prompt, options) for prompt in prompts]
        if seeds is not None:
            requests = [request_of(r, {"seed": seed}) for r, seed in zip(requests, seeds, strict=True)]
        return self._run([self._begin(request, Memory(self.reader.empty())) for request in requests])

    def check(self, request: UnifiedRequest) -> None:
        """Whether it can be answered at all.

        Raises:
            ConfigError: a size beyond the model's table of positions, texts beyond its longest context, or stop strings
                without a tokenizer.
        """
        if request.stop and self.reader.tokenizer is None:
            raise ConfigError(t("stop strings need a tokenizer"), where="stop", expected=TOKENIZER_FILE)
        check_size(self.model.config, request.image_size)
        texts = [part.value for part in request.parts if not isinstance(part.value, Image.Image)]
        num_tokens = sum(len(self.reader.encode(text) if isinstance(text, str) else text) for text in texts)
        check_length(self.model.config, num_tokens)

    def dialogue(self, **options: Any) -> Dialogue:
        """A conversation of several turns whose cache is kept."""
        return Dialogue(self, options)

    def interleave_inference(self, input_lists: Sequence[Any], **options: Any) -> list[str | Image.Image]:
        """The original's call: one picture, or one text with ``understanding_output=True``; a thought comes first."""
        options.setdefault("output", ("text",) if options.get("understanding_output") else ("image",))
        result = self.unified_generate(list(input_lists), **options)
        return [output.image or output.text for output in result.outputs]

    def __call__(
        self, image: Image.Image | None = None, text: str | None = None, **options: Any
    ) -> dict[str, str | Image.Image | None]:
        """The original's call with one picture and one text: ``{"image": ..., "text": ...}``."""
        found: dict[str, str | Image.Image | None] = {"image": None, "text": None}
        for item in self.interleave_inference([part for part in (image, text) if part is not None], **options):
            found["image" if isinstance(item, Image.Image) else "text"] = item
        return found

    # -- one request ---------------------------------------------------------------------------------------------

    def _begin(self, request: UnifiedRequest, memory: Memory) -> Turn:
        self.check(request)
        generator = torch.Generator().manual_seed(request.seed)
        if isinstance(request.output, str):
            words = next((p.value for p in reversed(request.parts) if isinstance(p.value, str)), "")
            has_picture = request.has_image or any(part.is_image for part in memory.parts)
            kinds, reason = kinds_by_words(words, has_picture=has_picture)
            plan = [Decision(kind, "rule", reason) for kind in kinds]
        else:
            plan = [Decision(kind, "control", t("asked for")) for kind in request.output]
        how: How = "learned" if request.output == "learned" else plan[0].how if plan else "control"
        draws = any(decision.kind == "image" for decision in plan)
        think = request.think if isinstance(request.think, tuple) else None
        if request.think is True:
            think = self.reader.encode(THINK_BEFORE_IMAGE if draws else THINK_BEFORE_TEXT)
        turn = Turn(request, memory, generator, plan, how, think)
        if think is not None and not memory.parts:
            memory.parts.append(Part(think, is_own=True))
        memory.parts += request.parts
        self.reader.catch_up(memory, draws=draws or request.output == "learned")
        turn.num_read = memory.contexts.gen.length
        return turn

    # -- all requests in step ------------------------------------------------------------------------------------

    def _run(self, turns: list[Turn]) -> list[UnifiedResult]:
        while active := [turn for turn in turns if not turn.is_done]:
            self._decide(active)
            active = [turn for turn in active if not turn.is_done]
            self._speak([turn for turn in active if turn.next and turn.next.kind == "text"])
            drawing = [turn for turn in active if turn.next and turn.next.kind == "image"]
            self._think([turn for turn in drawing if turn.think_ids is not None and not turn.num_images])
            self._draw(drawing)
        return [
            UnifiedResult(tuple(turn.outputs), tuple(turn.decisions), turn.request.seed, turn.num_read)
            for turn in turns
        ]

    def _decide(self, turns: Sequence[Turn]) -> None:
        """What comes next in every turn."""
        asking = [turn for turn in turns if turn.next is None and turn.asks_model]
        for turn in asking:
            self.reader.catch_up(turn.memory, draws=turn.memory.is_whole)
        for turn, decision in zip(asking, self._ask_model(asking), strict=True):
            if decision is not None:
                turn.how, turn.next, turn.plan = "learned", decision, []
        for turn in turns:
            if turn.next is None:
                end = Decision("end", turn.how, t("nothing more is planned"))
                turn.next = turn.plan.pop(0) if turn.plan else end
            if turn.num_images + sum(o.kind == "text" for o in turn.outputs) >= turn.most:
                turn.next = Decision("end", turn.how, t("the longest answer is reached"))
            if turn.next.kind == "end":
                turn.is_done = True
            elif turn.next.kind == "image":
                self.reader.catch_up(turn.memory, draws=True)
            turn.decisions.append(turn.next)

    def _ask_model(self, turns: Sequence[Turn]) -> list[Decision | None]:
        """The model's likeliest marker behind the last closing marker; None where ``auto`` finds it has no opinion."""
        if not turns:
            return []
        special = self.model.config.special
        last = [special.image_end if turn.memory.parts[-1].is_image else special.eos for turn in turns]
        found: list[Decision | None] = []
        logits = logits_after(self.model, [turn.memory.contexts.gen for turn in turns], last)
        for turn, logits_V in zip(turns, logits, strict=True):
            chances = logits_V.softmax(-1)
            markers = {"image": special.image_start, "text": special.bos, "end": special.eos}
            if not turn.outputs:  # an answer is never empty
                del markers["end"]
            kind = max(markers, key=lambda name: float(chances[markers[name]]))
            is_sure = int(logits_V.argmax()) == markers[kind]
            reason = ", ".join(f"p({name}) = {float(chances[token]):.3f}" for name, token in markers.items())
            is_taken = is_sure or turn.request.output == "learned"
            found.append(Decision(kind, "learned", reason) if is_taken else None)  # type: ignore[arg-type]
        return found

    def _speak(self, turns: Sequence[Turn]) -> None:
        """Texts: together where length, temperature and end agree."""
        special = self.model.config.special
        for turn, answer in self._decoded(turns, lambda turn: turn.request.max_new_tokens, is_free=True):
            begun, turn.next = turn.next, None
            assert begun is not None
            whole = self.reader.text(answer.ids)
            text = turn.up_to_stop(whole)
            is_stopped, is_cut = text != whole, turn.how != "control" and IMAGE_MARK in text
            if is_cut:
                text, is_stopped = text.split(IMAGE_MARK, 1)[0], False
            ids = self.reader.encode(text) if text != whole else tuple(answer.ids)
            if answer.end == special.image_start and not ids:  # it began with a picture
                turn.how, turn.next = "learned", Decision("image", "learned", t("the model wrote an image start"))
                continue
            turn.memory.parts.append(Part(ids, is_own=True))
            if turn.think_ids is not None and THOUGHT_END in text:
                thought, text = text.split(THOUGHT_END, 1)
                turn.outputs.append(Output("thought", begun, thought.replace("<think>", "").strip()))
            finish = "stop" if answer.is_ended or is_cut or is_stopped else "length"
            turn.outputs.append(Output("text", begun, text.strip(), ids, finish))  # type: ignore[arg-type]
            if is_stopped:
                if turn.how != "control":
                    turn.next, turn.plan = Decision("end", "control", t("the text came to a stop string")), []
            elif answer.end == special.image_start:
                turn.how, turn.next = "learned", Decision("image", "learned", t("the model wrote an image start"))
            elif is_cut:
                turn.next = Decision("image", "rule", t("the model wrote {mark}", mark=IMAGE_MARK))
                turn.plan = [Decision("text", "rule", t("the text was cut at {mark}", mark=IMAGE_MARK))]

    def _think(self, turns: Sequence[Turn]) -> None:
        """Thoughts before the first picture: read into the full context alone, as the original does."""
        for turn, answer in self._decoded(turns, lambda turn: turn.request.max_think_tokens, is_free=False):
            read_text(self.model, [turn.memory.contexts.gen], [answer.ids])
            text = self.reader.text(answer.ids).replace("<think>", "").split(THOUGHT_END)[0].strip()
            finish = "stop" if answer.is_ended else "length"
            assert turn.next is not None
            turn.outputs.append(Output("thought", turn.next, text, tuple(answer.ids), finish))  # type: ignore[arg-type]

    def _decoded(self, turns: Sequence[Turn], length: Any, *, is_free: bool) -> Iterable[tuple[Turn, Any]]:
        special = self.model.config.special
        groups: dict[tuple[int, Sampling, bool], list[Turn]] = {}
        for turn in turns:
            self.reader.catch_up(turn.memory, draws=turn.memory.is_whole)
            may_start = is_free and turn.how != "control"
            sampling = Sampling(turn.request.temperature, turn.request.top_p)
            groups.setdefault((length(turn), sampling, may_start), []).append(turn)
        for (longest, sampling, may_start), members in groups.items():
            answers = generate_text(
                self.model,
                [turn.memory.contexts.gen for turn in members],
                max_new_tokens=longest,
                end_id=(special.eos, special.image_start) if may_start else None,
                sampling=sampling,
                generators=[turn.generator for turn in members],
                is_over=partial(self._is_stopped, members) if is_free else None,
            )
            yield from zip(members, answers, strict=True)

    def _is_stopped(self, turns: Sequence[Turn], number: int, ids: Sequence[int]) -> bool:
        turn = turns[number]
        if not turn.request.stop:
            return False
        text = self.reader.text(ids)
        return turn.up_to_stop(text) != text

    def _draw(self, turns: Sequence[Turn]) -> None:
        """Pictures: together where the settings agree, whatever their sizes."""
        groups: dict[DrawSettings, list[Turn]] = {}
        for turn in turns:
            settings = turn.request.drawing(has_image=turn.is_edit)
            groups.setdefault(settings, []).append(turn)
        for settings, members in groups.items():
            drawings = [self._drawing(turn) for turn in members]
            for turn, drawing, latent in zip(members, drawings, draw(self.model, drawings, settings), strict=True):
                pixels = to_bytes(decode(self.model, latent, drawing.rows, drawing.cols))
                image = Image.fromarray(pixels)
                begun, turn.next = turn.next, None
                assert begun is not None
                turn.outputs.append(Output("image", begun, image=image, latent=latent))
                turn.memory.parts.append(Part(image, is_own=True))

    def _drawing(self, turn: Turn) -> Drawing:
        request, contexts, stride = turn.request, turn.memory.contexts, self.model.config.latent_stride_px
        width, height = request.image_size or contexts.image_hw[::-1]
        rows, cols = (max(1, side // stride) for side in (height, width))
        number = turn.num_images
        if request.noise is not None and not number:
            noise = request.noise
        else:
            seed = request.seed if not number else derive_seed(request.seed, "picture", number)
            noise = start_noise(self.model, rows, cols, seed)
        return Drawing(rows, cols, noise, contexts.gen, contexts.cfg_text, contexts.cfg_img)


class Dialogue:
    """Turns of a conversation; what was said before is not read again unless a picture first needs it read as latents.

    Args:
        inferencer: who answers.
        options: of every turn.
    """

    def __init__(self, inferencer: InterleaveInferencer, options: dict[str, Any]) -> None:
        self.inferencer, self.options = inferencer, options
        self.memory = Memory(inferencer.reader.empty())

    def say(self, prompt: Any, **options: Any) -> UnifiedResult:
        """Answer the next turn; arguments as for :meth:`InterleaveInferencer.unified_generate`."""
        request = request_of(prompt, {**self.options, **options})
        turn = self.inferencer._begin(request, self.memory)
        return self.inferencer._run([turn])[0]


def load_model(
    folder: Path | str, *, device: str = "auto", dtype: str = "auto", weights: Path | None = None, load_in: str = ""
) -> BagelModel:
    """A BAGEL model for inference.

    Args:
        folder: the official folder.
        device: ``auto``, ``cpu`` or ``cuda``.
        dtype: ``auto`` (float32 on the CPU, bfloat16 on a GPU), ``float32``, ``bfloat16`` or ``float16``.
        weights: another weight file, e.g. ``trained_model.pt``.
        load_in: ``nf4`` or ``int8`` keeps the decoder's matrices in 4 or 8 bits; slower on a CPU, much smaller.

    Raises:
        DataError: files are missing or damaged. ConfigError: unknown device or ``load_in``.
    """
    from bettersynth.infer._torch import choose_device
    from bettersynth.models.bagel.convert import load_checkpoint

    place, usual = choose_device(device)
    kind = usual if dtype == "auto" else getattr(torch, dtype)
    model = load_checkpoint(Path(folder), dtype=kind, weights=weights, load_in=load_in)
    return model.to(place).requires_grad_(False)
