"""What clients may choose: the backends, what each is good for, its parameters and their bounds.

Only data, no engine: the HTTP side describes backends from it without loading a library, and
`backends.py` adds how each is fitted and scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.anomaly.parameters import Parameter
from models.errors import InvalidInputError
from models.types.anomaly import BackendInfo

AUTO = "auto"
"""No backend of its own: chooses one of the others by the training rows."""


def _scaler(default: str) -> Parameter:
    return Parameter(
        "scaler",
        default,
        choices=("none", "standard", "robust"),
        description="scales every feature first: by mean and deviation, or by median and quartiles",
    )


SCALER = _scaler("standard")
UNSCALED = _scaler("none")
SUM = "exact: they add up to the raw score less that of a typical row"
REPLACED = "by replacement: change of the raw score when the column alone becomes typical"
NEIGHBOURS = Parameter("n_neighbors", 20, low=1, high=1000, description="neighbours to compare to")
LINEAR, TREE, QUADRATIC = "rows x features", "rows x log(rows)", "rows squared"


@dataclass(frozen=True, slots=True)
class Description:
    """One backend. Costs grow with what they name; scoring costs are per row."""

    category: str
    fit_cost: str
    score_cost: str
    memory: str
    use: str
    explanation: str
    parameters: tuple[Parameter, ...]
    aliases: tuple[str, ...] = ()
    max_rows: int = 1_000_000

    def values(self, given: Mapping[str, object]) -> dict[str, Any]:
        """All parameters, checked, defaults filled in. Raises InvalidInputError."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                names = ", ".join(sorted(known))
                message = f"There is no parameter {name[:64]!r}; there are: {names}."
                raise InvalidInputError(message, f"parameters.{name[:64]}")
        return {
            name: parameter.checked(given[name]) if name in given else parameter.default
            for name, parameter in known.items()
        }


_NETWORK = (
    SCALER,
    Parameter("hidden", 0, low=0, high=1024, description="outer width; 0: features/2, at least 8"),
    Parameter("latent", 0, low=0, high=512, description="inner width; 0: a third of the least"),
    Parameter("epochs", 10, low=1, high=1000, description="at most, over the training rows"),
    Parameter("batch_size", 32, low=1, high=8192, description="rows per step of Adam"),
    Parameter("learning_rate", 1e-3, low=1e-6, high=1.0, description="of Adam"),
    Parameter("patience", 10, low=1, high=1000, description="epochs without gain before the end"),
)

