"""Pages, tables and sentences made from records; computes no result of its own."""
