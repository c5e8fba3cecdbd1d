"""`panda serve`: an OpenAI-compatible endpoint in front of one loaded model."""
