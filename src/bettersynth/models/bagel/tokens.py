"""The tokenizer of a BAGEL folder, and the ids of the four markers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.models.bagel.config import SpecialTokens
from bettersynth.models.bagel.files import TOKENIZER_FILE


class BagelTokenizer:
    """Text to ids and back. Markers that the file lacks are added behind its last id.

    Args:
        folder: holds ``tokenizer.json``.

    Raises:
        DataError: the file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / TOKENIZER_FILE
        if not path.is_file():
            raise DataError(t("file not found"), where=str(path))
        try:
            self.backend = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises a bare Exception for damaged files
            raise DataError(t("not readable JSON"), where=str(path), got=error) from error
        absent = [name for name in SpecialTokens.NAMES if self.backend.token_to_id(name) is None]
        self.backend.add_special_tokens([AddedToken(name, special=True) for name in absent])
        self.num_added = len(absent)
        self.special = SpecialTokens(*(self.backend.token_to_id(name) for name in SpecialTokens.NAMES))

    def encode(self, text: str) -> list[int]:
        """Ids without markers around them."""
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; markers among them are left out."""
        markers = {self.special.bos, self.special.eos, self.special.image_start, self.special.image_end}
        return str(self.backend.decode([i for i in ids if i not in markers], skip_special_tokens=False))


def special_tokens(folder: Path) -> SpecialTokens | None:
    """Marker ids of a folder's tokenizer; None without one, then ``special_tokens.json`` or the defaults hold."""
    return BagelTokenizer(folder).special if (folder / TOKENIZER_FILE).is_file() else None
