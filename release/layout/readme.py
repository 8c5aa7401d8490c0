"""The README of a release: the YAML by which `load_dataset` and the Hub know what is in it."""

import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from release.files.commit import delete_file, sha256_file, write_atomically
from release.files.formats import ShardFormat
from release.files.names import within
from release.files.storage import ReleasePath, StorageError, exists, list_files, read_bytes
from release.layout.arrow_index import index_files, index_names
from release.layout.image_index import is_index
from release.layout.index_writing import write_indices
from release.layout.latents import latents_of
from release.layout.manifest import Manifest, standing_manifest
from release.layout.parquet import yaml_features
from release.layout.shard_files import (
    flat_path,
    folded_pattern,
    is_shard,
    shard_format,
    shard_name,
    shard_schema,
)
from release.layout.training_views import view_of

README_FILE = "README.md"
FENCE = "---\n"
SIZE_CATEGORIES = (  # the names that the Hub filters data sets by
    ("n<1K", 10**3),
    ("1K<n<10K", 10**4),
    ("10K<n<100K", 10**5),
    ("100K<n<1M", 10**6),
    ("1M<n<10M", 10**7),
    ("10M<n<100M", 10**8),
    ("100M<n<1B", 10**9),
)
# the words for licences that the Hub's metadata has
LICENSES = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0
bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m bsd
bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0
cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0
cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0
cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m
deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2
gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc lgpl lgpl-2.1
lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit
mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 open-mdw openrail openrail++ osl-3.0
other pddl postgresql unknown unlicense wtfpl zlib
"""


def write_readme(release: ReleasePath, manifest: Manifest) -> None:
    """Write README.md: the load contract and a few lines; `render-card` writes a body.

    Its files are patterns where these match the manifest's alone, else each by its name.
    """
    contract = load_contract(release, manifest)
    if _unlisted(release, manifest):
        contract |= {"configs": pinned_files(contract["configs"], manifest)}
    text = f"{contract_text(contract)}\n{_body(manifest)}"
    write_atomically(release / README_FILE, text.encode())


def contract_text(contract: dict[str, Any]) -> str:
    """The contract as it stands on top of a README, fences included."""
    import yaml

    text = yaml.safe_dump(contract, sort_keys=False, allow_unicode=True)
    return f"{FENCE}{text}{FENCE}"


def parsed_contract(readme: str) -> tuple[dict[str, Any], str]:
    """Contract and body of a README; ValueError if it has no contract."""
    import yaml

    before, text, body = readme.split(FENCE, 2)
    try:
        contract = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"no load contract: {error}") from None
    if before or not isinstance(contract, dict):
        raise ValueError("no load contract")
    return contract, body


def names_each_file(release: ReleasePath) -> bool:
    """Whether the README names its files one by one, so that what else is there is not read."""
    try:
        contract, _ = parsed_contract(read_bytes(release / README_FILE).decode())
        files = [file for config in contract["configs"] for file in config["data_files"]]
        return all(isinstance(file["path"], list) for file in files)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def pinned_files(configs: list[dict[str, Any]], manifest: Manifest) -> list[dict[str, Any]]:
    """`configs`, each file by its name: what is not in the manifest is not read."""
    return [
        config
        | {
            "data_files": [
                {
                    "split": split,
                    "path": [
                        record.path
                        for record in manifest.shards
                        if (record.config, record.split) == (config["config_name"], split)
                    ],
                }
                for split in manifest.splits()[config["config_name"]]
            ]
        }
        for config in configs
    ]


def _unlisted(release: ReleasePath, manifest: Manifest) -> bool:
    """Whether there are shards that the manifest does not list: of growth that is not whole."""
    listed = {record.path for record in manifest.shards}
    return any(is_shard(name) and name not in listed for name in list_files(release))


def write_documents(release: ReleasePath, manifest: Manifest) -> dict[str, str]:
    """README.md, what `load_from_disk` looks for beside Arrow shards, and the indices of images;
    their hashes by name."""
    write_readme(release, manifest)
    index = index_files(release, manifest)
    for name, content in index.items():
        write_atomically(release / name, content)
    hashes = {name: sha256_file(release / name) for name in (README_FILE, *index)}
    return hashes | write_indices(release, manifest)


def noted_documents(release: ReleasePath) -> dict[str, str]:
    """Documents of the standing manifest with their hashes; none if there is none."""
    standing = standing_manifest(release)
    return {} if standing is None else standing.documents


def loads_as_stated(release: ReleasePath, manifest: Manifest) -> bool:
    """Whether what `load_dataset` and `load_from_disk` go by is there and right.

    What somebody else wrote below a README's load contract does not matter.
    """
    documents = noted_documents(release)
    images = [name for name in documents if is_index(name)]
    if not all(exists(release / name) for name in (README_FILE, *index_names(manifest), *images)):
        return False
    noted = documents.get(README_FILE)
    return sha256_file(release / README_FILE) == noted or not contract_problems(release, manifest)


def remove_documents(release: ReleasePath, names: Iterable[str]) -> None:
    """Delete documents that no manifest notes any more."""
    for name in names:
        delete_file(within(release, name))


def load_contract(release: ReleasePath, manifest: Manifest) -> dict[str, Any]:
    """The YAML's content: a configuration for each resolution, the highest one the default."""
    configs = manifest.splits()
    default = max(configs, key=lambda name: int(name) if name.isdigit() else 0)
    images = max(sum(manifest.rows(c, s) for s in splits) for c, splits in configs.items())
    first = manifest.shards[0].path
    file_format, folded = shard_format(first), first != flat_path(first)
    size = next((name for name, limit in SIZE_CATEGORIES if images < limit), "1B<n<10B")
    return {
        "pretty_name": manifest.name,
        **_license_fields(manifest.license),
        "task_categories": ["image-classification"],
        "size_categories": [size],
        "tags": [manifest.kind, *(["diffusion"] if manifest.kind == "synthetic" else [])],
        "configs": [
            {
                "config_name": config,
                **({"default": True} if config == default else {}),
                "data_files": [
                    {"split": split, "path": _pattern(config, split, file_format, folded=folded)}
                    for split in splits
                ],
            }
            for config, splits in configs.items()
        ],
        "dataset_info": [
            _dataset_info(release, manifest, config, splits) for config, splits in configs.items()
        ],
    }


