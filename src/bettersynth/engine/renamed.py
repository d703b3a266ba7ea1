"""Operators of older Data-Juicer versions that live on under another name."""

from __future__ import annotations

RENAMED = {
    "word_num_filter": "words_num_filter",
    "words_number_filter": "words_num_filter",
    "flagged_word_filter": "flagged_words_filter",
    "special_character_filter": "special_characters_filter",
    "stopword_filter": "stopwords_filter",
    "document_min_hash_deduplicator": "document_minhash_deduplicator",
    "image_captioning_from_blip2_mapper": "image_captioning_mapper",
    "generate_caption_mapper": "image_captioning_mapper",
    "image_diffusion_augmentation_mapper": "image_diffusion_mapper",
    "generate_instruction_mapper": "generate_qa_from_examples_mapper",
    "optimize_instruction_mapper": "optimize_qa_mapper",
    "extract_qa_mapper": "generate_qa_from_text_mapper",
    "ray_document_deduplicator": "document_deduplicator",
    "ray_image_deduplicator": "image_deduplicator",
    "ray_video_deduplicator": "video_deduplicator",
    "ray_bts_minhash_deduplicator": "document_minhash_deduplicator",
}

_RAY_KEYS = ("backend", "redis_address", "union_find_parallel_num", "union_threshold", "max_pending_edge_buffer_task")
_RAY_MORE = ("num_edge_buffers", "hash_set_num", "num_edge_buffer_task_returns", "merge_batch_size", "work_dir")

OLD_PARAMETERS = {
    "remove_repeat_sentences_mapper": ("tokenizer",),
    "": ("use_actor", "model_key"),
    **{name: (*_RAY_KEYS, *_RAY_MORE) for name in RENAMED if name.startswith("ray_")},
}
"""Parameters of older versions that no longer mean anything, by operator (or "" for all)."""


def current_name(name: str) -> str:
    """The name under which an operator is served now."""
    return RENAMED.get(name, name)