DESCRIPTIONS: Mapping[str, Description] = {
    "isolation_forest": Description(
        category="trees",
        fit_cost="trees x samples",
        score_cost="trees x depth",
        memory="trees x samples",
        use="a first choice: many features, mixed scales, no assumption on the distribution",
        explanation="exact by paths: they add up to log2 of the score less that of a typical row",
        parameters=(
            UNSCALED,
            Parameter("n_estimators", 100, low=1, high=1000, description="trees"),
            Parameter("max_samples", 256, low=2, high=100_000, description="rows per tree"),
            Parameter(
                "max_features", 1.0, low=0.01, high=1.0, description="share of features per tree"
            ),
        ),
    ),
    "one_class_svm": Description(
        category="boundary",
        fit_cost=QUADRATIC,
        score_cost="support vectors x features",
        memory="support vectors",
        use="one smooth region of normal rows, few thousand rows",
        explanation=REPLACED,
        parameters=(
            SCALER,
            Parameter(
                "kernel",
                "rbf",
                choices=("rbf", "linear", "poly", "sigmoid"),
                description="similarity",
            ),
            Parameter(
                "nu", 0.0, low=0.0, high=1.0, description="share outside; 0: the contamination"
            ),
            Parameter(
                "gamma", 0.0, low=0.0, high=1e6, description="of the kernel; 0: by the variance"
            ),
            Parameter("degree", 3, low=1, high=10, description="of the poly kernel"),
        ),
        max_rows=50_000,
    ),
    "local_outlier_factor": Description(
        category="neighbours",
        fit_cost=TREE,
        score_cost="log(rows) x features",
        memory="all training rows",
        use="groups of different density, where a row is odd beside its own group only",
        explanation=REPLACED,
        parameters=(SCALER, NEIGHBOURS),
        aliases=("lof",),
        max_rows=200_000,
    ),
    "knn": Description(
        category="neighbours",
        fit_cost=TREE,
        score_cost="log(rows) x features",
        memory="all training rows",
        use="rows far from all others, any number of groups",
        explanation=REPLACED,
        parameters=(
            SCALER,
            Parameter("n_neighbors", 5, low=1, high=1000, description="neighbours to measure"),
            Parameter(
                "method",
                "largest",
                choices=("largest", "mean"),
                description="distance to the last of them, or to all on average",
            ),
        ),
        max_rows=200_000,
    ),
    "ecod": Description(
        category="probability",
        fit_cost=TREE,
        score_cost="features x log(rows)",
        memory="all training rows",
        use="extreme values in single features; no parameters, fast, explains itself",
        explanation=SUM,
        parameters=(UNSCALED,),
    ),
    "copod": Description(
        category="probability",
        fit_cost=TREE,
        score_cost="features x log(rows)",
        memory="all training rows",
        use="as ecod, weighting the longer tail of each feature",
        explanation=SUM,
        parameters=(UNSCALED,),
    ),
    "hbos": Description(
        category="probability",
        fit_cost=LINEAR,
        score_cost="features",
        memory="features x bins",
        use="bulk scoring of very many rows with independent features",
        explanation=SUM,
        parameters=(
            SCALER,
            Parameter("n_bins", 10, low=2, high=1000, description="bars per histogram"),
            Parameter(
                "alpha", 0.1, low=1e-6, high=1.0, description="added to densities: limits a part"
            ),
            Parameter(
                "tol", 0.5, low=0.0, high=1.0, description="bars beyond the ends that still count"
            ),
        ),
    ),
    "loda": Description(
        category="probability",
        fit_cost="cuts x rows",
        score_cost="cuts",
        memory="cuts x bins",
        use="many features and rows, cheap; odd combinations of a few features",
        explanation=REPLACED,
        parameters=(
            SCALER,
            Parameter("n_bins", 10, low=2, high=1000, description="bars per histogram"),
            Parameter(
                "n_random_cuts", 100, low=1, high=1000, description="random projections to a line"
            ),
        ),
    ),
    "mcd": Description(
        category="linear",
        fit_cost="rows x features squared",
        score_cost="features squared",
        memory="features squared",
        use="one elliptic cloud of correlated features, contaminated training rows",
        explanation=SUM,
        parameters=(
            UNSCALED,
            Parameter(
                "support_fraction", 0.0, low=0.0, high=1.0, description="share used; 0: most robust"
            ),
        ),
        aliases=("elliptic_envelope",),
        max_rows=200_000,
    ),
    "pca": Description(
        category="linear",
        fit_cost="rows x features squared",
        score_cost="features x components",
        memory="features x components",
        use="correlated features whose relations break in anomalies",
        explanation=SUM,
        parameters=(
            SCALER,
            Parameter(
                "explained_variance",
                0.9,
                low=0.01,
                high=1.0,
                description="share of the variance that counts as normal",
            ),
        ),
    ),
    "cblof": Description(
        category="clusters",
        fit_cost="rows x clusters x features",
        score_cost="clusters x features",
        memory="clusters x features",
        use="several large groups of normal rows, and small groups that are anomalies themselves",
        explanation=REPLACED,
        parameters=(
            SCALER,
            Parameter("n_clusters", 8, low=1, high=200, description="of k-means"),
            Parameter(
                "alpha", 0.9, low=0.5, high=0.999, description="share of rows in large clusters"
            ),
            Parameter(
                "beta", 5.0, low=1.001, high=1000.0, description="size of large to small clusters"
            ),
        ),
    ),
    "autoencoder": Description(
        category="neural",
        fit_cost="epochs x rows x weights",
        score_cost="weights",
        memory="weights",
        use="many features with non-linear relations, thousands of normal rows",
        explanation=SUM,
        parameters=_NETWORK,
    ),
    "vae": Description(
        category="neural",
        fit_cost="epochs x rows x weights",
        score_cost="weights",
        memory="weights",
        use="as autoencoder, with a smoother inner space: less prone to learn anomalies by heart",
        explanation=SUM,
        parameters=(
            *_NETWORK,
            Parameter(
                "beta", 0.1, low=0.0, high=100.0, description="weight of the divergence in the loss"
            ),
        ),
    ),
    "suod": Description(
        category="ensemble",
        fit_cost="that of local_outlier_factor",
        score_cost="that of its four members",
        memory="all training rows",
        use="no idea which backend fits: the mean of four that differ",
        explanation=REPLACED,
        parameters=(
            SCALER,
            Parameter(
                "combination",
                "average",
                choices=("average", "maximization"),
                description="of the members' z-scores",
            ),
            Parameter("n_neighbors", 20, low=1, high=1000, description="of local_outlier_factor"),
            Parameter("n_bins", 10, low=2, high=1000, description="of hbos"),
            Parameter("n_estimators", 100, low=1, high=1000, description="of isolation_forest"),
        ),
        max_rows=200_000,
    ),
    "zscore": Description(
        category="rules",
        fit_cost=LINEAR,
        score_cost="features",
        memory="features",
        use="a rule to explain to anyone: the feature that is most deviations off its mean",
        explanation="exact: deviations less those of a typical row; the raw score is the largest",
        parameters=(UNSCALED,),
    ),
    "mad": Description(
        category="rules",
        fit_cost=LINEAR,
        score_cost="features",
        memory="features",
        use="as zscore by medians: for training rows that hold anomalies themselves",
        explanation="exact: deviations less those of a typical row; the raw score is the largest",
        parameters=(UNSCALED,),
    ),
}

