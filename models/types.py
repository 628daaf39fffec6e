"""The vocabulary that crosses process boundaries: small frozen dataclasses, free of torch.

Requests travel from the ingress to a replica, results travel back. Every request is one client's
request; calls that coalesce several clients carry a list of them and return a list of the same
length, in which an item that failed alone is its `ModelError`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
FinishReason = Literal["stop", "length", "tool_calls"]
ScoreNormalization = Literal["standardization", "zscore", "raw", "probability"]
MissingPolicy = Literal["error", "mean", "median", "zero", "category"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request.

    `cached_tokens` is the part of the prompt served from KV, `reasoning_tokens` the part of the
    completion that was reasoning.
    """

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


# --- generation -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that an assistant's message made; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message; `role` is system, developer, user, assistant or tool.

    An assistant's message may have `tool_calls` and `reasoning`; a tool's answer names the call
    it answers in `tool_call_id`.
    """

    role: str
    content: str = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is the text of its JSON Schema.

    `strict`: what the model writes as arguments must fit the schema.
    """

    name: str
    description: str = ""
    parameters: str = "{}"
    strict: bool = False


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether tools are called: as the model likes, not at all, or at least one.

    `names` are the tools to choose from; empty: all of them.
    """

    mode: Literal["auto", "none", "required"] = "auto"
    names: tuple[str, ...] = ()


TemplateOption = bool | int | float | str


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """Messages, rendered by the model's own chat template.

    `options` are further variables of the template, such as `enable_thinking`.
    `continue_final`: the last message is the beginning of the answer.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    options: tuple[tuple[str, TemplateOption], ...] = ()
    continue_final: bool = False


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """Plain text, tokenised as it is (plus the model's BOS token where it wants one)."""

    text: str


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """Token ids of the model's own vocabulary, used as they are."""

    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InfillPrompt:
    """Write what stands between two texts; for models with fill-in-the-middle tokens."""

    prefix: str
    suffix: str


Prompt = ChatPrompt | TextPrompt | TokenPrompt | InfillPrompt


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """What the completion must be, whatever the model would rather write.

    `definition` is the text of a JSON Schema (json_schema), a regular expression (regex), a JSON
    list of texts (choice), and not used for json_object. `param` is the request's field that a
    fault in it is named by.
    """

    kind: Literal["json_object", "json_schema", "regex", "choice"]
    definition: str = ""
    param: str = "response_format"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen and when generation ends. Defaults are OpenAI's.

    `max_tokens` None: up to the end of the context; 0: nothing, to score an echoed prompt.
    `temperature` 0: greedy. `top_k` 0, `top_p` 1, `min_p` 0, `repetition_penalty` 1: off.
    `logprobs` None: none; k: the chosen token's log probability and the k most likely
    alternatives. `stop` strings never appear in the output.
    """

    max_tokens: int | None = None
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """`n` completions of one prompt; choice i uses seed + i when a seed is given.

    `echo` puts the prompt before the completion, with its log probabilities if those are asked
    for. `truncation` "auto" drops the oldest messages of a chat that is too long, "disabled"
    refuses it. `thinking_budget` ends the reasoning after so many tokens. Requests of one `caller`
    take turns with those of others.
    """

    prompt: Prompt
    sampling: SamplingParams = SamplingParams()
    n: int = 1
    output_format: OutputFormat | None = None
    echo: bool = False
    truncation: Literal["disabled", "auto"] = "disabled"
    thinking_budget: int | None = None
    caller: str = ""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token with its natural-log probability; `top` holds the likeliest alternatives.

    `logprob` is None for the first token of an echoed prompt, which nothing predicts.
    """

    text: str
    raw: bytes
    logprob: float | None
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of the tool call `index`: `id` and `name` once, then `arguments` bit by bit."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """What one step added to one choice. The last delta has `finish_reason` and `usage`."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


@dataclass(frozen=True, slots=True)
class ChoiceDelta:
    """A delta of the choice `index` of a request."""

    index: int
    delta: TextDelta


