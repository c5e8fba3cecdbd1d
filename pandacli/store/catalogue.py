"""The models that panda knows by name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownModel:
    """A model with a name of its own.

    Args:
        name: What `--model` takes.
        summary: What it is, in a few words.
        licence: What is known of the terms of its weights.
        repo: The Hugging Face repository that publishes it; None for one shipped with panda.
        subfolder: The folder of that repository that holds the checkpoint.
        download_bytes: About what a download weighs, to say before the network is asked.
    """

    name: str
    summary: str
    licence: str
    repo: str | None = None
    subfolder: str | None = None
    download_bytes: int = 0

    @property
    def download_command(self) -> str:
        """The command that puts the model on this machine."""
        return f"panda pull {self.name}"


_OFFICIAL = "jh-yi/Video-Panda-7B"
_OFFICIAL_LICENCE = "see the repository (Vicuna, Llama 2)"
_OFFICIAL_BYTES = 16_700_000_000  # with the tensors of the teacher, which only training needs

DEFAULT_MODEL = "video-panda-7b"

MODELS: dict[str, KnownModel] = {
    model.name: model
    for model in (
        KnownModel(
            "video-panda-7b",
            "the paper's instruction-tuned model",
            _OFFICIAL_LICENCE,
            _OFFICIAL,
            "videopanda_fitu",
            _OFFICIAL_BYTES,
        ),
        KnownModel(
            "video-panda-7b-pretrained",
            "the paper's stage-2 weights",
            _OFFICIAL_LICENCE,
            _OFFICIAL,
            "videopanda_prtr1",
            _OFFICIAL_BYTES,
        ),
        KnownModel(
            "tiny", "our own small model of moving shapes, shipped with panda", "Apache-2.0"
        ),
    )
}
