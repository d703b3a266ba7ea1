"""A caption must fit its own picture better than a similar sample's picture, by a margin.

Similar samples are put into one forward pass; each sample's loss is then also computed with its partner's picture, and
where the wrong picture explains the text (nearly) as well as the right one, the difference is trained apart.

Source: the max-margin objective with hard negatives of Faghri et al., "VSE++" (2018), with the model's own negative log
likelihood as the (negative) matching score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse
from torch import nn

from bettersynth.config.train import Number
from bettersynth.models.family import Batch, LossOutput
from bettersynth.train.technique import LossFn, Technique, sample_means

_POOL_BATCHES = 8
"""Partners are looked for among the samples of this many consecutive steps."""


class Settings(BaseModel):
    """Keys of ``hard_negatives``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: Number = Field(0.2, gt=0)
    """How much the margin term counts beside the mean token loss."""
    margin: Number = Field(0.5, gt=0)
    """By how many nats per token the right picture must be better."""


class HardNegatives(Technique):
    """Pairs of similar samples; two forward passes a batch."""

    is_detailed = True
    needs = ("swap_images",)

    def order(self, order: list[int]) -> list[int]:
        """Inside each stretch of a few steps, put similar samples beside each other.

        With steps of one modality only the samples inside a step move.
        """
        spec = self.run.spec
        pool = spec.global_batch * (1 if spec.is_grouped else _POOL_BATCHES)
        result: list[int] = []
        for at in range(0, len(order), pool):
            result.extend(self._paired(order[at : at + pool], spec.micro_batch))
        return result

    def _paired(self, part: list[int], micro_batch: int) -> list[int]:
        if micro_batch < 2:
            return part
        similar = self._similarity(part)
        free = dict.fromkeys(range(len(part)))
        pairs: list[int] = []
        while len(free) > 1:
            first = next(iter(free))
            del free[first]
            others = np.fromiter(free, np.int64)
            partner = int(others[np.argmax(similar[first, others])])
            del free[partner]
            pairs += [part[first], part[partner]]
        return pairs + [part[place] for place in free]

    def _similarity(self, part: list[int]) -> np.ndarray:
        """(n, n) overlap of the target tokens' sets, rare tokens weighing more; 0 for equal texts."""
        examples = [self.run.data.examples[index] for index in part]
        sets = [sorted({label for label in example.labels if label >= 0}) for example in examples]
        indptr = np.cumsum([0, *map(len, sets)])
        columns = np.array([token for tokens in sets for token in tokens], np.int64)
        names, columns = np.unique(columns, return_inverse=True)
        shape = (len(part), max(1, len(names)))
        matrix = sparse.csr_matrix((np.ones(len(columns)), columns, indptr), shape)
        rarity = np.log1p(
            len(part) / np.maximum(1, matrix.sum(0).A1 if hasattr(matrix.sum(0), "A1") else matrix.sum(0))
        )
        weighted = matrix.multiply(np.sqrt(np.asarray(rarity).reshape(1, -1))).tocsr()
        common = (weighted @ weighted.T).toarray()
        own = common.diagonal()
        overlap: np.ndarray = common / np.maximum(own[:, None] + own[None] - common, 1e-12)
        overlap[overlap > 1 - 1e-9] = 0.0
        alone = np.array([len(example.images) != 1 for example in examples])
        overlap[alone], overlap[:, alone] = -1.0, -1.0
        return overlap

    def loss(self, inner: LossFn, model: nn.Module, batch: Batch, indices: Sequence[int]) -> LossOutput:
        """The plain loss, and the margin between right and partner's pictures."""
        plain = inner(model, batch)
        examples = [self.run.data.examples[index] for index in indices]
        partner = list(range(len(indices)))
        with_one = [place for place, example in enumerate(examples) if len(example.images) == 1]
        for one, other in zip(with_one[::2], with_one[1::2], strict=False):
            if examples[one].images != examples[other].images and examples[one].labels != examples[other].labels:
                partner[one], partner[other] = other, one
        if all(place == other for place, other in enumerate(partner)):
            return plain
        pictures = np.cumsum([0, *(len(example.images) for example in examples)])
        source = [
            int(pictures[partner[place]]) + number
            for place, example in enumerate(examples)
            for number in range(len(example.images))
        ]
        family = self.run.family
        swapped = family.swap_images(batch, torch.tensor(source, device=plain.loss_sum.device))  # type: ignore[attr-defined]
        wrong = sample_means(inner(model, swapped), len(indices))
        right = sample_means(plain, len(indices))
        is_pair = torch.tensor([place != other for place, other in enumerate(partner)], device=right.device)
        short = torch.relu(float(self.settings.margin) + right - wrong)[is_pair].mean()
        # Times the number of targets, so that it weighs the same in a mean over tokens whatever the batch.
        extra = float(self.settings.weight) * short * plain.num_targets
        return LossOutput(plain.loss_sum + extra, plain.num_targets, detail=plain.detail)


TECHNIQUE = HardNegatives
