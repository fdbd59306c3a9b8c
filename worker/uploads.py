"""Images on their way to the device, as the bytes that they are: a quarter of what floats would take."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from worker.generation import IMAGE_SIZE, Pixels

SHAPE = (IMAGE_SIZE, IMAGE_SIZE, 3)


class Uploads:
    """Two pinned buffers of `batch` images in turn: one is filled while the other is copied to the GPU.

    Images may be sent ahead, while the GPU is busy with something else. On a CPU there is nowhere to send them.
    """

    def __init__(self, device: torch.device, batch: int) -> None:
        self.device, self.batch = device, batch
        self._pinned = device.type == "cuda"
        self._ahead: dict[int, tuple[Pixels, Tensor]] = {}
        if self._pinned:
            self._buffers = [torch.empty(batch, *SHAPE, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
            self._copied = [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def send_ahead(self, images: Sequence[Pixels]) -> None:
        """Starts the copy of the first few that will be taken next; they are kept until then."""
        if self._pinned:
            wanted = images[: self.batch]
            keys = set(map(id, wanted))
            self._ahead = {key: sent for key, sent in self._ahead.items() if key in keys}
            self._send(wanted)

    def take(self, images: Sequence[Pixels]) -> Tensor:
        """uint8 [n, 224, 224, 3] on the device, for at most `batch` images."""
        if not self._pinned:
            return torch.from_numpy(np.stack(images))
        self._send(images)
        torch.cuda.current_stream(self.device).wait_stream(self._stream)
        return torch.stack([self._ahead.pop(id(image))[1] for image in images])

    def _send(self, images: Sequence[Pixels]) -> None:
        """Starts the copy of those that are not there yet."""
        new = list({id(image): image for image in images if id(image) not in self._ahead}.values())
        if not new:
            return
        self._buffers.reverse()
        self._copied.reverse()
        buffer, copied = self._buffers[0][: len(new)], self._copied[0]
        copied.synchronize()  # what it held before has left
        np.stack(new, out=buffer.numpy())
        with torch.cuda.stream(self._stream):
            sent = buffer.to(self.device, non_blocking=True)
            copied.record(self._stream)
        sent.record_stream(torch.cuda.current_stream(self.device))
        self._ahead |= {id(image): (image, it) for image, it in zip(new, sent, strict=True)}
