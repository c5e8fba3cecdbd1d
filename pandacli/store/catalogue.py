"""The models that panda knows by name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownModel:
    """A model with a name of its own.

    Args:
        name: What `--model` takes.
        summary: What it is, in a few words.
        repo: The Hugging Face repository that publishes it; None for one shipped with panda.
        subfolder: The folder of that repository that holds the checkpoint.
    """

    name: str
    summary: str
    repo: str | None = None
    subfolder: str | None = None

    @property
    def download_command(self) -> str:
        """The command that puts the model into the Hugging Face cache, where panda finds it."""
        return f"hf download {self.repo} --include '{self.subfolder}/*'"


_OFFICIAL = "jh-yi/Video-Panda-7B"

DEFAULT_MODEL = "video-panda-7b"

MODELS: dict[str, KnownModel] = {
    model.name: model
    for model in (
        KnownModel(
            "video-panda-7b", "the paper's instruction-tuned model", _OFFICIAL, "videopanda_fitu"
        ),
        KnownModel(
            "video-panda-7b-pretrained",
            "the paper's stage-2 weights",
            _OFFICIAL,
            "videopanda_prtr1",
        ),
        KnownModel("tiny", "our own small model of moving shapes, shipped with panda"),
    )
}
