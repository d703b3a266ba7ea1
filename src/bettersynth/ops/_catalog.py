"""All operators by name, and where removed Data-Juicer operators went."""

from __future__ import annotations

from bettersynth.core.registry import Registry
from bettersynth.ops.base import Operator, find_class

OPERATORS = Registry("operator", "bettersynth.ops", "bettersynth.operators")

REPLACED = {
    "image_captioning_from_gpt4v_mapper": "image_captioning_mapper",
    "image_captioning_from_blip2_mapper": "image_captioning_mapper",
    "ray_document_deduplicator": "document_deduplicator",
    "ray_image_deduplicator": "image_deduplicator",
    "ray_bts_minhash_deduplicator": "document_minhash_deduplicator",
    "generate_qa_from_text_mapper": "qa_from_caption_generator",
}


def operator_class(name: str) -> type[Operator]:
    """The class of a registered operator; a plug-in's entry point may name the class or its module."""
    loaded = OPERATORS.module(name)
    return loaded if isinstance(loaded, type) else find_class(loaded)