_NAMES = {alias: name for name, entry in DESCRIPTIONS.items() for alias in (name, *entry.aliases)}

AUTO_INFO = BackendInfo(
    name=AUTO,
    aliases=(),
    category="choice",
    fit_cost="that of five backends on at most 4500 rows, and of the chosen one",
    score_cost="that of the chosen backend",
    memory="that of the chosen backend",
    max_rows=200_000,
    use="no idea which backend fits: tries five and says which it took and why",
    explanation="that of the chosen backend",
    parameters=(),
)


def backend_name(name: str) -> str:
    """The name of the backend that is called so. Raises InvalidInputError."""
    if name not in _NAMES:
        names = ", ".join(sorted((*_NAMES, AUTO)))
        raise InvalidInputError(
            f"There is no backend {name[:64]!r}; there are: {names}.", "backend"
        )
    return _NAMES[name]


def checked_parameters(backend: str, given: Mapping[str, object]) -> dict[str, Any]:
    """All parameters of the backend that is called so, checked. Raises InvalidInputError."""
    if backend != AUTO:
        return DESCRIPTIONS[backend_name(backend)].values(given)
    if given:
        raise InvalidInputError("The backend 'auto' takes no parameters.", "parameters")
    return {}


def backend_infos() -> tuple[BackendInfo, ...]:
    """Every backend as `GET /v1/anomaly/backends` shows it, "auto" first."""
    return (AUTO_INFO, *(_info(name, entry) for name, entry in DESCRIPTIONS.items()))


def _info(name: str, entry: Description) -> BackendInfo:
    return BackendInfo(
        name=name,
        aliases=entry.aliases,
        category=entry.category,
        fit_cost=entry.fit_cost,
        score_cost=entry.score_cost,
        memory=entry.memory,
        max_rows=entry.max_rows,
        use=entry.use,
        explanation=entry.explanation,
        parameters=tuple(parameter.info for parameter in entry.parameters),
    )
