#!/usr/bin/env python3
"""Trains fashion-cnn.onnx and writes everything else in this folder that is made from Fashion-MNIST.

Needs Debian's python3-torch (1.13) and dataset-fashion-mnist, and nothing else:
    apt-get install --no-install-recommends python3-torch dataset-fashion-mnist
    /usr/bin/python3 models/train-fashion-cnn.py

60,000 training images are split 55,000 / 5,000; the validation accuracy chooses the epoch; the 10,000 test images are looked
at once, at the end. Seeds are fixed; on another machine or number of threads the last digits of the weights differ.
"""
import argparse
import gzip
import json
import pathlib
import struct
import sys
import zlib

import numpy as np
import torch
from torch import nn

HERE = pathlib.Path(__file__).resolve().parent
DATA = pathlib.Path("/usr/share/datasets/fashion-mnist")
LABELS = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
VALIDATION = 5_000
SHIPPED = 500
SAMPLES = [0, 1, 2]


def read_idx(name):
    """An array of a gzipped IDX file (magic with the rank as its last byte, big-endian sizes, bytes)."""
    with gzip.open(DATA / name) as file:
        bytes_ = file.read()
    rank = bytes_[3]
    sizes = struct.unpack(f">{rank}I", bytes_[4 : 4 + 4 * rank])
    return np.frombuffer(bytes_, np.uint8, offset=4 + 4 * rank).reshape(sizes)


class FashionCnn(nn.Module):
    """VGG-like: pixels / 255, [N,1,28,28], to logits, [N,10]. The export folds each BatchNorm into its convolution."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24)
        self.conv2, self.norm2 = nn.Conv2d(24, 24, 3, padding=1), nn.BatchNorm2d(24)
        self.conv3, self.norm3 = nn.Conv2d(24, 48, 3, padding=1), nn.BatchNorm2d(48)
        self.conv4, self.norm4 = nn.Conv2d(48, 48, 3, padding=1), nn.BatchNorm2d(48)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(0.4)
        self.fc1 = nn.Linear(48 * 7 * 7, 144)
        self.fc2 = nn.Linear(144, 10)

    def forward(self, image):
        x = self.norm1(self.conv1(image)).relu()
        x = self.pool(self.norm2(self.conv2(x)).relu())
        x = self.norm3(self.conv3(x)).relu()
        x = self.pool(self.norm4(self.conv4(x)).relu())
        x = self.fc1(self.dropout(x.flatten(1))).relu()
        return self.fc2(self.dropout(x))


def to_input(pixels):
    return torch.from_numpy(pixels.astype(np.float32) / 255).unsqueeze(1)


def augmented(images, generator):
    """Each image mirrored with probability 1/2 and the batch shifted by up to two pixels."""
    flip = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    dx, dy = (int(torch.randint(-2, 3, (1,), generator=generator)) for _ in range(2))
    padded = nn.functional.pad(images, (2, 2, 2, 2))
    return padded[:, :, 2 + dy : 30 + dy, 2 + dx : 30 + dx]


def accuracy(model, images, labels):
    model.eval()
    with torch.no_grad():
        right = sum((model(x).argmax(1) == y).sum().item() for x, y in zip(images.split(1000), labels.split(1000)))
    return right / len(images)


def train(epochs):
    torch.manual_seed(1)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    generator = torch.Generator().manual_seed(2)
    images = to_input(read_idx("train-images-idx3-ubyte.gz"))
    labels = torch.from_numpy(read_idx("train-labels-idx1-ubyte.gz").astype(np.int64))
    order = torch.randperm(len(images), generator=generator)
    held, rest = order[:VALIDATION], order[VALIDATION:]
    model = FashionCnn()
    batches = (len(rest) + 127) // 128
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * batches)
    best, state = 0.0, None
    for epoch in range(epochs):
        model.train()
        for batch in rest[torch.randperm(len(rest), generator=generator)].split(128):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(augmented(images[batch], generator)), labels[batch])
            loss.backward()
            optimiser.step()
            schedule.step()
        validation = accuracy(model, images[held], labels[held])
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}, validation {100 * validation:.2f} %", flush=True)
        if validation > best:
            best, state = validation, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    return model.eval(), best


def export(model):
    """Opset 13 with stable names; eval mode makes the exporter fold every BatchNorm into its convolution."""
    torch.onnx.export(
        model,
        torch.zeros(1, 1, 28, 28),
        HERE / "fashion-cnn.onnx",
        opset_version=13,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
    )


def png(pixels):
    """An 8-bit grayscale PNG (RFC 2083)."""
    height, width = pixels.shape
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--epochs", type=int, default=14)
    model, validation = train(arguments.parse_args().epochs)
    pixels = read_idx("t10k-images-idx3-ubyte.gz")
    labels = read_idx("t10k-labels-idx1-ubyte.gz")
    images, truth = to_input(pixels), torch.from_numpy(labels.astype(np.int64))
    export(model)
    np.save(HERE / "fashion-test-images.npy", pixels[:SHIPPED])
    np.save(HERE / "fashion-test-labels.npy", labels[:SHIPPED])
    (HERE / "fashion-labels.txt").write_text("\n".join(LABELS) + "\n")
    for index in SAMPLES:
        name = LABELS[labels[index]].lower().replace("/", "-").replace(" ", "-")
        (HERE / f"sample-{name}.png").write_bytes(png(pixels[index]))
    result = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "validationAccuracy": validation,
        "testAccuracy": accuracy(model, images, truth),
        "shippedAccuracy": accuracy(model, images[:SHIPPED], truth[:SHIPPED]),
    }
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
