"""A record's texts and pictures as the plan of one sample: what is read, what is learnt, what may be dropped.

| segment | plan |
| --- | --- |
| text of user or system | text; droppable if a picture is drawn later |
| text of the assistant | text with cross-entropy |
| picture of the user, nothing drawn later | ViT |
| picture of the user, a picture is drawn later | clean latents, ViT; both droppable then |
| picture of the assistant | latents with squared error; if anything follows, also clean latents and ViT |

With ``learn_next_kind`` the closing marker before something of the assistant learns what it is, and the last one learns
that nothing follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.core.sample import Conversation, Segment
from bettersynth.media.header import read_header
from bettersynth.models.bagel.config import BagelConfig
from bettersynth.models.bagel.packing import PlanItem, Sample
from bettersynth.models.bagel.resize import ResizeRule
from bettersynth.models.bagel.tokens import BagelTokenizer
from bettersynth.models.family import Rejected


@dataclass(frozen=True, slots=True)
class Picture:
    """One use of a picture: its file, whether it is seen or turned into latents, and its size then.

    Attributes:
        kind: ``vit_image`` or ``vae_image``.
        size: (height, width) in pixels after resizing.
    """

    path: str
    kind: str
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class UnifiedExample:
    """One record, tokenised; ``images[i]`` belongs to the i-th picture item of the plan.

    Attributes:
        num_tokens: length when nothing is dropped.
        num_cut: segments cut off because the record was too long.
        num_text_targets, num_image_targets: tokens of either loss.
        text_weight: sum of 1 / sqrt(length) over the text targets.
        num_vit, num_vae: tokens of pictures to be seen, and of latents.
    """

    key: str
    sample: Sample
    images: tuple[Picture, ...]
    num_tokens: int
    num_cut: int
    num_text_targets: int
    num_image_targets: int
    text_weight: float
    num_vit: int
    num_vae: int

    @property
    def kind(self) -> str:
        """What is learnt: ``text``, ``image`` or ``mixed``."""
        if self.num_text_targets and self.num_image_targets:
            return "mixed"
        return "text" if self.num_text_targets else "image"


@dataclass(frozen=True)
class RecordEncoder:
    """Conversations to examples; opens only the headers of pictures.

    Attributes:
        config: sizes of the model.
        tokenizer: of the model.
        image_root: folder that picture paths start from.
        vae_rule, vit_rule: how pictures are resized.
        max_length: longest sample in tokens; longer ones are cut at a segment's border.
        learn_next_kind: whether closing markers learn what comes next.
    """

    config: BagelConfig
    tokenizer: BagelTokenizer
    image_root: Path
    vae_rule: ResizeRule
    vit_rule: ResizeRule
    max_length: int
    learn_next_kind: bool = False

    def encode(self, record: Conversation) -> UnifiedExample | Rejected:
        """An example, or why the record cannot be learnt from."""
        segments = list(record.segments)
        whole, longest = len(segments), 0
        try:
            sizes = {image.path: self._header(image.path) for image in record.images}
            while segments:
                _until_last_target(segments)
                example = self._build(record.id, segments, sizes, whole) if segments else None
                if example is not None and example.num_tokens <= self.max_length:
                    return example
                if segments:
                    longest = example.num_tokens if example is not None else 0
                    segments.pop()
        except DataError as error:
            # A table of positions that is too small is the reader's to mend, a missing picture too.
            reason = "bad_image" if error.where is not None else "bad_size"
            detail = error.message if error.where is None else f"{error.message}: {error.where}"
            return Rejected(record.id, reason, detail)
        if not any(segment.is_target for segment in record.segments):
            return Rejected(record.id, "no_target", t("nothing in this record can be learnt"))
        detail = t("{n} tokens up to the first target; at most {most}", n=longest, most=self.max_length)
        return Rejected(record.id, "too_long", detail)

    def _header(self, path: str) -> tuple[int, int]:
        header = read_header(self.image_root / path)
        return header.width, header.height

    def _build(
        self, key: str, segments: Sequence[Segment], sizes: dict[str, tuple[int, int]], whole: int
    ) -> UnifiedExample:
        writer = _PlanWriter(self, sizes, sum(segment.kind == "image" for segment in segments))
        for index, segment in enumerate(segments):
            writer.add(segment, segments[index + 1 :])
        return writer.example(key, whole - len(segments))


def _until_last_target(segments: list[Segment]) -> None:
    """Nothing after the last target is ever learnt or seen by a target."""
    while segments and not segments[-1].is_target:
        segments.pop()


class _PlanWriter:
    """Collects the plan of one record."""

    def __init__(self, encoder: RecordEncoder, sizes: dict[str, tuple[int, int]], num_images: int) -> None:
        self.encoder, self.sizes, self.num_images = encoder, sizes, num_images
        self.plan: list[PlanItem] = []
        self.texts: list[tuple[int, ...]] = []
        self.pictures: list[Picture] = []
        self.tokens = {"text": 0, "vit_image": 0, "vae_image": 0, "markers": 0}
        self.text_targets, self.image_targets, self.text_weight = 0, 0, 0.0

    def add(self, segment: Segment, later: Sequence[Segment]) -> None:
        """Append one segment; ``later`` are those after it."""
        is_drawn_later = any(other.kind == "image" and other.is_target for other in later)
        label = self._next_kind(segment, later)
        if segment.kind == "text":
            self._text(segment, label, is_drawn_later)
            return
        if segment.is_target:
            self._picture(segment, "vae_image", loss=True)
        if is_drawn_later or (segment.is_target and (later or label is not None)):
            self._picture(segment, "vae_image", enable_cfg=is_drawn_later)
        if later or label is not None:
            self._picture(segment, "vit_image", enable_cfg=is_drawn_later, label=label)

    def _text(self, segment: Segment, label: int | None, is_drawn_later: bool) -> None:
        ids = tuple(self.encoder.tokenizer.encode(segment.text))
        self.plan.append(
            PlanItem(
                type="text",
                enable_cfg=is_drawn_later and not segment.is_target,
                loss=segment.is_target,
                special_token_loss=label is not None,
                special_token_label=label,
            )
        )
        self.texts.append(ids)
        self.tokens["text"] += len(ids) + 2
        if segment.is_target:
            self.text_targets += len(ids) + 1
            self.text_weight += (len(ids) + 1) ** 0.5
        self._count_label(label)

    def _count_label(self, label: int | None) -> None:
        if label is not None:
            self.text_targets += 1
            self.text_weight += 1.0

    def _next_kind(self, segment: Segment, later: Sequence[Segment]) -> int | None:
        """What the closing marker of a segment learns: image start, bos of a text, or eos for the end of all."""
        special = self.encoder.config.special
        if not self.encoder.learn_next_kind:
            return None
        if not later:
            return special.eos
        if not later[0].is_target:
            return None
        return special.image_start if later[0].kind == "image" else special.bos

    def _picture(
        self,
        segment: Segment,
        kind: str,
        *,
        loss: bool = False,
        enable_cfg: bool = False,
        label: int | None = None,
    ) -> None:
        assert segment.image is not None
        encoder, config = self.encoder, self.encoder.config
        is_vit = kind == "vit_image"
        rule, stride = (
            (encoder.vit_rule, config.vit.patch_size) if is_vit else (encoder.vae_rule, config.latent_stride_px)
        )
        width, height = rule.size(*self.sizes[segment.image.path], self.num_images if is_vit else 1)
        side = config.vit_max_num_patch_per_side if is_vit else config.max_latent_size
        if max(width, height) // stride > side and not config.interpolate_pos:
            raise DataError(
                t(
                    "{path} becomes {w} x {h} px, more than the {n} positions of {stride} px per side of the model",
                    path=segment.image.path,
                    w=width,
                    h=height,
                    n=side,
                    stride=stride,
                )
            )
        count = (height // stride) * (width // stride)
        self.plan.append(
            PlanItem(
                type=kind,
                loss=loss,
                enable_cfg=enable_cfg,
                special_token_loss=label is not None,
                special_token_label=label,
            )
        )
        self._count_label(label)
        self.pictures.append(Picture(segment.image.path, kind, (height, width)))
        self.tokens[kind] += count
        self.tokens["markers"] += 2
        self.image_targets += count if loss else 0

    def example(self, key: str, num_cut: int) -> UnifiedExample:
        """What has been collected."""
        sample = Sample(tuple(self.plan), tuple(self.texts), tuple(picture.size for picture in self.pictures))
        return UnifiedExample(
            key=key,
            sample=sample,
            images=tuple(self.pictures),
            num_tokens=sum(self.tokens.values()),
            num_cut=num_cut,
            num_text_targets=self.text_targets,
            num_image_targets=self.image_targets,
            text_weight=self.text_weight,
            num_vit=self.tokens["vit_image"],
            num_vae=self.tokens["vae_image"],
        )
