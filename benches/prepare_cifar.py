"""Decodes the JPEG bytes of a CIFAR-10 subset to arrays for `subspan-benches merge --cifar`.

    pip install numpy pillow
    python benches/prepare_cifar.py cifar10_10k_2k_jpeg.npz OUT.npz

OUT has `train` (1,000 images, for statistics), `test` (1,000 images) and `test_y`. The images are recompressed: accuracies on them
are for comparison only.
"""

import io
import sys

import numpy as np
from PIL import Image

N = 1000

data = np.load(sys.argv[1])


def decode(part: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spaced images, so that every class is there."""
    offsets, payload = data[f"{part}_off"], data[f"{part}_jpeg"].tobytes()
    rows = np.linspace(0, len(offsets) - 2, n).astype(int)
    images = [Image.open(io.BytesIO(payload[offsets[i] : offsets[i + 1]])).convert("RGB") for i in rows]
    return np.stack([np.asarray(image) for image in images]), rows


train, _ = decode("train", N)
test, rows = decode("test", N)
np.savez(sys.argv[2], train=train, test=test, test_y=data["test_y"][rows].astype(np.int64))
print(train.shape, test.shape)
