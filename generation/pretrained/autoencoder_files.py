"""Autoencoders of latent models, by folder or by name on the Hub: found, hashed and described.

diffusers' AutoencoderKL, AutoencoderKLFlux2 or VQModel: a folder with its config.json and weights,
or the folder of a pipeline, whose autoencoder is in vae/ or vqvae/. Nothing here imports torch.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from generation.pretrained.diffusers_folder import (
    HUB_NAME,
    SUFFIXES,
    model_sha256,
    reaching_hub,
    weights,
)
from generation.pretrained.finetuned import lasting_name
from release.errors import UserError

CONFIG = "config.json"
COMPONENTS = ("", "vae", "vqvae")  # where within a model the autoencoder may be
Kind = Literal["AutoencoderKL", "AutoencoderKLFlux2", "VQModel"]
KINDS: tuple[str, ...] = get_args(Kind)
REPRESENTATION = ("AutoencoderRAE",)  # which has no levels; for one family of generators alone
OTHERWISE = "or name its folder"


@dataclass(frozen=True)
class AutoencoderFiles:
    """name: by which others find it. folder: with its config and weights."""

    name: str
    folder: Path

    @cached_property
    def sha256(self) -> str:
        """One hash over config and weights."""
        return model_sha256(self.folder, (".",))

    @cached_property
    def config(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / CONFIG).read_text())
        return content

    @property
    def kind(self) -> Kind:
        kind: Kind = self.config["_class_name"]
        return kind

    @property
    def factor(self) -> int:
        """Pixels that a latent's side stands for."""
        return int(2 ** (len(self.config["block_out_channels"]) - 1))

    @property
    def channels(self) -> int:
        """Of its latents."""
        latent = int(self.config.get("latent_channels", 4))
        width = self.config.get("vq_embed_dim") if self.kind == "VQModel" else None
        return latent if width is None else int(width)

    @property
    def scaling_factor(self) -> float:
        if self.kind == "AutoencoderKLFlux2":  # whose latents are normalised by its own statistics
            return 1.0
        return float(self.config.get("scaling_factor", 0.18215))

    @property
    def shift_factor(self) -> float:
        return float(self.config.get("shift_factor") or 0.0)

    def side(self, resolution: int) -> int:
        """Of the latents of images of `resolution` px; UserError for images it cannot divide."""
        if resolution % self.factor:
            raise UserError(
                f"autoencoder {self.name} makes a latent of {self.factor} x {self.factor} pixels: "
                f"images of {resolution} px do not divide by {self.factor}"
            )
        return resolution // self.factor


def locate_autoencoder(name: str, kinds: tuple[str, ...] = KINDS) -> AutoencoderFiles:
    """The autoencoder of that folder, or of OWNER/NAME[@REVISION] on the Hub, fetched if need be.

    kinds: classes of diffusers' that it may be of. UserError, one line, where there is none, and
    for one of another class.
    """
    folder = Path(name)
    if folder.is_dir():
        return _within(name, folder, kinds)
    hub = HUB_NAME.fullmatch(name)
    if hub is None:
        raise UserError(
            f"autoencoder {name!r} is neither a folder nor a model's name on the Hub, OWNER/NAME "
            "or OWNER/NAME@REVISION"
        )
    return _within(name, _on_hub(hub["repo"], hub["revision"], kinds), kinds)


def autoencoder_beside(file: Path, name: str, kinds: tuple[str, ...] = KINDS) -> AutoencoderFiles:
    """The Hub's `name`, from the folder of its last part beside `file` if there is one."""
    beside = file.parent / name.split("/")[1]
    return locate_autoencoder(str(beside) if beside.is_dir() else name, kinds)


def require_autoencoder(name: str, sha256: str) -> AutoencoderFiles:
    """The one of that name; UserError if its files have another hash."""
    found = locate_autoencoder(name)
    if found.sha256 != sha256:
        raise UserError(
            f"autoencoder {name} is another one here: SHA-256 {found.sha256[:12]}…, wanted is "
            f"{sha256[:12]}…"
        )
    return found


def _on_hub(repo: str, revision: str | None, kinds: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    for component in COMPONENTS:
        config = f"{component}/{CONFIG}".lstrip("/")
        cached = try_to_load_from_cache(repo, config, revision=revision)
        if isinstance(cached, str) and _is_whole(Path(cached).parent, kinds):
            return Path(cached).parent.parent if component else Path(cached).parent
    patterns = [f"{c}/{CONFIG}".lstrip("/") for c in COMPONENTS]
    with reaching_hub(repo, revision, OTHERWISE):
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
        for component, suffix in ((c, s) for c in COMPONENTS for s in SUFFIXES):
            place = folder / component
            if _is_autoencoder(place, kinds) and not _is_whole(place, kinds):
                some = f"{component}/diffusion_pytorch_model*{suffix}".lstrip("/")
                snapshot_download(repo, revision=folder.name, allow_patterns=[some])
    return folder


def _within(name: str, folder: Path, kinds: tuple[str, ...]) -> AutoencoderFiles:
    for component in COMPONENTS:
        place = folder / component
        if _is_autoencoder(place, kinds):
            if not _is_whole(place, kinds):
                raise UserError(f"autoencoder {name} has no complete weights in {place}")
            return AutoencoderFiles(lasting_name(name, folder), place)
    raise UserError(f"{name} holds no autoencoder: no {CONFIG} of {' or '.join(kinds)} there")


def _is_autoencoder(place: Path, kinds: tuple[str, ...]) -> bool:
    try:
        content = json.loads((place / CONFIG).read_text())
        kind = content["_class_name"]
        levels = kind in REPRESENTATION or len(content["block_out_channels"]) > 0
        return kind in kinds and levels
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_whole(place: Path, kinds: tuple[str, ...]) -> bool:
    return _is_autoencoder(place, kinds) and weights(place) is not None
