"""Several prompts a class: which text an image is made from."""

import csv
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from release.classes.class_list import ClassEntry, class_definitions
from release.commands.named_files import is_file, read_utf8
from release.errors import UserError, unknown_name

PLACEHOLDERS = ("prompt", "name", "definition")
COLUMNS = ("wnid", "prompt")


class PromptRecipe(BaseModel):
    """The prompts of each class: every template with every text of the class.

    templates: hold {prompt}, a text of the class; {name}, its name; {definition}, its synset's in
    WordNet. texts: of each class, by wnid; a class without has its prompt in the class list. file:
    a CSV with columns wnid and prompt, beside the recipe, which becomes texts when the recipe is
    read. definitions: by wnid, filled in when the recipe is read, so that a release states its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    templates: tuple[str, ...] = Field(("{prompt}",), min_length=1)
    file: str | None = Field(None, exclude_if=lambda value: value is None)
    texts: dict[str, tuple[str, ...]] = {}
    definitions: dict[str, str] = {}

    @field_validator("templates")
    @classmethod
    def _names_of_ours(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            if not set(_placeholders(template)) <= set(PLACEHOLDERS):
                known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
                raise ValueError(f"template {template!r}: may hold {known}")
        return templates

    def complete(self, classes: Sequence[ClassEntry], folder: Path) -> "PromptRecipe":
        """With all that the recipe's list and files around it say; UserError for what does not fit.

        folder: that `file` is named from.
        """
        texts = dict(self.texts)
        if self.file is not None:
            texts |= _read_texts(folder / self.file)
        known = {entry.wnid: entry for entry in classes}
        for wnid, prompts in texts.items():
            if wnid not in known:
                raise unknown_name("class of a prompt", wnid, list(known))
            if not prompts or not all(text.strip() for text in prompts):
                raise UserError(f"prompts of {wnid}: a text is missing or empty")
        definitions = self.definitions
        if any("definition" in _placeholders(template) for template in self.templates):
            undefined = [entry for entry in classes if entry.wnid not in definitions]
            definitions = class_definitions(undefined) | definitions
        changes = {"texts": texts, "definitions": definitions, "file": None}
        return self.model_copy(update=changes)

    def of_class(self, entry: ClassEntry) -> tuple[str, ...]:
        """All prompts of the class, each once."""
        definition = self.definitions.get(entry.wnid, "")
        return tuple(
            dict.fromkeys(
                template.format(prompt=text, name=entry.name, definition=definition)
                for text in self.texts.get(entry.wnid, (entry.prompt,))
                for template in self.templates
            )
        )


@dataclass(frozen=True)
class PromptChoice:
    """The prompt of each image: all stages and attempts of an index share it.

    of_class: all prompts of a class, by wnid; one that is not there has its list's.
    """

    release_seed: int = 0
    of_class: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, entry: ClassEntry, index: int) -> str:
        """Drawn by a hash of the image's identity, so a release that grows keeps its own."""
        prompts = self.of_class.get(entry.wnid)
        if prompts is None:
            return entry.prompt
        identity = f"prompt/{self.release_seed}/{entry.wnid}/{index}"
        drawn = int.from_bytes(sha256(identity.encode()).digest()[:8], "big")
        return prompts[drawn % len(prompts)]

    def all_of(self, entry: ClassEntry) -> tuple[str, ...]:
        """Those that an image of the class may have."""
        return self.of_class.get(entry.wnid, (entry.prompt,))

    def of_all(self, classes: Sequence[ClassEntry]) -> list[str]:
        """Those that an image of any of the classes may have."""
        return [prompt for entry in classes for prompt in self.all_of(entry)]


def choose_prompts(
    recipe: PromptRecipe | None, release_seed: int, classes: Sequence[ClassEntry]
) -> PromptChoice:
    """Of the recipe for these classes; without one each class has its list's prompt."""
    if recipe is None:
        return PromptChoice()
    return PromptChoice(release_seed, {entry.wnid: recipe.of_class(entry) for entry in classes})


def _placeholders(template: str) -> Iterator[str]:
    """Names between braces; ValueError for braces that do not close."""
    for _, name, form, conversion in string.Formatter().parse(template):
        if name is not None:
            yield name if not form and not conversion else f"{name}:{form}"


def _read_texts(path: Path) -> dict[str, tuple[str, ...]]:
    """By wnid, in the order of the rows."""
    if not is_file(path):
        raise UserError(f"prompts {path} does not exist")
    try:
        rows = csv.DictReader(read_utf8(path).splitlines())
    except ValueError as error:
        raise UserError(f"prompts {path} cannot be read as CSV in UTF-8: {error}") from None
    if not set(COLUMNS) <= set(rows.fieldnames or ()):
        raise UserError(f"prompts {path}: need the columns {' and '.join(COLUMNS)}")
    texts: dict[str, tuple[str, ...]] = {}
    for row in rows:
        texts[row["wnid"] or ""] = (*texts.get(row["wnid"] or "", ()), row["prompt"] or "")
    return texts