@dataclass(frozen=True, slots=True)
class Delivery:
    """What has been generated for one call since the last delivery; an error ends the call."""

    call_id: str
    deltas: tuple[ChoiceDelta, ...]
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class TokenizeRequest:
    """Tokens of a prompt. For texts: with the BOS token (`add_special`), with the texts of control
    tokens read as those tokens (`parse_special`)."""

    prompt: ChatPrompt | TextPrompt
    add_special: bool = True
    parse_special: bool = False


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids, the bytes each stands for, and the context length of the model."""

    ids: tuple[int, ...]
    pieces: tuple[bytes, ...]
    context_length: int


# --- embeddings and reranking ---------------------------------------------------------------


Purpose = Literal["query", "document", "classification", "clustering", "similarity"]
TruncationSide = Literal["left", "right"]
Vocabulary = Literal["native", "cl100k"]
EmbeddingKind = Literal["dense", "tokens", "sparse"]


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """`inputs` are texts, or token ids of `vocabulary` ("native": the model's own).

    `dimensions` truncates and renormalises. `truncate` cuts over-long inputs at the model's limit,
    or at `max_tokens` (special tokens included), instead of refusing them, at `truncation_side`
    (None: the side of the model's tokenizer). `prompt_name` is one of the model's own prompts, put
    before every text; else `purpose` chooses among them; else it is the model's default prompt, if
    it has one. `normalize` None: what the model's authors do. `late_chunking`: the inputs are
    parts of one text, read in one context and pooled one by one. `kinds` are what is wanted of
    every input: its vector, the vectors of its tokens, its sparse vector.
    """

    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    truncate: bool = False
    prompt_name: str | None = None
    purpose: Purpose | None = None
    max_tokens: int | None = None
    truncation_side: TruncationSide | None = None
    add_special_tokens: bool = True
    normalize: bool | None = None
    late_chunking: bool = False
    vocabulary: Vocabulary = "native"
    kinds: tuple[EmbeddingKind, ...] = ("dense",)


@dataclass(frozen=True, slots=True)
class SparseVector:
    """What is not zero of a vector over the vocabulary: int32 `indices`, float32 `values`."""

    indices: npt.NDArray[np.int32]
    values: FloatArray


@dataclass(frozen=True, slots=True)
class EmbeddingResult:
    """`vectors` is float32 [len(inputs), dimensions], without rows unless "dense" was wanted.

    `input_tokens` are the tokens of each input that was computed on its own. `token_vectors` has a
    float32 [tokens, hidden] for each input, `sparse` a vector, where they were wanted.
    """

    vectors: FloatArray
    usage: Usage
    input_tokens: tuple[int, ...] = ()
    token_vectors: tuple[FloatArray, ...] = ()
    sparse: tuple[SparseVector, ...] = ()


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """What a loaded bi-encoder is; `prompts` are the names of its own prompts.

    `dimensions` are those of whatever vectors it gives, which `kinds` tells.
    """

    dimensions: int
    max_tokens: int
    max_batch_tokens: int
    pooling: str
    dtype: str
    prompts: tuple[str, ...] = ()
    kinds: tuple[EmbeddingKind, ...] = ("dense",)


@dataclass(frozen=True, slots=True)
class TextToken:
    """A token and the characters [start, stop) it stands for; None for special tokens."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """One query against documents; over-long documents are cut unless `truncate` is False.

    With `windows` above 1 they are not cut but read in up to so many windows, of which neighbours
    share `overlap` tokens; the best window is the document's score. `truncation_side` is where they
    are cut (None: the side of the model's tokenizer).
    """

    query: str
    documents: tuple[str, ...]
    truncate: bool = True
    max_tokens_per_document: int | None = None
    windows: int = 1
    overlap: int = 0
    truncation_side: TruncationSide | None = None


@dataclass(frozen=True, slots=True)
class RerankResult:
    """`logits` are the head's raw outputs, `scores` after the model's own activation."""

    logits: tuple[float, ...]
    scores: tuple[float, ...]
    usage: Usage


# --- classification -------------------------------------------------------------------------

TextOrPair = str | tuple[str, str]
Aggregation = Literal["none", "simple", "first", "average", "max"]
"""How tokens become entities, by the names of transformers' token classification pipeline."""


@dataclass(frozen=True, slots=True)
class ClassificationRequest:
    """Texts, or pairs of texts, for the model's own labels or, zero-shot, for `labels`.

    Zero-shot judges `hypothesis`, with each label in the place of its "{}", by each text;
    `multi_label`: labels do not exclude each other. Over-long inputs are cut unless `truncate` is
    False, to `max_tokens` where that is less than the model's limit.
    """

    texts: tuple[TextOrPair, ...]
    labels: tuple[str, ...] | None = None
    hypothesis: str = "This example is {}."
    multi_label: bool = False
    truncate: bool = True
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ClassificationResult:
    """Float32 [texts, labels]: the model's `logits`, and `scores` after its own activation."""

    labels: tuple[str, ...]
    logits: FloatArray
    scores: FloatArray
    usage: Usage


@dataclass(frozen=True, slots=True)
class EntityRequest:
    """Find entities in texts of any length."""

    texts: tuple[str, ...]
    aggregation: Aggregation = "simple"


@dataclass(frozen=True, slots=True)
class Entity:
    """A part of a text, from character `start` up to character `end`."""

    label: str
    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class EntityResult:
    """The entities of each text, in the order of the text."""

    entities: tuple[tuple[Entity, ...], ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class LabelledVectors:
    """Embeddings [vectors, dimensions] and the label of each."""

    labels: tuple[str, ...]
    vectors: FloatArray


@dataclass(frozen=True, slots=True)
class ClassifierFitRequest:
    """Fit a linear head on embeddings and keep it under `name`, replacing what was there.

    Labels without examples need a description. `fingerprint` names the weights of `base_model`.
    """

    name: str
    base_model: str
    fingerprint: str
    examples: LabelledVectors
    descriptions: LabelledVectors


@dataclass(frozen=True, slots=True)
class ClassifierInfo:
    """A fitted classifier as the store of artefacts shows it; times are Unix seconds."""

    name: str
    version: int
    created: int
    size_bytes: int
    base_model: str
    fingerprint: str
    dimensions: int
    labels: tuple[str, ...]
    samples: int
    head: Literal["logistic", "similarity"]
    fit_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ClassifierRequest:
    """Embeddings [texts, dimensions] for a fitted classifier, and the weights they are from."""

    name: str
    fingerprint: str
    vectors: FloatArray


@dataclass(frozen=True, slots=True)
class LabelScores:
    """Float32 scores [texts, labels] by one fitted `version`."""

    labels: tuple[str, ...]
    scores: FloatArray
    version: int


# --- OCR ------------------------------------------------------------------------------------

Point = tuple[float, float]


PixelArray = npt.NDArray[np.uint8]
"""RGB, [height, width, 3]."""


@dataclass(frozen=True, slots=True)
class OcrRequest:
    """One page each: encoded images (PNG, JPEG, WebP, TIFF, BMP, GIF bytes), or pixels.

    `languages` as the client names them ("de", "deu", "zh-Hant"); empty: the engine's default.
    """

    images: tuple[bytes | PixelArray, ...]
    languages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The id of a file that clients have uploaded; every replica can read it."""

    id: str


PageRanges = tuple[tuple[int, int], ...]
"""Pages by number from 0: (first, last), both included."""


@dataclass(frozen=True, slots=True)
class DocumentRequest:
    """A PDF file or an image, of which some pages are to be read.

    `pages` None: all. `dpi` is the resolution that PDF pages are rendered with. `force_ocr`: the
    text that a PDF file brings along is ignored. `param` is the wire name that errors of the file
    itself carry.
    """

    source: bytes | StoredFile
    dpi: int
    pages: PageRanges | None = None
    force_ocr: bool = False
    password: str | None = field(default=None, repr=False)
    languages: tuple[str, ...] = ()
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a line; `polygon` as that of the line."""

    text: str
    confidence: float
    polygon: tuple[Point, Point, Point, Point]


@dataclass(frozen=True, slots=True)
class TextLine:
    """`polygon`: corners clockwise from the top left, in pixels of the original image.

    `continues`: it stands on the same printed line as the entry before it, after a gap. `words`:
    of engines that locate them, all that the line has, in order. `turn`: the index of the corner
    of the polygon, and of those of its words, where the text has its top left one.
    """

    text: str
    confidence: float
    polygon: tuple[Point, Point, Point, Point]
    continues: bool = False
    words: tuple[Word, ...] = ()
    turn: int = 0


@dataclass(frozen=True, slots=True)
class TableCell:
    """A cell of a table's grid, rows and columns from 0; left, top, right, bottom in pixels."""

    row: int
    column: int
    row_span: int
    column_span: int
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a page of one kind, by the label of a layout model; left, top, right, bottom.

    `cells` of tables, where a model has told them.
    """

    label: str
    confidence: float
    box: tuple[float, float, float, float]
    cells: tuple[TableCell, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """Lines in reading order; `width` and `height` in pixels. `regions` where layout is found."""

    width: int
    height: int
    lines: tuple[TextLine, ...]
    regions: tuple[Region, ...] = ()

    @property
    def text(self) -> str:
        pieces = ((" " if line.continues else "\n") + line.text for line in self.lines)
        return "".join(pieces)[1:]


@dataclass(frozen=True, slots=True)
class OcrResult:
    pages: tuple[Page, ...]


@dataclass(frozen=True, slots=True)
class DocumentPage:
    """A page that has been read: `index` counts from 0 in its document.

    `dpi` is what it was rendered with, None for images. `text_layer`: the lines are the document's
    own text, not recognised.
    """

    index: int
    page: Page
    dpi: int | None = None
    text_layer: bool = False


DocumentTask = Literal["extraction", "vqa", "classification"]


@dataclass(frozen=True, slots=True)
class DocumentQuestions:
    """What a document model is asked about every page of a document; `questions` are of vqa."""

    task: DocumentTask
    questions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PageQuestions:
    """A page as the model wants it: what is written on it and where, how it looks, or both."""

    asked: DocumentQuestions
    page: Page | None = None
    pixels: PixelArray | None = None


@dataclass(frozen=True, slots=True)
class PageField:
    """A value found on a page, or the answer to a question, which is "" when there is none.

    `probability` is the model's. `box` (left, top, right, bottom in pixels) and the mean confidence
    of the words in it are those of models that tell places.
    """

    key: str
    value: str
    probability: float
    box: tuple[float, float, float, float] | None = None
    ocr_confidence: float | None = None


@dataclass(frozen=True, slots=True)
class PageAnswers:
    """What a document model says of the page `index`.

    `fields`: of an extraction, or one for each question. `data`: an extraction as nested JSON.
    `labels`: of a classification, with probabilities that sum to 1.
    """

    fields: tuple[PageField, ...] = ()
    data: Any = None
    labels: tuple[tuple[str, float], ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    index: int = 0


# --- anomaly detection ----------------------------------------------------------------------

Cell = float | int | str | bool | None
Row = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells. `columns` names them when the client sent objects, else it is None."""

    rows: tuple[Row, ...]
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class NumericTable:
    """Rows that are all numbers, float64 [rows, columns]; NaN where a number is missing."""

    values: npt.NDArray[np.float64]
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class UploadedTable:
    """A file with a table, not read yet; a larger one is refused.

    `header`: the first line of a CSV file names the columns.
    """

    format: Literal["csv", "arrow", "parquet"]
    data: bytes = field(repr=False)
    max_rows: int
    max_columns: int
    header: bool = True


AnyTable = Table | NumericTable | UploadedTable


@dataclass(frozen=True, slots=True)
class FitRequest:
    """Fit the detector `backend` and keep it under `name`, replacing what was there.

    `schema` maps a column to its encoding (numeric, hash, label, onehot, binary, frequency);
    inferred when absent. `contamination` is the expected share of anomalies, 0 < c <= 0.5.
    `missing` says what stands for cells that are None. The backend "auto" chooses one itself.
    """

    name: str
    backend: str
    table: AnyTable
    schema: tuple[tuple[str, str], ...] | None = None
    contamination: float = 0.1
    normalization: ScoreNormalization = "standardization"
    parameters: tuple[tuple[str, float | int | str | bool], ...] = ()
    seed: int = 42
    missing: MissingPolicy = "error"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend that "auto" has tried; both are rank correlations on rows it was not fitted to.

    `agreement` with the mean rank of the other candidates, `stability` between two fits.
    """

    backend: str
    agreement: float
    stability: float


@dataclass(frozen=True, slots=True)
class Selection:
    """Why "auto" chose its backend: the candidates, best first, on `rows` training rows.

    There are none where the rows were too few for a comparison.
    """

    rows: int
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """A fitted detector as the catalogue of artefacts shows it; times are Unix seconds."""

    name: str
    backend: str
    version: int
    created: int
    size_bytes: int
    samples: int
    features: tuple[str, ...]
    schema: tuple[tuple[str, str], ...]
    contamination: float
    threshold: float
    normalization: ScoreNormalization
    fit_seconds: float = 0.0
    parameters: tuple[tuple[str, float | int | str], ...] = ()
    missing: MissingPolicy = "error"
    selection: Selection | None = None


@dataclass(frozen=True, slots=True)
class ThresholdRequest:
    """Another threshold for a fitted detector, without a fit: one of both is given.

    `threshold` is on the scale of `normalization`, the fit's by default; `contamination` is the
    share of the training rows that is to be above it.
    """

    name: str
    threshold: float | None = None
    contamination: float | None = None
    normalization: ScoreNormalization | None = None


@dataclass(frozen=True, slots=True)
class AnomalyScoreRequest:
    """Score rows with a fitted detector; `threshold` and `normalization` default to the fit's.

    `explain` asks for the contributions of so many columns per row, the largest first; 0 for none.
    """

    name: str
    table: AnyTable
    backend: str | None = None
    threshold: float | None = None
    normalization: ScoreNormalization | None = None
    explain: int = 0


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one column adds to a raw score; below 0 where it makes the row look more normal."""

    column: str
    value: float


@dataclass(frozen=True, slots=True)
class AnomalyScores:
    """High score = anomaly. `scores` are normalised by *training* statistics, `raw` are not.

    `version` names the one fitted version that produced all of them. `contributions` has one
    entry per row when they were asked for (an empty one where too many rows would be explained),
    else none.
    """

    scores: tuple[float, ...]
    raw: tuple[float, ...]
    threshold: float
    version: int
    anomalous: tuple[bool, ...] = field(default=())
    contributions: tuple[tuple[Contribution, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class FitProgress:
    """What a running fit is at; `seconds` since it began. The last one has the detector."""

    stage: Literal["queued", "started", "fitting", "stored"]
    seconds: float
    info: DetectorInfo | None = None


@dataclass(frozen=True, slots=True)
class FitJob:
    """A fit in the background; times are Unix seconds, 0 for what has not come yet."""

    id: str
    model: str
    backend: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    created: float
    started: float = 0.0
    updated: float = 0.0
    finished: float = 0.0
    error: Exception | None = None
    info: DetectorInfo | None = None


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How a streaming detector is fitted; fixed when its first point comes.

    It is fitted on the last `window_size` points once there are `min_samples`, and again after
    every `retrain_interval` points. Numeric columns get their mean, deviation, minimum and maximum
    over the last n points for every n of `rolling_windows`, and their values n points ago for every
    n of `lag_periods`. `threshold` is of scores from 0 to 1;
    None: that of the contamination.
    """

    backend: str = "ecod"
    min_samples: int = 50
    retrain_interval: int = 100
    window_size: int = 1000
    contamination: float = 0.1
    threshold: float | None = None
    rolling_windows: tuple[int, ...] = ()
    lag_periods: tuple[int, ...] = ()
    parameters: tuple[tuple[str, float | int | str | bool], ...] = ()
    seed: int = 42


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """Points for the streaming detector `name`, in their order; `given`: settings it asks for."""

    name: str
    table: Table
    settings: StreamSettings = StreamSettings()
    given: tuple[str, ...] = ()


StreamStatus = Literal["collecting", "ready", "retraining"]


@dataclass(frozen=True, slots=True)
class StreamPoint:
    """`score` None: the detector was not fitted yet, so many points are missing."""

    score: float | None
    raw: float | None
    anomalous: bool
    until_ready: int = 0


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """A streaming detector; `samples` have come since it was created or reset."""

    name: str
    status: StreamStatus
    settings: StreamSettings
    samples: int
    window: int
    until_ready: int
    version: int
    columns: tuple[str, ...]
    created: float


@dataclass(frozen=True, slots=True)
class StreamResult:
    """The points of one request, judged before they joined the window.

    `threshold` is the one that judged them, None where none was.
    """

    info: StreamInfo
    points: tuple[StreamPoint, ...]
    threshold: float | None = None


SeriesKind = Literal["auto", "spike", "seasonal", "level_shift", "volatility"]


@dataclass(frozen=True, slots=True)
class SeriesRequest:
    """One series of equally spaced values, to be judged by itself.

    `period` None: found out; 0: there is none. `sensitivity` 0 to 99: how narrow the margins are.
    At most `max_anomaly_ratio` of the points are anomalies. `window`: points on each side that
    level_shift and volatility compare; None: 5 and 30.
    """

    values: tuple[float, ...]
    kind: SeriesKind = "auto"
    period: int | None = None
    sensitivity: int = 95
    max_anomaly_ratio: float = 0.25
    window: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SeriesResult:
    """Float64 and bool, one entry per value; a value between `lower` and `upper` is normal.

    `observed` is what was judged: the value, or what a window of values says. `severity` is from 0
    to 1, above 0 for anomalies only.
    """

    period: int
    observed: npt.NDArray[np.float64]
    expected: npt.NDArray[np.float64]
    lower: npt.NDArray[np.float64]
    upper: npt.NDArray[np.float64]
    anomalous: npt.NDArray[np.bool_]
    severity: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """A parameter of a backend: numbers lie from `low` to `high`, texts are one of `choices`."""

    name: str
    type: Literal["integer", "number", "string"]
    default: float | int | str
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    description: str


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """A backend as clients choose it. `explanation` says what its contributions are."""

    name: str
    aliases: tuple[str, ...]
    category: str
    fit_cost: str
    score_cost: str
    memory: str
    max_rows: int
    use: str
    explanation: str
    parameters: tuple[ParameterInfo, ...]


# --- state of a replica ---------------------------------------------------------------------

ModelState = Literal["unloaded", "failed", "downloading", "loading", "loaded"]


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What one replica says of one model."""

    model_id: str
    state: ModelState
    memory_bytes: int = 0
    load_seconds: float = 0.0
    reason: str = ""
    in_flight: int = 0
    """Requests that use it, or wait for it."""
    pinned: bool = False
    """It never leaves by itself."""
    expires_in_s: float | None = None
    """Until an idle model leaves; None while it is used or pinned."""
    done_bytes: int = 0
    """Of a download or a conversion."""
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """What one replica says of itself; `pid` is that of its process on its node."""

    task: str
    replica_id: str
    pid: int
    models: tuple[ModelStatus, ...] = ()
    node_id: str = ""
