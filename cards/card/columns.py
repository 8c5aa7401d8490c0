"""What each column of a release says, for people and in the terms of PROV-O."""

COLUMNS = {
    "image": "The encoded image.",
    "label": "The class, as a number from 0.",
    "class_id": "The class's stable id; WordNet's for ImageNet.",
    "prompt": "The text, or the class's name, that the image was made from.",
    "image_id": "The image's own name: release seed, resolution, class, index, attempt.",
    "parent_image_id": "The image of the stage before that this one was made from.",
    "seed": "What the image's noise is drawn from.",
    "index": "The image's place among its class's.",
    "attempt": "How many images were made for this place before this one and not kept.",
    "generator": "What made the image.",
    "checkpoint_sha256": "Hash of the checkpoint that made the image.",
    "sampler": "The sampler's settings, as JSON.",
    "guide_sha256": "Hash of the checkpoint that guidance led away from.",
    "exemplar_image_id": "The real image that sampling began from, by its id in its release.",
    "file_name": "Where the image stands in its source.",
    "original_sha256": "Hash of the image's original bytes.",
    "width": "Of the original, in pixels.",
    "height": "Of the original, in pixels.",
    "crop_rule": "How the view was cut from the original.",
    "tuning": "Whether the image is set aside for choosing settings.",
}
PROPERTIES = {
    "parent_image_id": "prov:wasDerivedFrom",
    "exemplar_image_id": "prov:wasDerivedFrom",
    "generator": "prov:wasGeneratedBy",
    "checkpoint_sha256": "prov:used",
    "guide_sha256": "prov:used",
}
