"""Conversations: turns, undo, transcripts and the log on disk."""
