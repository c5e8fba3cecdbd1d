"""Conversations about a clip: turns on one KV cache, transcripts, and the chat behind a prompt."""
