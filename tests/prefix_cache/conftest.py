"""The small model and a clip for it."""

from tests.inference.conftest import clip, make_clip, panda

__all__ = ["clip", "make_clip", "panda"]
