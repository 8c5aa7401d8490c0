"""Tiny untrained models of the published classes, in the layouts they are published in."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel

from generation.families.biggan.network import BigGAN, BigGANConfig
from tests.generation.families.references.tiny_deepfloyd import save_clip, save_t5

CLASSES = 3
BIGGAN = {
    "output_dim": 16,
    "z_dim": 8,
    "class_embed_dim": 8,
    "channel_width": 8,
    "num_classes": CLASSES,
    "layers": [[False, 4, 4], [True, 4, 2], [True, 2, 1]],
    "attention_layer_position": 2,
    "eps": 1e-4,
    "n_stats": 51,
}


def randomize(module: torch.nn.Module, scale: float = 0.3) -> None:
    """Every parameter random: fresh networks have zeros that hide what multiplies them."""
    for parameter in module.parameters():
        parameter.data.normal_(0, scale)


def save_vae(folder: Path, channels: int = 4, factor_blocks: int = 2, attends: bool = True) -> None:
    """attends: in the middle, to all latents at once, as published; costly at a real size."""
    AutoencoderKL(
        block_out_channels=(8,) * factor_blocks,
        mid_block_add_attention=attends,
        down_block_types=("DownEncoderBlock2D",) * factor_blocks,
        up_block_types=("UpDecoderBlock2D",) * factor_blocks,
        latent_channels=channels,
        norm_num_groups=4,
        scaling_factor=0.18215,
    ).save_pretrained(folder)


def tiny_dit(side: int = 4, classes: int = CLASSES, says: int = 8) -> DiTTransformer2DModel:
    """Two blocks, 2x2 patches of latents; as published, every block has the same embedder."""
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=says,
        num_layers=2,
        sample_size=side,
        patch_size=2,
        num_embeds_ada_norm=classes,
    )
    randomize(transformer, 0.15)
    first, *others = (block.norm1.emb for block in transformer.transformer_blocks)
    for other in others:
        other.load_state_dict(first.state_dict())
    return transformer.eval()


def save_dit(folder: Path, side: int = 4, classes: int = CLASSES, factor_blocks: int = 2) -> Path:
    torch.manual_seed(0)
    tiny_dit(side, classes).save_pretrained(folder / "transformer")
    save_vae(folder / "vae", factor_blocks=factor_blocks)
    DDIMScheduler(beta_schedule="linear", clip_sample=False).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "DiTPipeline"}))
    return folder


def biggan_weights(config: dict[str, Any] = BIGGAN) -> dict[str, torch.Tensor]:
    """As published: for each normalised W its `_orig`, `_u` and `_v`, not the quotient."""
    network = BigGAN(BigGANConfig.model_validate(config))
    randomize(network)
    stored = {}
    for name, value in network.state_dict().items():
        if name.endswith(("running_means", "running_vars")):
            stored[name] = torch.rand_like(value) + 0.5
        elif value.ndim < 2 or name == "embeddings.weight":
            stored[name] = value
        else:
            u = torch.nn.functional.normalize(torch.randn(len(value)), dim=0)
            v = torch.nn.functional.normalize(u @ value.flatten(1), dim=0)
            stored |= {f"{name}_orig": value, f"{name}_u": u, f"{name}_v": v}
    return stored


def save_biggan(folder: Path, config: dict[str, Any] = BIGGAN) -> Path:
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(biggan_weights(config), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


# ---------------------------------------------------------------- text-to-image pipelines


def save_pixart(folder: Path, side: int = 8, factor_blocks: int = 2) -> Path:
    """T5, masks, a transformer that learns its variance; from `side` 128 it is told the size."""
    from diffusers import DPMSolverMultistepScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel
    from transformers import T5EncoderModel, T5Tokenizer

    torch.manual_seed(0)
    save_t5(folder)
    save_vae(folder / "vae", factor_blocks=factor_blocks, attends=side < 128)
    transformer = PixArtTransformer2DModel(
        sample_size=side,
        num_layers=1,
        attention_head_dim=12,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=24,
        caption_channels=16,
    )
    randomize(transformer)
    PixArtAlphaPipeline(
        tokenizer=T5Tokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=T5EncoderModel.from_pretrained(folder / "text_encoder"),
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    ).save_pretrained(folder)
    return folder


def save_sdxl(
    folder: Path, side: int = 8, factor_blocks: int = 2, halvings: int = 1, length: int = 20
) -> Path:
    """Two CLIP encoders, one of them pooled. halvings: of the side, before the U-Net attends."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
    )

    torch.manual_seed(0)
    save_clip(folder, length)
    save_vae(folder / "vae", factor_blocks=factor_blocks, attends=side < 128)
    shape = CLIPTextConfig.from_pretrained(folder / "text_encoder", projection_dim=16)
    unet = UNet2DConditionModel(
        sample_size=side,
        block_out_channels=(*(8,) * halvings, 16),
        layers_per_block=1,
        down_block_types=(*("DownBlock2D",) * halvings, "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", *("UpBlock2D",) * halvings),
        attention_head_dim=(*(2,) * halvings, 4),
        cross_attention_dim=32,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=64,
        norm_num_groups=4,
    )
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    StableDiffusionXLPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        text_encoder_2=CLIPTextModelWithProjection(shape),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=EulerDiscreteScheduler(),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def save_sd(
    folder: Path, side: int = 8, prediction: str = "epsilon", factor_blocks: int = 2
) -> Path:
    """One CLIP encoder, as Stable Diffusion 1 and 2; a network that says what `prediction` says."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    save_clip(folder)
    save_vae(folder / "vae", factor_blocks=factor_blocks)
    unet = UNet2DConditionModel(
        sample_size=side,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=16,
        norm_num_groups=4,
    )
    StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=unet,
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=prediction,
            skip_prk_steps=True,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def save_lcm(folder: Path) -> Path:
    """A pipeline whose prompts are not cached, and whose sampler adds noise at each step."""
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    save_clip(folder)
    save_vae(folder / "vae")
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=16,
        time_cond_proj_dim=8,
        norm_num_groups=4,
    )
    LatentConsistencyModelPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=unet,
        scheduler=LCMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def save_sana(folder: Path, side: int = 8, factor_blocks: int = 3) -> Path:
    """Gemma, a deep-compression autoencoder, a transformer of linear attention."""
    from diffusers import (
        AutoencoderDC,
        DPMSolverMultistepScheduler,
        SanaPipeline,
        SanaTransformer2DModel,
    )
    from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

    torch.manual_seed(0)
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *map(chr, range(33, 127))]
    tokenizer = GemmaTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[])
    text = Gemma2Config(
        vocab_size=128,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
    )
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
        sample_size=side,
    )
    randomize(transformer)
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=8,
        encoder_block_out_channels=(8,) * factor_blocks,
        decoder_block_out_channels=(8,) * factor_blocks,
        encoder_block_types=("ResBlock",) * (factor_blocks - 1) + ("EfficientViTBlock",),
        decoder_block_types=("ResBlock",) * (factor_blocks - 1) + ("EfficientViTBlock",),
        encoder_layers_per_block=(1,) * factor_blocks,
        decoder_layers_per_block=(1,) * factor_blocks,
        encoder_qkv_multiscales=((),) * factor_blocks,
        decoder_qkv_multiscales=((),) * factor_blocks,
        scaling_factor=0.41407,
    )
    SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=Gemma2Model(text),
        vae=vae,
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    ).save_pretrained(folder)
    return folder


def save_flux2_klein(folder: Path, factor_blocks: int = 2, attends: bool = True) -> Path:
    """Qwen3 with a chat template; three of its layers are read, the last of them the 27th."""
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Qwen2TokenizerFast, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    tokens = ["<|endoftext|>", *(chr(i) for i in range(33, 127)), "Ġ", "Ċ"]
    tokenizer = Qwen2TokenizerFast(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[],
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        chat_template="{% for m in messages %}{{ m.content }}{% endfor %}",
    )
    text = Qwen3Config(
        vocab_size=128,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=28,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    randomize(transformer)
    vae = AutoencoderKLFlux2(
        block_out_channels=(8,) * factor_blocks,
        down_block_types=("DownEncoderBlock2D",) * factor_blocks,
        up_block_types=("UpDecoderBlock2D",) * factor_blocks,
        mid_block_add_attention=attends,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
    )
    Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=Qwen3ForCausalLM(text),
        tokenizer=tokenizer,
        transformer=transformer,
        is_distilled=False,
    ).save_pretrained(folder)
    return folder
