"""Which of a model's own prompts goes before a text.

The prompts are those of config_sentence_transformers.json, by the names that their authors chose;
`NAMES` are the names in use for each purpose. A prompt is never made up: E5's "query: " or BGE's
instruction are put before a text where the model's own configuration has them, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from models.errors import InvalidInputError
from models.types.texts import EmbeddingRequest, Purpose

NAMES: dict[Purpose, tuple[str, ...]] = {
    "query": ("query", "search_query", "retrieval.query", "retrieval-query", "web_search_query",
              "s2p_query"),
    "document": ("document", "passage", "search_document", "retrieval.passage",
                 "retrieval.document", "retrieval-document", "corpus"),
    "classification": ("classification",),
    "clustering": ("clustering", "separation"),
    "similarity": ("similarity", "sts", "text-matching", "semantic_similarity", "sts_query",
                   "s2s_query"),
}  # fmt: skip
"""In lower case, the most usual first: sentence-transformers', Nomic's, Jina's, EmbeddingGemma's,
Stella's."""


@dataclass(frozen=True, slots=True)
class PromptBook:
    """A model's prompts by name, and the name of the one that texts get by default."""

    prompts: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None

    def prefix(self, request: EmbeddingRequest) -> str:
        """What goes before the request's texts; "" where the model has nothing for it.

        Raises InvalidInputError for a `prompt_name` that the model does not have.
        """
        if request.prompt_name is not None:
            return self._named(request.prompt_name)
        for_purpose = self._for_purpose(request.purpose) if request.purpose else None
        if for_purpose is not None:
            return for_purpose
        return self.prompts.get(self.default, "") if self.default else ""

    def _named(self, name: str) -> str:
        if name not in self.prompts:
            names = ", ".join(f"'{name}'" for name in sorted(self.prompts))
            has = f"it has {names}." if names else "it has none."
            raise InvalidInputError(f"This model has no such prompt; {has}", "prompt_name")
        return self.prompts[name]

    def _for_purpose(self, purpose: Purpose) -> str | None:
        by_name = {name.lower(): prompt for name, prompt in self.prompts.items()}
        return next((by_name[name] for name in NAMES[purpose] if name in by_name), None)