def _license_fields(stated: str) -> dict[str, str]:
    """Of a card's YAML. The Hub refuses other words than its own: those become a licence's name."""
    name = re.sub(r"[^a-z0-9.+]+", "-", stated.lower()).strip("-")
    if name in LICENSES.split():
        return {"license": name}
    return {"license": "other", "license_name": name or "stated-in-the-card"}


def _pattern(config: str, split: str, file_format: ShardFormat, *, folded: bool) -> str:
    pattern = shard_name(config, split, "*", file_format)
    return folded_pattern(pattern) if folded else pattern


def contract_problems(release: ReleasePath, manifest: Manifest) -> list[str]:
    """How the README's load contract is not that of the manifest: a line, or none.

    While the release grows it names each file.
    """
    text = read_bytes(release / README_FILE).decode(errors="replace")
    try:
        wanted = load_contract(release, manifest)
    except (pa.ArrowException, OSError, StorageError):
        return ["its load contract cannot be checked while a first shard cannot be read"]
    try:
        found, _ = parsed_contract(text)
    except ValueError:
        return ["its load contract, the YAML on top, cannot be read"]
    if found in (wanted, wanted | {"configs": pinned_files(wanted["configs"], manifest)}):
        return []
    wrong = [key for key in wanted if key not in found or found[key] != wanted[key]]
    return [f"its load contract is not the manifest's in {', '.join(wrong) or 'other keys'}"]


def _dataset_info(
    release: ReleasePath, manifest: Manifest, config: str, splits: list[str]
) -> dict[str, Any]:
    first = next(s for s in manifest.shards if s.config == config)
    sizes = {
        split: sum(s.bytes for s in manifest.shards if (s.config, s.split) == (config, split))
        for split in splits
    }
    return {
        "config_name": config,
        "features": yaml_features(shard_schema(release / first.path)),
        "splits": [
            {"name": split, "num_bytes": sizes[split], "num_examples": manifest.rows(config, split)}
            for split in splits
        ],
        "download_size": sum(sizes.values()),
        "dataset_size": sum(sizes.values()),
    }


def _body(manifest: Manifest) -> str:
    images = "Synthetic images" if manifest.kind == "synthetic" else "Real images"
    latents = latents_of(manifest)
    held = images if latents is None else f"{latents}. {images}"
    lines = [f"# {manifest.name}", "", f"{held} for the classes of {manifest.dataset}.", ""]
    for config, splits in manifest.splits().items():
        rows = ", ".join(f"{split} {manifest.rows(config, split):,}" for split in splits)
        view = view_of(manifest, config)
        lines.append(f"- `{config}`: {rows} images{f', {view}' if view else ''}")
    return "\n".join(lines) + "\n"
