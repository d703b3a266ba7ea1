"""Data-Juicer's own operators inside our accounting: they run in a process of their own, with their own Python."""
