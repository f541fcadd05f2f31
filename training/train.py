"""Improve the constructed weights by gradient descent, on one CPU thread."""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import torch
from torch import Tensor

import pairs as pairs_file
import vocabulary
from batches import Sampler
from checkpoint import LEXICAL, save
from construct import construct, fit_readout
from loss import loss_of
from model import Reranker, Shape
from muon import Muon

log = logging.getLogger("train")
MUON_RATE = 4e-4  # a hand-built matrix does not survive much more


class Average:
    """A running mean of the weights; it is what is shipped."""

    def __init__(self, model: Reranker) -> None:
        self.weights = {
            name: weight.detach().clone() for name, weight in model.state_dict().items()
        }
        self.steps = 0

    @torch.no_grad()
    def update(self, model: Reranker) -> None:
        self.steps += 1
        keep = min(0.998, self.steps / (self.steps + 9))
        for name, weight in model.state_dict().items():
            self.weights[name].lerp_(weight, 1 - keep)


class Trainer:
    """One run."""

    def __init__(self, model: Reranker, sampler: Sampler, steps: int, rate: float) -> None:
        self.model, self.steps = model, steps
        self.batches = iter(sampler)
        self.average = Average(model)
        matrices = [
            w for name, w in model.named_parameters() if w.ndim == 2 and "embed" not in name
        ]
        norms = [w for w in model.parameters() if w.ndim == 1]
        rest = [
            {"params": [model.embed_tokens.weight], "lr": 6e-4 * rate},
            {"params": norms, "lr": 2e-3 * rate},
        ]
        self.optimizers = [
            Muon(matrices, MUON_RATE * rate),
            torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0),
        ]
        self.rates = [
            [group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers
        ]

    def run(self, out: Path) -> None:
        start, ranked, asked, loss_sum, tokens, saved = time.time(), 0, 0, 0.0, 0, 0.0
        for step in range(1, self.steps + 1):
            self._set_rates(min(1, step / 40) * min(1, (1 - (step - 1) / self.steps) / 0.6))
            some = next(self.batches)
            scores = self.model(some)
            loss = loss_of(scores)
            self._descend(loss)
            ranked += int((scores.argmax(1) == 0).sum())
            asked += len(scores)
            loss_sum += loss.item()
            tokens += int(some.document_lengths.sum() + some.question_lengths.sum())
            if step % 50 == 0:
                speed = tokens / (time.time() - start)
                log.info(
                    "%5d %4.1f min loss %.3f first %.3f tokens/s %.0f",
                    step,
                    (time.time() - start) / 60,
                    loss_sum / 50,
                    ranked / asked,
                    speed,
                )
                ranked, asked, loss_sum = 0, 0, 0.0
            if time.time() - saved > 60:
                saved = time.time()
                save(self.model.shape, self.average.weights, out.with_suffix(".running.pt"))
        log.info("%d steps, %d tokens, %.1f min", self.steps, tokens, (time.time() - start) / 60)
        save(self.model.shape, self.average.weights, out)

    def _descend(self, loss: Tensor) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update(self.model)

    def _set_rates(self, factor: float) -> None:
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * max(factor, 0.002)


def start(pairs: pairs_file.Pairs, seed: int) -> Reranker:
    """The constructed model with a fitted readout."""
    tokenizer = vocabulary.load()
    shape = Shape(
        tokenizer.get_vocab_size(), tokenizer.token_to_id("yes"), tokenizer.token_to_id("no")
    )
    model = construct(shape, tokenizer, torch.tensor(pairs.frequency), len(pairs.passages), seed)
    sampler = iter(Sampler(pairs, tokenizer, seed + 1, bare=0))
    share = fit_readout(model, [next(sampler) for _ in range(60)])
    log.info("constructed: right first in %.3f of its own fitting sample", share)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--rate", type=float, default=1.0, help="factor on all learning rates")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    torch.manual_seed(chosen.seed)
    pairs = pairs_file.load()
    model = start(pairs, chosen.seed)
    Trainer(
        model,
        Sampler(pairs, vocabulary.load(), chosen.seed + 2),
        chosen.steps,
        chosen.rate,
    ).run(LEXICAL)


if __name__ == "__main__":
    main()
