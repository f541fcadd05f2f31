"""Improve the constructed weights by gradient descent, on one CPU thread."""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import pairs as pairs_file
import vocabulary
from batches import Sampler
from construct import construct, fit_readout
from model import Reranker, Shape
from muon import Muon
from sources import DATA

log = logging.getLogger("train")
MUON_RATE = 4e-4  # a hand-built matrix does not survive much more
CHECKPOINT = DATA / "checkpoint.pt"


def loss_of(scores: Tensor) -> Tensor:
    """The right document (the first) before the others, and each on its own side of one half."""
    listwise = F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))
    right = torch.zeros_like(scores)
    right[:, 0] = 1
    weight = torch.where(right > 0, (scores.shape[1] - 1) * 0.6, 1.0)
    each = F.binary_cross_entropy_with_logits(scores, right * 0.96 + 0.01, reduction="none")
    return listwise + (each * weight).sum() / weight.sum()


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
    """One run. Its length is in minutes, or in steps where it must be the same on every machine."""

    def __init__(
        self, model: Reranker, sampler: Sampler, minutes: float, steps: int, rate: float
    ) -> None:
        self.model, self.minutes, self.steps = model, minutes, steps
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
        start, step, ranked, asked, loss_sum, tokens, saved = time.time(), 0, 0, 0, 0.0, 0, 0.0
        while (
            done := step / self.steps if self.steps else (time.time() - start) / (60 * self.minutes)
        ) < 1:
            self._set_rates(min(1, (step + 1) / 40) * min(1, (1 - done) / 0.6))
            some = next(self.batches)
            scores = self.model(some)
            loss = loss_of(scores)
            self._descend(loss)
            step += 1
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
                self.save(out)
        log.info("%d steps, %d tokens, %.1f minutes", step, tokens, (time.time() - start) / 60)
        self.save(out)

    def save(self, out: Path) -> None:
        part = out.with_suffix(".part")
        torch.save({"shape": self.model.shape.as_dict(), "weights": self.average.weights}, part)
        part.rename(out)

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


def restore(path: Path) -> Reranker:
    saved = torch.load(path)
    model = Reranker(Shape(**saved["shape"]))
    model.load_state_dict(saved["weights"])
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--steps", type=int, default=0, help="instead of minutes")
    parser.add_argument("--rate", type=float, default=1.0, help="factor on all learning rates")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--resume", type=Path, help="a checkpoint to go on from instead of the construction"
    )
    parser.add_argument("--out", type=Path, default=CHECKPOINT)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    torch.manual_seed(chosen.seed)
    pairs = pairs_file.load()
    model = restore(chosen.resume) if chosen.resume else start(pairs, chosen.seed)
    Trainer(
        model,
        Sampler(pairs, vocabulary.load(), chosen.seed + 2),
        chosen.minutes,
        chosen.steps,
        chosen.rate,
    ).run(chosen.out)


if __name__ == "__main__":
    main()
