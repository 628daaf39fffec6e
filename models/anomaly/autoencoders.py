"""Auto-encoders: how badly a small network that has seen normal rows rebuilds a row.

torch trains them; the weights are kept as arrays and scored by numpy, row by row: a row's score is
then the same in any batch, which a matrix product does not give, and scoring needs no torch.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from models.anomaly.calibration import Scores
from models.anomaly.columns import Matrix

Arrays = dict[str, npt.NDArray[np.float64]]

HOLDOUT = 0.1
"""Share of the training rows that say when to stop; at least 20 rows are needed for one."""
MIN_ROWS_TO_HOLD_OUT = 20
MIN_GAIN = 1e-4
"""Epochs that lower the loss on the held-out rows by less count as none."""
MAX_ABS_INPUT = 1e3
"""Training rows are cut to this many deviations, so that float32 gradients stay finite."""


@dataclass(frozen=True, slots=True)
class Training:
    """How to train; `beta` is the weight of the divergence, None for a plain auto-encoder.

    The share `trimmed` of each batch that is rebuilt worst teaches nothing: it may be anomalous.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int
    seed: int
    trimmed: float = 0.0
    beta: float | None = None


def fit_autoencoder(rows: Matrix, hidden: int, latent: int, training: Training) -> Arrays:
    """The weights [out, in] and biases of the four layers, by name."""
    import torch

    hidden = hidden or max(rows.shape[1] // 2, 8)
    latent = latent or max(1, min(hidden, rows.shape[1]) // 3)
    widths = (rows.shape[1], hidden, latent, hidden, rows.shape[1])
    source = torch.Generator().manual_seed(training.seed)
    layers = _layers(widths, twice_inner=training.beta is not None, source=source)
    data = torch.from_numpy(np.clip(rows, -MAX_ABS_INPUT, MAX_ABS_INPUT).astype(np.float32))
    with threadpool_limits(limits=1, user_api="openmp"):  # threads only wait on layers this small
        _train(layers, data, training, source)
    state: Arrays = {}
    for index, layer in enumerate(layers):
        size = widths[index + 1]  # of the inner layer of a vae, the means only
        state[f"weight{index}"] = layer.weight.detach().numpy()[:size].astype(np.float64)
        state[f"bias{index}"] = layer.bias.detach().numpy()[:size].astype(np.float64)
    return state


def score_autoencoder(state: Arrays, rows: Matrix) -> Scores:
    """The mean over the features of the squared error."""
    errors = rebuild(state, rows) - rows
    return np.asarray(np.vecdot(errors, errors) / rows.shape[1], dtype=np.float64)


def autoencoder_parts(state: Arrays, rows: Matrix) -> Matrix:
    """[rows, features]; they add up to the score."""
    return np.asarray((rebuild(state, rows) - rows) ** 2 / rows.shape[1], dtype=np.float64)


def rebuild(state: Arrays, rows: Matrix) -> Matrix:
    """The rows as the network gives them back."""
    values = rows
    count = len(state) // 2
    for index in range(count):
        values = np.vecdot(values[:, np.newaxis, :], state[f"weight{index}"])
        values += state[f"bias{index}"]
        if index not in (count // 2 - 1, count - 1):  # the inner layer and the last are linear
            np.maximum(values, 0.0, out=values)
    return values


def _layers(widths: Sequence[int], twice_inner: bool, source: Any) -> Any:
    """Linear layers with torch's usual uniform weights, drawn from `source` alone."""
    import torch

    layers = torch.nn.ModuleList()
    for index, (wide_in, wide_out) in enumerate(pairwise(widths)):
        inner = index == len(widths) // 2 - 1
        layer = torch.nn.utils.skip_init(
            torch.nn.Linear, wide_in, 2 * wide_out if inner and twice_inner else wide_out
        )
        bound = wide_in**-0.5
        for tensor in layer.parameters():
            torch.nn.init.uniform_(tensor, -bound, bound, generator=source)
        layers.append(layer)
    return layers


def _loss(layers: Any, batch: Any, training: Training, source: Any) -> Any:
    """Squared error by features, and for a vae the divergence from a standard normal.

    Without a `source`, the means of the inner layer are used and nothing is drawn.
    """
    import torch
    from torch.nn.functional import relu

    inner = layers[1](relu(layers[0](batch)))
    divergence = torch.zeros(len(batch))
    if training.beta is not None:
        inner, log_variance = inner.chunk(2, dim=1)
        log_variance = log_variance.clamp(-20.0, 20.0)
        terms = 1 + log_variance - inner**2 - log_variance.exp()
        divergence = -0.5 * training.beta * terms.mean(dim=1)
        if source is not None:
            noise = torch.randn(inner.shape, generator=source)
            inner = inner + noise * (0.5 * log_variance).exp()
    rebuilt = layers[3](relu(layers[2](inner)))
    losses = ((rebuilt - batch) ** 2).mean(dim=1) + divergence
    kept = max(1, round((1 - training.trimmed) * len(batch)))
    return losses.topk(kept, largest=False).values.mean()


def _train(layers: Any, data: Any, training: Training, source: Any) -> None:
    """Adam until the loss on held-out rows stops falling; the best weights are kept."""
    import torch

    order = torch.randperm(len(data), generator=source)
    held = int(HOLDOUT * len(data)) if len(data) >= MIN_ROWS_TO_HOLD_OUT else 0
    watched, rows = data[order[:held]] if held else data, data[order[held:]]
    optimizer = torch.optim.Adam(layers.parameters(), lr=training.learning_rate)
    best, best_loss, waited = copy.deepcopy(layers.state_dict()), float("inf"), 0
    for _ in range(training.epochs):
        for batch in torch.randperm(len(rows), generator=source).split(training.batch_size):
            loss = _loss(layers, rows[batch], training, source)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            watched_loss = float(_loss(layers, watched, training, None))
        waited += 1
        if watched_loss < best_loss - MIN_GAIN:
            best, best_loss, waited = copy.deepcopy(layers.state_dict()), watched_loss, 0
        if waited >= training.patience:
            break
    layers.load_state_dict(best)
