"""The application's settings: the `args:` of serve_config.yaml, typed and checked before a run.

Every field is documented in docs/operations.md (a test compares both).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from config.access import AccessSettings
from config.catalog import SHIPPED_CATALOG, Catalog, CatalogError, ModelSpec, Task, load_catalog
from config.paths import default_data_dir, default_weights_dir, with_home

Seconds = Annotated[float, Field(gt=0, le=86400)]
Count = Annotated[int, Field(gt=0, le=1_000_000)]
LocalPath = Annotated[Path, AfterValidator(with_home)]
DataDir = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.\-]*://")] | LocalPath
Bytes = Annotated[int, Field(gt=0, le=8 << 30)]
VECTOR_BYTES = 4096
"""Of a remembered vector with its key, for most models at most."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskSettings(_Settings):
    """Resources and scaling of one task's deployment."""

    num_cpus: Annotated[float, Field(ge=0)] = 0.25
    """CPU share that Ray's scheduler reserves per replica; fractions and 0 are allowed."""
    num_gpus: Literal["auto"] | Annotated[float, Field(ge=0, le=64)] = "auto"
    """GPU share per replica. `auto`: `gpu_share` when the cluster has a GPU, else 0."""
    gpu_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """The fraction of one GPU that `auto` stands for."""
    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    """Compute threads of a replica's engines. None: its part of the node's CPUs by `num_cpus`,
    among the replicas that are awake when a model is loaded; at least one."""
    niceness: Annotated[int, Field(ge=0, le=19)] = 19
    """How much less urgent the computing of a replica's models is than other processes."""
    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 0
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    target_ongoing_requests: Annotated[float, Field(gt=0)] = 16
    """Requests in flight per replica above which Serve adds replicas."""
    max_ongoing_requests: Count = 128
    """Calls that one replica accepts at a time; more wait at the handle."""
    max_queued_requests: Count = 512
    """Calls that may wait at one ingress replica; more are answered 429."""
    idle_timeout_s: Seconds = 300
    """A replica without requests for this long is stopped."""
    model_ttl_s: Seconds = 300
    """An idle model leaves the memory of its replica after so long, unless a client says else."""
    model_budget_bytes: Annotated[int, Field(gt=0, le=1 << 50)] | None = None
    """What the models of one replica may hold together; idle ones leave for others. None: all."""
    memory_tolerance_bytes: Annotated[int, Field(ge=64 << 20, le=1 << 40)] | None = None
    """More than this beyond its start, without any model, and a replica is replaced. None: 1 GiB,
    on a GPU of NVIDIA or AMD 3 GiB."""

    @model_validator(mode="after")
    def _replicas_can_be_placed(self) -> TaskSettings:
        """Else Ray refuses the deployment once the server runs, and names no setting."""
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas must not be above max_replicas")
        if self.num_gpus != "auto" and self.num_gpus > 1 and self.num_gpus % 1:
            raise ValueError("num_gpus above 1 must be a whole number")
        return self

    @property
    def kept_bytes(self) -> int:
        """What a replica may keep beside its models."""
        return 0

    def gpu_fraction(self, *, has_gpu: bool) -> float:
        """The explicit share when there is one, else `gpu_share` where there is a GPU, else 0."""
        if self.num_gpus != "auto":
            return self.num_gpus
        return self.gpu_share if has_gpu else 0.0


