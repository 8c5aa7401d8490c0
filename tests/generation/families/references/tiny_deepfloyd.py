"""The three models of DeepFloyd IF's chain, tiny, untrained and of the real classes.

Saved as they are published. 8 → 32 → 128 px: the factors of 64 → 256 → 1024.
"""

import json
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel

PROMPTS = ("crane bird", "construction crane", "kite bird", "tench fish")
STAGES = ("if-1", "if-2", "x4")


def save_chain(folder: Path) -> Path:
    """The three, in `folder`/STAGES."""
    torch.manual_seed(0)
    save_base(folder / "if-1")
    save_super_resolution(folder / "if-2")
    save_upscaler(folder / "x4")
    return folder


def save_t5(folder: Path) -> None:
    """T5 with a tokenizer that is a SentencePiece model only, as DeepFloyd publishes it."""
    import sentencepiece

    (folder / "tokenizer").mkdir(parents=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(PROMPTS * 5),
        model_prefix=str(folder / "tokenizer" / "spiece"),
        vocab_size=40,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "tokenizer" / "spiece.vocab").unlink()
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 4, "model_max_length": 512}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(config))
    shape = T5Config(
        vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, is_decoder=False
    )
    T5EncoderModel(shape).save_pretrained(folder / "text_encoder")


def save_clip(folder: Path, length: int = 20) -> None:
    """length: tokens a prompt may take, one a letter here."""
    tokens = ["<|startoftext|>", "<|endoftext|>", *ascii_lowercase]
    tokens += [f"{letter}</w>" for letter in ascii_lowercase]
    vocab = {token: i for i, token in enumerate(tokens)}
    CLIPTokenizer(vocab=vocab, merges=[], model_max_length=length).save_pretrained(
        folder / "tokenizer"
    )
    shape = CLIPTextConfig(
        vocab_size=len(vocab),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=length,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    CLIPTextModel(shape).save_pretrained(folder / "text_encoder")


def if_unet(
    in_channels: int, size: int, level: str | None, halvings: int = 1
) -> UNet2DConditionModel:
    """IF's own block types, text pooling, scale-shift norm and variance channels.

    halvings: of the side, before it attends.
    """
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=in_channels,
        out_channels=6,
        layers_per_block=1,
        block_out_channels=(*(8,) * halvings, 16),
        down_block_types=(
            *("ResnetDownsampleBlock2D",) * halvings,
            "SimpleCrossAttnDownBlock2D",
        ),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", *("ResnetUpsampleBlock2D",) * halvings),
        cross_attention_dim=16,
        encoder_hid_dim=16,
        attention_head_dim=8,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        class_embed_type=level,
        resnet_time_scale_shift="scale_shift",
        time_embedding_act_fn="gelu",
        act_fn="gelu",
        norm_num_groups=4,
    )


def if_scheduler(**changes: Any) -> DDPMScheduler:
    settings = {
        "beta_schedule": "squaredcos_cap_v2",
        "variance_type": "learned_range",
        "thresholding": True,
        "dynamic_thresholding_ratio": 0.95,
        "sample_max_value": 1.5,
    }
    return DDPMScheduler(**(settings | changes))


def write_index(folder: Path, kind: str, **extra: object) -> None:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind, **extra}))


def save_base(folder: Path, side: int = 8) -> None:
    save_t5(folder)
    if_unet(3, side, None).save_pretrained(folder / "unet")
    if_scheduler().save_pretrained(folder / "scheduler")
    write_index(folder, "IFPipeline")


def save_super_resolution(folder: Path, side: int = 32, halvings: int = 1) -> None:
    save_t5(folder)
    if_unet(6, side, "timestep", halvings).save_pretrained(folder / "unet")
    if_scheduler(sample_max_value=1.0).save_pretrained(folder / "scheduler")
    noising = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    noising.save_pretrained(folder / "image_noising_scheduler")
    write_index(folder, "IFSuperResolutionPipeline")


def save_upscaler(
    folder: Path, side: int = 16, halvings: int = 1, length: int = 20, attends: bool = True
) -> None:
    """side: of the U-Net's own sample. attends: the VAE, to all latents at once, as published."""
    save_clip(folder, length)
    UNet2DConditionModel(
        sample_size=side,
        in_channels=7,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(*(8,) * halvings, 16),
        down_block_types=(*("DownBlock2D",) * halvings, "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", *("UpBlock2D",) * halvings),
        cross_attention_dim=16,
        attention_head_dim=8,
        num_class_embeds=1000,
        norm_num_groups=4,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(8, 8, 8),
        mid_block_add_attention=attends,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.08333,
    ).save_pretrained(folder / "vae")
    DDIMScheduler(
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        timestep_spacing="trailing",
    ).save_pretrained(folder / "scheduler")
    DDPMScheduler(beta_schedule="scaled_linear").save_pretrained(folder / "low_res_scheduler")
    write_index(folder, "StableDiffusionUpscalePipeline", max_noise_level=350)
