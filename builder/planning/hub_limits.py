"""How many files the Hub takes, and whether a release is more: at most 10,000 a folder are
recommended there, and 100,000 in all (https://huggingface.co/docs/hub/storage-limits).
"""

MOST_IN_FOLDER = 10_000
MOST_FILES = 100_000


def fits_flat(in_folder: int, files: int) -> bool:
    """Whether they have room as a release lays them out: in_folder of them beside each other."""
    return in_folder <= MOST_IN_FOLDER and files <= MOST_FILES


def planned_problem(shards_a_stage: int, stages: int, *, arrow: bool) -> str | None:
    """Why a release that is planned could not be published, as far as the plan tells; else None.

    Rejected attempts, which take a file a shard that has some, are not known before.
    """
    shards = shards_a_stage * stages
    others = 1 + stages + 2  # README, an index a stage, build.json and manifest
    if fits_flat(shards_a_stage, 2 * shards + others):
        return None
    return folded_problem(shards, others, arrow=arrow)


def folded_problem(shards: int, others: int, *, arrow: bool) -> str | None:
    """Why so many shards, with a marker each, and other files have no place in sub-folders."""
    count = shards + others + 1  # all markers are one
    if count > MOST_FILES:
        return (
            f"would be {count:,} files on the Hub, which takes {MOST_FILES:,}: "
            "build it with more images in a shard ([shard] in the recipe)"
        )
    if arrow:
        return (
            f"has more than {MOST_IN_FOLDER:,} Arrow files in a folder, where "
            "load_from_disk reads no sub-folders: build it as Parquet"
        )
    return None
