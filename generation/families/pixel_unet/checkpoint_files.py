"""Finding and checking checkpoints on disk, without importing torch."""

from pathlib import Path

from generation.pretrained.source_files import files_sha256
from release.errors import UserError, unknown_name

BUILTIN = Path(__file__).parents[2] / "checkpoints"
STAGE_FILE = "stage.json"
HASHED_FILES = (
    "config.json",
    "diffusion_pytorch_model.safetensors",
    "prompts.safetensors",
    STAGE_FILE,
)


def resolve_checkpoint(name: str) -> Path:
    """The folder of `builtin:NAME` or of a path; raises UserError if it is not a checkpoint."""
    if name.startswith("builtin:"):
        builtin = name.removeprefix("builtin:")
        options = [p.name for p in BUILTIN.iterdir() if p.is_dir()]
        if builtin not in options:
            raise unknown_name("built-in checkpoint", builtin, options)
        return BUILTIN / builtin
    folder = Path(name)
    missing = [f for f in HASHED_FILES if not (folder / f).is_file()]
    if missing:
        raise UserError(
            f"{name} is not a checkpoint: no {missing[0]} there; "
            "give builtin:NAME or a folder that finetune-generator wrote"
        )
    return folder


def checkpoint_sha256(folder: Path) -> str:
    """One hash over the files that decide the pixels, in a fixed order."""
    return files_sha256(folder, HASHED_FILES)
