"""The small model, and video files for it."""

from tests.inference.conftest import clip as clip
from tests.inference.conftest import make_clip as make_clip
from tests.inference.conftest import panda as panda
