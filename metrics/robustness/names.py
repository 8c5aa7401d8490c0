"""What evaluate-robustness can be asked for, known before anything else is imported."""

CORRUPTION_NAMES = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "gaussian_blur", "zoom_blur"),
    *("glass_blur", "motion_blur", "snow"),
    *("fog", "elastic_transform", "contrast"),
    *("brightness", "jpeg_compression", "pixelate"),
)
