"""Readers and writers of data files: rows in the Data-Juicer view and conversations in the LLaVA view."""