class EmbeddingSettings(TaskSettings):
    """Embedding can remember."""

    cache_entries: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Vectors that a replica keeps for texts that come again; 0: none."""

    @property
    def kept_bytes(self) -> int:
        return self.cache_entries * VECTOR_BYTES


class GenerationSettings(TaskSettings):
    """Generation decodes for as long as clients read: it gets the larger share."""

    num_cpus: Annotated[float, Field(ge=0)] = 0.5
    niceness: Annotated[int, Field(ge=0, le=19)] = 0
    gpu_share: Annotated[float, Field(gt=0, le=1)] = 0.5


class CpuTaskSettings(TaskSettings):
    """A task whose engines have no use for a GPU unless told so."""

    num_gpus: Literal["auto"] | Annotated[float, Field(ge=0, le=64)] = 0


class OcrSettings(CpuTaskSettings):
    """OCR can fetch what it reads."""

    allow_remote_urls: bool = False
    """Fetch documents from public addresses; `data:` URLs and uploads always work."""
    remote_url_s: Annotated[float, Field(gt=0, le=600)] = 10
    """Seconds to fetch one, redirects included."""


class AnomalySettings(CpuTaskSettings):
    """Detectors are fitted in processes beside the replica and kept as files."""

    max_fits: Annotated[int, Field(ge=1, le=64)] = 2
    """Fits that one replica runs at a time."""
    fit_memory_bytes: Annotated[int, Field(ge=256 << 20, le=1 << 44)] = 4 << 30
    """Memory that one fit, or the reading of one file, may take."""
    keep_versions: Annotated[int, Field(ge=1, le=100)] = 5
    """Versions of a detector that stay; a fit removes the oldest beyond them."""
    cache_bytes: Annotated[int, Field(ge=0, le=1 << 44)] = 256 << 20
    """Files of detectors that a replica keeps loaded; the least recently used leaves first."""
    cache_ttl_s: Seconds = 600
    """A loaded detector that nobody asks for leaves the memory."""


class IngressSettings(_Settings):
    """The deployment that speaks HTTP."""

    num_cpus: Annotated[float, Field(ge=0)] = 0
    num_replicas: Annotated[int, Field(ge=1, le=100)] = 1
    max_ongoing_requests: Count = 4096
    spare_process: bool = True
    """Keep a started process for the next replica on the node."""


class LimitSettings(_Settings):
    """Bounds on what one request may ask for; beyond them the answer is a 4xx naming the field."""

    max_body_bytes: Bytes = 10 << 20
    max_upload_bytes: Bytes = 32 << 20
    """Body limit of the routes that carry images (base64 counts as sent)."""
    max_inputs: Count = 2048
    """Texts per embedding or classification request; zero-shot, texts times labels."""
    max_completions: Count = 128
    """Prompts of a completion request times `n`."""
    max_input_chars: Count = 1_000_000
    """Characters of one text, prompt or document."""
    max_total_chars: Count = 4_000_000
    """Characters of all texts of one request."""
    max_documents: Count = 1000
    max_messages: Count = 2048
    max_choices: Count = 8
    max_stop_sequences: Count = 4
    max_images: Count = 16
    max_rows: Count = 200_000
    max_table_bytes: Bytes = 128 << 20
    """Body limit of CSV, Arrow and Parquet files."""
    max_columns: Count = 4096


class DocumentSettings(_Settings):
    """Bounds on documents of many pages, each of which is rendered in a process of its own."""

    max_pages: Annotated[int, Field(gt=0, le=10_000)] = 200
    """Pages that one request may ask for."""
    dpi: Annotated[int, Field(ge=36, le=1200)] = 150
    """Resolution of rendered pages unless the request says another."""
    max_dpi: Annotated[int, Field(ge=36, le=1200)] = 400
    max_page_pixels: Annotated[int, Field(gt=0, le=200_000_000)] = 40_000_000
    """Of one page, known before it is rendered."""
    page_s: Seconds = 6
    """To open a document, and to render a page of it; then its process is killed."""
    pages_in_flight: Annotated[int, Field(ge=1, le=64)] = 4
    """Rendered pages of one document that wait for recognition."""
    max_open: Annotated[int, Field(ge=1, le=256)] = 8
    """Documents that one replica reads at a time; more wait."""

    @model_validator(mode="after")
    def _default_is_allowed(self) -> DocumentSettings:
        if self.dpi > self.max_dpi:
            raise ValueError("dpi must not be above max_dpi")
        return self


class FileSettings(_Settings):
    """Files that clients upload."""

    url: str | None = None
    """Folder or fsspec URL that every node can reach. None: `files` below `data_dir`."""
    max_file_bytes: Bytes = 256 << 20
    max_total_bytes: Annotated[int, Field(gt=0, le=1 << 50)] = 4 << 30
    """Of all files together."""
    max_files: Annotated[int, Field(gt=0, le=100_000)] = 1000
    ttl_s: Annotated[float, Field(gt=0, le=10 * 365 * 86400)] = 7 * 86400
    """Seconds after which a file is deleted; a request may ask for fewer."""


class DeadlineSettings(_Settings):
    """Seconds after which the server itself gives up; no client header extends them."""

    body_s: Seconds = 30
    """For a body to arrive, and a second more for each 64 KiB of it: 408."""
    load_s: Seconds = 120
    """Waiting for a replica to start, or a model to load: 503 with Retry-After; both go on."""
    stuck_load_s: Seconds = 1800
    """A load or a download without progress for so long is given up, and its replica replaced."""
    batch_s: Seconds = 240
    """Embedding, rerank, classification, OCR and scoring requests: 504."""
    document_s: Seconds = 600
    """All pages of one document: 504, or an error event once the stream has begun."""
    generation_s: Seconds = 600
    """A whole chat or completion: 504, or an error event once the stream has begun."""
    fit_s: Seconds = 1800
    """Fitting a detector or a classifier."""
    drain_s: Seconds = 20
    """Requests under way on a replica that is replaced or stopped; then they are cut."""
    stuck_s: Annotated[float, Field(ge=1, le=3600)] = 15
    """A batch or a step that lasts so much longer than can be expected hangs: its replica ends."""
    unread_s: Seconds = 30
    """A client that takes nothing of its answer for so long is cut off."""

    @model_validator(mode="after")
    def _loading_is_told_from_slowness(self) -> DeadlineSettings:
        """Else a slow load is answered 504, and clients are told not to try again."""
        if self.load_s >= min(self.batch_s, self.document_s, self.generation_s):
            raise ValueError("load_s must be shorter than batch_s, document_s and generation_s")
        return self


class CoalescingSettings(_Settings):
    """How the ingress joins small requests for one model into one call to its replica."""

    enabled: bool = True
    max_in_flight: Annotated[int, Field(ge=1, le=64)] = 1
    """Shared calls under way per model; while that many are, further small requests gather."""
    max_requests: Count = 256
    """Requests in one shared call."""
    max_call_chars: Count = 30_000
    """Of all requests in one shared call; a single one may be larger."""
    max_request_chars: Count = 4_000
    """A larger request is a call of its own, which ends when its client leaves; what small ones
    share goes on while one of their clients stays."""
    max_large_in_flight: Annotated[int, Field(ge=1, le=256)] = 32
    """Calls of larger requests under way per model."""
    max_waiting: Count = 1024
    """Requests that wait for one model, small and larger ones apart; more are answered 429."""
    max_waiting_chars: Annotated[int, Field(gt=0, le=8 << 30)] = 64_000_000
    """Of what waits for one model; images count as bytes, tables as cells."""
    max_wait_s: Seconds = 30
    """A request that would wait longer is answered 429 at once."""


class AppConfig(_Settings):
    """The `args:` of the application."""

    catalog: LocalPath = SHIPPED_CATALOG
    """Catalogue file to start from."""
    models: tuple[ModelSpec, ...] = ()
    """Further catalogue entries."""
    model_roots: tuple[LocalPath, ...] = ()
    """Folders under which `path` sources may lie; none by default."""
    weights_dir: LocalPath = Field(default_factory=default_weights_dir)
    """Cache of downloaded weights, outside the source tree; every node has its own."""
    weights_url: str | None = None
    """Folder or fsspec URL from which nodes copy weights that one of them has fetched."""
    data_dir: DataDir = Field(default_factory=default_data_dir)
    """Fitted detectors and other artefacts that must survive restarts: a folder, or the URL of an
    object store that fsspec knows."""
    memory_reserve_bytes: Annotated[int, Field(ge=0, le=1 << 50)] | None = None
    """Of each node's memory, left alone by models. None: a tenth, and 1 GiB at least."""
    offline: bool = False
    """Never contact an index or a hub: what is not in the cache is a 503."""
    preload: tuple[str, ...] = ()
    """Ids of models that are loaded at start and stay; each keeps a replica of its task."""
    access: AccessSettings = AccessSettings()
    ingress: IngressSettings = IngressSettings()
    limits: LimitSettings = LimitSettings()
    documents: DocumentSettings = DocumentSettings()
    files: FileSettings = FileSettings()
    deadlines: DeadlineSettings = DeadlineSettings()
    coalescing: CoalescingSettings = CoalescingSettings()
    generation: GenerationSettings = GenerationSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    rerank: TaskSettings = TaskSettings()
    classification: TaskSettings = TaskSettings()
    ocr: OcrSettings = OcrSettings()
    anomaly: AnomalySettings = AnomalySettings()

    def task(self, task: Task) -> TaskSettings:
        settings: TaskSettings = getattr(self, task)
        return settings

    def data_root(self, library: str) -> str:
        """Where one library of artefacts is kept, below `data_dir`."""
        return f"{str(self.data_dir).rstrip('/')}/{library}"

    def preloads(self, spec: ModelSpec) -> bool:
        return any(name in self.preload for name in spec.names)

    @property
    def files_url(self) -> str:
        """Where uploaded files are kept."""
        return self.files.url or self.data_root("files")

    def load_catalog(self) -> Catalog:
        """The catalogue file with `models` added. Raises CatalogError."""
        catalog = load_catalog(self.catalog).extended(self.models)
        for name in self.preload:
            if catalog.find(name) is None:
                raise CatalogError(f"'preload' names '{name}', which is no model of the catalogue")
        return catalog
