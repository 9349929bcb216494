#!/usr/bin/env python3
"""Trains fashion-cnn.onnx and writes everything else in this folder that is made from Fashion-MNIST.

Needs Debian's python3-torch (1.13) and dataset-fashion-mnist, and nothing else:
    apt-get install --no-install-recommends python3-torch dataset-fashion-mnist
    nice -n 10 /usr/bin/python3 models/train-fashion-cnn.py [--logits FILE.npy]

60,000 training images are split 55,000 / 5,000; the validation accuracy chooses the epoch; a run looks at the 10,000
test images once, at its end, and keeps its logits for them in FILE.npy if told to (check-fashion-cnn.mjs compares ONNX
Runtime with them). Seeds are fixed; on another machine or number of threads the last digits of the weights may differ.
"""
import argparse
import gzip
import io
import json
import pathlib
import struct
import sys
import time
import zlib

import numpy as np
import torch
from torch import nn

HERE = pathlib.Path(__file__).resolve().parent
DATA = pathlib.Path("/usr/share/datasets/fashion-mnist")
COPYRIGHT = pathlib.Path("/usr/share/doc/dataset-fashion-mnist/copyright")
NODE_NAMES = {"Conv": "conv", "Relu": "relu", "MaxPool": "pool", "Flatten": "flatten", "Gemm": "fc"}
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


def infer(model, images):
    model.eval()
    with torch.no_grad():
        return torch.cat([model(batch) for batch in images.split(1000)])


def accuracy(logits, labels):
    return (logits.argmax(1) == labels).sum().item() / len(labels)


def train(epochs):
    torch.manual_seed(1)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    generator = torch.Generator().manual_seed(2)
    images = to_input(read_idx("train-images-idx3-ubyte.gz"))
    labels = torch.from_numpy(read_idx("train-labels-idx1-ubyte.gz").astype(np.int64))
    order = torch.randperm(len(images), generator=generator)
    held, rest = order[:VALIDATION], order[VALIDATION:]
    # On 2 cores channels last takes 78 s an epoch, torch's own layout about 100 s.
    model = FashionCnn().to(memory_format=torch.channels_last)
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
        validation = accuracy(infer(model, images[held]), labels[held])
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}, validation {100 * validation:.2f} %", flush=True)
        if validation > best:
            best, state = validation, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    return model.to(memory_format=torch.contiguous_format).eval(), best


def varint(value):
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def fields(message):
    """The fields of a protobuf message in file order: (number, payload if length-delimited or None, its bytes)."""

    def read_varint(at):
        value = shift = 0
        while True:
            byte = message[at]
            value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
            if byte < 0x80:
                return value, at

    at = 0
    while at < len(message):
        start = at
        key, at = read_varint(at)
        kind, payload = key & 7, None
        if kind == 2:
            size, at = read_varint(at)
            payload, at = message[at : at + size], at + size
        else:
            at = {0: lambda: read_varint(at)[1], 1: lambda: at + 8, 5: lambda: at + 4}[kind]()
        yield key >> 3, payload, message[start:at]


def rewritten(message, change):
    """The message with change(number, payload) in the place of each length-delimited payload."""
    out = b""
    for number, payload, raw in fields(message):
        if payload is not None:
            payload = change(number, payload)
            raw = varint(number << 3 | 2) + varint(len(payload)) + payload
        out += raw
    return out


