"""build.json: what a folder is a release of, written before its first shard."""

import json
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter

from builder.planning.batch_and_compile import Execution
from builder.planning.plan import BuildRequest
from release.environment import Environment
from release.errors import UserError
from release.files.commit import foreign_files, write_atomically
from release.files.formats import ShardFormat
from release.files.storage import ReleasePath, StorageError, exists, read_bytes
from release.lease import FOLDER as LEASE_FOLDER

STATE_FILE = "build.json"
Resolution = Annotated[str, Field(pattern=r"^[1-9]\d*$")]


@dataclass(frozen=True)
class SyntheticState:
    """A synthetic release: fingerprints and encodings of its stages by resolution, the format of
    its files, all it was asked for, and what its shards were made with: one environment, unless
    mixing was allowed. execution: how stages run that do not run as the recipe says.
    """

    name: str
    seed: int
    shard: dict[str, int]
    stages: Annotated[dict[Resolution, str], Field(min_length=1)]
    requests: tuple[BuildRequest, ...]
    encodings: dict[str, str] = field(default_factory=dict)
    format: ShardFormat = "parquet"
    environments: tuple[Environment, ...] = ()
    execution: dict[Resolution, Execution] = field(default_factory=dict)


@dataclass(frozen=True)
class RealState:
    """An import: where from, by which rule as it is recorded, views so far.

    files: how many files the originals of a split take, for splits in hash order.
    """

    source: str
    crop_rule: str
    views: tuple[int, ...]
    files: dict[str, int] = field(default_factory=dict)
    environments: tuple[Environment, ...] = ()


@dataclass(frozen=True)
class LatentState:
    """Latents of the images of the release `source` (its name), by the autoencoder of that hash."""

    source: str
    autoencoder_sha256: str
    environments: tuple[Environment, ...] = ()


KINDS: dict[type, str] = {
    SyntheticState: "synthetic",
    RealState: "real",
    LatentState: "latents",
}
SHAPES: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in KINDS}
State = TypeVar("State", SyntheticState, RealState, LatentState)
AnyState = SyntheticState | RealState | LatentState


def standing_state(release: ReleasePath, kind: type[State]) -> State | None:
    """What can be read there; None if there is none of that kind.

    A store that fails is no answer: StorageError.
    """
    try:
        return read_state(release, kind) if exists(release / STATE_FILE) else None
    except StorageError:
        raise
    except UserError:
        return None


def read_state(release: ReleasePath, kind: type[State]) -> State | None:
    """What the folder holds, None if it is new; UserError if it is no release of `kind`."""
    path = release / STATE_FILE
    try:
        text = read_bytes(path)
    except FileNotFoundError:
        if foreign_files(release, own_folder=LEASE_FOLDER):
            raise UserError(
                f"{release} is not empty and holds no release; name another --out"
            ) from None
        return None
    try:
        content: dict[str, Any] = json.loads(text)
        found = content.pop("kind")
        if found != KINDS[kind]:
            raise UserError(f"{release} holds another release, a {found} one; name another --out")
        if kind is SyntheticState:
            content["requests"] = tuple(
                BuildRequest(tuple(r["classes"]), r["per_class"]) for r in content["requests"]
            )
        elif kind is RealState:
            content["views"] = tuple(content["views"])
            content.pop("images_sha256", None)  # of earlier versions
        content["environments"] = tuple(
            Environment(e["device"], tuple((name, found) for name, found in e["versions"]))
            for e in content.get("environments", ())
        )
        state: State = SHAPES[kind].validate_python(asdict(kind(**content)))
        return state
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{path} cannot be read: restore it (`release repair` does so where there is a "
            "manifest), or name another --out"
        ) from None


def goes_on_from(state: SyntheticState, finished: SyntheticState) -> bool:
    """Whether `state` is of the release that `finished` is of, which may have grown since."""
    own = (state.name, state.seed, state.shard, state.format)
    return (
        own == (finished.name, finished.seed, finished.shard, finished.format)
        and finished.stages.items() <= state.stages.items()
        and finished.requests == state.requests[: len(finished.requests)]
        and set(finished.environments) <= set(state.environments)
    )


def write_state(release: ReleasePath, state: AnyState) -> None:
    """Say what the folder is going to hold."""
    content = {"kind": KINDS[type(state)], **asdict(state)}
    if not content.get("execution"):
        content.pop("execution", None)  # as before there was a choice
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomically(release / STATE_FILE, text.encode())
