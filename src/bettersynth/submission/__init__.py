"""Pack a submission and refuse, with reasons, what its track's rules refuse."""