def renamed(model):
    """The ONNX model with nodes called conv1, relu1, ..., outputs like their node, weights conv1.weight and conv1.bias.

    torch 1.13 calls them /conv1/Conv and onnx::Conv_52, and the second changes with the code around it. The onnx
    package would make this short but is not needed for anything else. Field numbers are onnx.proto's. Raises ValueError
    when an operator is left that this network must not have: above all a BatchNormalization that was not folded.
    """
    (graph,) = [payload for number, payload, _ in fields(model) if number == 7]
    nodes = [list(fields(payload)) for number, payload, _ in fields(graph) if number == 1]
    text = lambda node, wanted: [payload.decode() for number, payload, _ in node if number == wanted]
    constants = {text(list(fields(payload)), 8)[0] for number, payload, _ in fields(graph) if number == 5}
    kept = {text(list(fields(payload)), 1)[0] for number, payload, _ in fields(graph) if number in (11, 12)}
    seen, nodes_by_old, values = {}, {}, {}
    for node in nodes:
        operator = text(node, 4)[0]
        if operator not in NODE_NAMES:
            raise ValueError(f"the export has a {operator}, {text(node, 3)[0]}; only {', '.join(NODE_NAMES)} may be left")
        seen[operator] = seen.get(operator, 0) + 1
        name = NODE_NAMES[operator] + ("" if operator == "Flatten" else str(seen[operator]))
        nodes_by_old[text(node, 3)[0]] = name
        weights = [value for value in text(node, 1) if value in constants]
        values.update(zip(weights, [f"{name}.weight", f"{name}.bias"]))
        values.update({value: name for value in text(node, 2) if value not in kept})

    to = lambda names: lambda payload: names.get(payload.decode(), payload.decode()).encode()
    in_node = {1: to(values), 2: to(values), 3: to(nodes_by_old)}
    in_graph = {
        1: lambda node: rewritten(node, lambda number, payload: in_node.get(number, bytes)(payload)),
        2: lambda _: b"fashion-cnn",
        5: lambda tensor: rewritten(tensor, lambda number, payload: to(values)(payload) if number == 8 else payload),
        13: lambda info: rewritten(info, lambda number, payload: to(values)(payload) if number == 1 else payload),
    }
    change_graph = lambda number, payload: in_graph.get(number, bytes)(payload)
    return rewritten(model, lambda number, payload: rewritten(payload, change_graph) if number == 7 else payload)


def export(model):
    """Opset 13 with stable names; eval mode makes the exporter fold every BatchNorm into its convolution."""
    buffer = io.BytesIO()
    torch.onnx.export(
        model.eval(),
        torch.zeros(1, 1, 28, 28),
        buffer,
        opset_version=13,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
    )
    (HERE / "fashion-cnn.onnx").write_bytes(renamed(buffer.getvalue()))


def write_licence():
    """The data set's own paragraphs of Debian's copyright file, without its layout marks (leading blank, lone dot)."""
    paragraphs = COPYRIGHT.read_text().split("\n\n")
    holder = next(p for p in paragraphs if p.startswith("Files: *")).split("Copyright: ")[1].split("\n")[0]
    terms = next(p for p in paragraphs if p.startswith("License: Expat\n")).split("\n")[1:]
    body = "\n".join("" if line.strip() == "." else line.strip() for line in terms)
    (HERE / "LICENSE-fashion-mnist").write_text(f"Fashion-MNIST\nCopyright (c) {holder}\n\n{body.strip()}\n")


def png(pixels):
    """An 8-bit grayscale PNG (RFC 2083)."""
    height, width = pixels.shape

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8, help="8 take about 11 minutes of 2 cores")
    parser.add_argument("--logits", type=pathlib.Path, help="keep the test logits, float32 [10000,10], in this .npy")
    options = parser.parse_args()
    started = time.monotonic()
    model, validation = train(options.epochs)
    minutes = (time.monotonic() - started) / 60
    pixels = read_idx("t10k-images-idx3-ubyte.gz")
    labels = read_idx("t10k-labels-idx1-ubyte.gz")
    truth = torch.from_numpy(labels.astype(np.int64))
    logits = infer(model, to_input(pixels))
    export(model)
    write_licence()
    np.save(HERE / "fashion-test-images.npy", pixels[:SHIPPED])
    np.save(HERE / "fashion-test-labels.npy", labels[:SHIPPED])
    (HERE / "fashion-labels.txt").write_text("\n".join(LABELS) + "\n")
    for index in SAMPLES:
        name = LABELS[labels[index]].lower().replace("/", "-").replace(" ", "-")
        (HERE / f"sample-{name}.png").write_bytes(png(pixels[index]))
    if options.logits:
        np.save(options.logits, logits.numpy())
    result = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainingMinutes": round(minutes, 1),
        "validationAccuracy": validation,
        "testAccuracy": accuracy(logits, truth),
        "shippedAccuracy": accuracy(logits[:SHIPPED], truth[:SHIPPED]),
    }
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
