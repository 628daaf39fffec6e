"""The transformers engine against transformers' own `generate()`, one thread each.

    python benchmarks/transformers_engine.py [MODEL]

Both run the same weights in the same number format and write as many tokens, greedily, for
different prompts of one length; `generate()` has all streams in one batch from the beginning,
which is the best case for it. Rates are per second of CPU time, which other processes hardly
change. Rounds are interleaved; ratios are of medians. MODEL is a Hugging Face folder or a GGUF
file, by default the starter model, dequantised.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from generation_engine import starter_model
from harness import Measure, Report, counted, in_turns, parser, report
from transformers import AutoModelForCausalLM, AutoTokenizer

from models.errors import ModelError
from models.transformers_lm.engine import TransformersGenerator
from models.types.generation import GenerationRequest, SamplingParams, TextDelta, TokenPrompt

TEXT = "The history of the lighthouse begins with a keeper who"
TOKENS = 64
STREAMS = (1, 8)
DTYPES = ("float32", "bfloat16")
RATE = "tokens/CPU s"


class Ours:
    """The engine, and the wait for its requests."""

    def __init__(self, path: Path, dtype: Any, n_threads: int) -> None:
        self._open: set[str] = set()
        self._failures: list[ModelError] = []
        self._heard = threading.Condition()
        self._engine = TransformersGenerator(
            path, self._listen, n_ctx=1024, n_threads=n_threads, dtype=dtype
        )

    def _listen(self, events: Sequence[tuple[str, TextDelta | ModelError]]) -> None:
        ended = {name for name, event in events if isinstance(event, ModelError) or event.usage}
        if ended:
            with self._heard:
                self._failures += [event for _, event in events if isinstance(event, ModelError)]
                self._open -= ended
                self._heard.notify_all()

    def rate(self, prompts: Sequence[Sequence[int]]) -> float:
        """Tokens per CPU second, from the first request to the end of the last."""
        sampling = SamplingParams(temperature=0, ignore_eos=True, max_tokens=TOKENS)
        self._engine.clear_prefix_cache()
        self._open = {f"{i}" for i in range(len(prompts))}
        begin = time.process_time()
        for i, prompt in enumerate(prompts):
            self._engine.add(f"{i}", GenerationRequest(TokenPrompt(tuple(prompt)), sampling))
        with self._heard:
            self._heard.wait_for(lambda: not self._open)
        seconds = time.process_time() - begin
        if self._failures:
            raise self._failures[0]
        return len(prompts) * TOKENS / seconds

    def close(self) -> None:
        self._engine.close()


class Theirs:
    """The plain model and `generate()`."""

    def __init__(self, path: Path, dtype: str) -> None:
        place, options = source_of(path)
        model = AutoModelForCausalLM.from_pretrained(place, dtype=getattr(torch, dtype), **options)
        self._model: Any = model.eval()

    def rate(self, prompts: Sequence[Sequence[int]]) -> float:
        ids = torch.tensor(prompts)
        begin = time.process_time()
        with torch.inference_mode():
            self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=TOKENS,
                min_new_tokens=TOKENS,
                do_sample=False,
            )
        return len(prompts) * TOKENS / (time.process_time() - begin)


def source_of(path: Path) -> tuple[Path, dict[str, str]]:
    """What `from_pretrained` is given."""
    return (path.parent, {"gguf_file": path.name}) if path.is_file() else (path, {})


def compare(found: Report, path: Path, dtype: str, rounds: int, n_threads: int) -> None:
    place, options = source_of(path)
    words = AutoTokenizer.from_pretrained(place, **options)(TEXT)["input_ids"]
    ours, theirs = Ours(path, dtype, n_threads), Theirs(path, dtype)
    for count in STREAMS:
        prompts = [[*words[i:], *words[:i]] for i in range(count)]
        sides: dict[str, Measure] = {
            "engine": lambda prompts=prompts: {RATE: ours.rate(prompts)},
            "generate()": lambda prompts=prompts: {RATE: theirs.rate(prompts)},
        }
        found.compare(f"{dtype}, {counted(count, 'stream')}", in_turns(sides, rounds), "engine")
    ours.close()


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("path", type=Path, nargs="?", help="default: the starter model")
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    found = report("The transformers engine to generate()")
    for dtype in DTYPES:
        compare(found, options.path or starter_model(), dtype, options.rounds, options.threads)
    found.write()


if __name__ == "__main__":
    main()
