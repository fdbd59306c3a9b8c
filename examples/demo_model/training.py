# ruff: noqa: T201
"""Trains the demo model on drawings that are made as it goes. On one CPU core it takes about an hour.

Runs with the same arguments see the same drawings. The state is saved every `--save-every` steps, so that a run that is
cut short can be used.
"""

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from drawing import COLOURS, SHAPES
from lessons import IGNORED, Batch, Lessons, Packer
from model import WIDTH, build_model
from tokenizer import build_processor, save_processor
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from transformers import AutoProcessor, Kosmos2ForConditionalGeneration

CELLS = 32
SMOOTHING = 0.7
"""Cells: a corner one cell off is nearly right, and the loss says so."""
PATCH_SHARE = 0.3
"""Of the patches' loss in the whole."""
IMAGE_PLACES = range(4, 68)


class Student(nn.Module):
    """The model, and heads that tell from its patches what they show: a lesson in seeing, dropped after training."""

    def __init__(self, model: Kosmos2ForConditionalGeneration, first_location: int) -> None:
        super().__init__()
        self.model, self.first_location = model, first_location
        self.colour, self.shape = nn.Linear(WIDTH, len(COLOURS) + 1), nn.Linear(WIDTH, len(SHAPES) + 1)
        self.order, self.box = nn.Linear(WIDTH, 4), nn.Linear(WIDTH, 4)
        cell = torch.arange(CELLS * CELLS)
        apart = (cell[:, None] // CELLS - cell // CELLS) ** 2 + (cell[:, None] % CELLS - cell % CELLS) ** 2
        near = torch.exp(-apart / (2 * SMOOTHING**2)) * (apart <= 8)
        self.register_buffer("near", near / near.sum(1, keepdim=True), persistent=False)

    def see(self, pixels: Tensor) -> Tensor:
        """[rows, 1 + patches, WIDTH], as Kosmos2Model makes them."""
        vision = self.model.vision_model
        hidden = vision(pixel_values=pixels).last_hidden_state
        return F.normalize(vision.model.post_layernorm(hidden), dim=-1)

    def read(self, features: Tensor, batch: Batch) -> Tensor:
        """[rows, columns, WIDTH]: as Kosmos2TextTransformer, which knows no mask between exchanges."""
        text = self.model.text_model.model
        image, _ = self.model.image_to_text_projection(features)
        tokens = text.embed_tokens(batch.ids)
        hidden = torch.cat([tokens[:, :2], image, tokens[:, 2 + image.shape[1] :]], dim=1) * text.embed_scale
        hidden = hidden + text.embed_positions.weights[batch.positions]
        for layer in text.layers:
            hidden = layer(hidden, batch.mask[None, None])
        return text.layer_norm(hidden)

    def text_loss(self, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(mean loss of the answers' tokens, that of the words and tags alone)."""
        asked = labels != IGNORED
        labels = labels[asked]
        log_probs = F.log_softmax(self.model.text_model.lm_head(hidden[asked]), dim=-1)
        places = labels >= self.first_location
        words = -log_probs[~places].gather(1, labels[~places, None])
        aims = self.near[labels[places] - self.first_location]
        cells = -(log_probs[places, self.first_location : self.first_location + CELLS * CELLS] * aims).sum(1)
        return (words.sum() + cells.sum()) / len(labels), words.mean().detach()

    def patch_loss(self, features: Tensor, patches: Tensor) -> Tensor:
        """How badly the patches are told: their colour, shape and box, and their thing's place in the order."""
        seen, patches = features[:, 1:].flatten(0, 1) * WIDTH**0.5, patches.flatten(0, 1)
        on = patches[:, 0] >= 0
        weight = torch.where(on, 1.0, 0.1)
        loss = torch.zeros(())
        for head, column, share in ((self.colour, 0, 1.0), (self.shape, 1, 2.0)):
            kind = torch.where(on, patches[:, column], head.out_features - 1).long()
            loss = loss + share * (F.cross_entropy(head(seen), kind, reduction="none") * weight).sum() / weight.sum()
        order = F.cross_entropy(self.order(seen[on]), patches[on, 2].long())
        return loss + 5 * F.l1_loss(self.box(seen[on]), patches[on, 3:]) + 0.3 * order


class Course:
    """One run: the optimizer, its schedule in steps, and the running average of the weights, which is what is kept."""

    def __init__(self, student: Student, arguments: argparse.Namespace) -> None:
        self.student, self.steps, self.warm_up = student, arguments.steps, arguments.warm_up
        self.look_first = arguments.look_first
        self.optimizer = torch.optim.AdamW(parameter_groups(student, arguments.rate), betas=(0.9, 0.99))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.rate_at)
        self.average = AveragedModel(student.model, multi_avg_fn=get_ema_multi_avg_fn(0.998))

    def rate_at(self, step: int) -> float:
        """Rises over the warm-up, then falls along a cosine to 2% of the full rate."""
        return min(1.0, (step + 1) / self.warm_up) * (0.51 + 0.49 * math.cos(math.pi * step / self.steps))

    def step(self, number: int, pixels: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The losses of the batch, learned from."""
        student = self.student
        features = student.see(pixels)
        # New heads would send noise into a trained model: at first they learn alone.
        seen = features if number >= self.warm_up or self.look_first else features.detach()
        patches = student.patch_loss(seen, batch.patches)
        losses = {"patches": patches.detach()}
        if number < self.look_first:
            total = patches
        else:
            text, losses["words"] = student.text_loss(student.read(features, batch), batch.labels)
            losses["text"], total = text.detach(), text + PATCH_SHARE * patches
        total.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.average.update_parameters(student.model)
        return losses

    def save(self, out: Path, processor: Any) -> None:
        self.average.module.save_pretrained(out)
        save_processor(processor, out)


def parameter_groups(student: Student, rate: float) -> list[dict[str, Any]]:
    """Matrices decay, the rest does not; what is between eye and language learns five times as fast."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in student.named_parameters():
        is_between = "projection.dense" in name or "latent_query" in name
        is_matrix = parameter.ndim > 1 and not is_between and "embed" not in name
        groups[5 * rate if is_between else rate, 0.03 if is_matrix else 0.0].append(parameter)
    return [{"params": p, "lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]


def train(course: Course, batches: Iterable[Batch], processor: Any, out: Path, save_every: int) -> None:
    """Ends with the averaged weights in `out`, as after every `save_every` steps."""
    images = processor.image_processor
    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (images.image_mean, images.image_std))
    begin, running = time.monotonic(), defaultdict[str, float](float)
    for number, batch in enumerate(batches):
        losses = course.step(number, (batch.pixels - mean) / std, batch)
        for name, loss in losses.items():
            running[name] += (float(loss) - running[name]) * max(0.02, 1 / (number + 1))
        if (number + 1) % 50 == 0:
            told = ", ".join(f"{name} {value:.4f}" for name, value in running.items())
            print(f"step {number + 1}, {time.monotonic() - begin:.0f} s: {told}", flush=True)
        if (number + 1) % save_every == 0:
            course.save(out, processor)
    course.save(out, processor)


def main(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    processor = AutoProcessor.from_pretrained(arguments.init) if arguments.init else build_processor(arguments.out)
    tokenizer = processor.tokenizer
    begin, end, first_location = tokenizer.convert_tokens_to_ids(["<image>", "</image>", "<patch_index_0000>"])
    if arguments.init:
        model = Kosmos2ForConditionalGeneration.from_pretrained(arguments.init, dtype=torch.float32)
    else:
        model = build_model(len(tokenizer), first_location, arguments.seed)
    lessons = Lessons(arguments.seed, arguments.steps * arguments.batch, tokenizer, arguments.phrases)
    pack = Packer([tokenizer.bos_token_id, begin, *IMAGE_PLACES, end])
    batches = DataLoader(lessons, arguments.batch, num_workers=arguments.workers, collate_fn=pack)
    course = Course(Student(model.train(), first_location), arguments)
    train(course, batches, processor, arguments.out, arguments.save_every)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder of the checkpoint")
    parser.add_argument("--init", type=Path, help="a checkpoint to go on from, instead of from nothing")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=16, help="drawings a step")
    parser.add_argument("--phrases", type=int, default=5, help="phrase prompts for each drawing")
    parser.add_argument("--rate", type=float, default=8e-4, help="the highest learning rate")
    parser.add_argument("--warm-up", type=int, default=100, help="steps until the rate is at its highest")
    parser.add_argument(
        "--look-first", type=int, default=0, help="steps of seeing alone, before any words (from nothing)"
    )
    parser.add_argument("--save-every", type=int, default=250, help="steps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0, help="processes that draw; 0: between the steps")
    main(parser.parse_args())
