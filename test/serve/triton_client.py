"""Calls a server by Triton's own client, over HTTP and over gRPC: prints what came as JSON.

usage: triton_client.py HTTP_ADDRESS GRPC_ADDRESS FILE, where FILE has {"values": [...], "shape": [...]}, the input x of the model mlp
"""
import json
import queue
import sys

import numpy
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

http_address, grpc_address, file = sys.argv[1:]
with open(file) as given:
    about = json.load(given)
x = numpy.array(about["values"], numpy.float32).reshape(about["shape"])
texts = numpy.array(["grüß".encode(), b"", "\N{GRINNING FACE}".encode()], numpy.object_)


def refused(call):
    try:
        call()
    except InferenceServerException as error:
        return [str(error.status()), error.message()]
    return None


def texts_of(array):
    return [[each.decode() if isinstance(each, bytes) else each for each in row] for row in array.tolist()]


def ask(kind, address, compressions, without_binary):
    """What is asked for alike over both; `compressions`: arguments of infer, `without_binary`: of set_data_from_numpy and outputs."""
    client = kind.InferenceServerClient(address)

    def input_of(array, name="x", datatype="FP32", **how):
        tensor = kind.InferInput(name, array.shape, datatype)
        tensor.set_data_from_numpy(array, **how)
        return tensor

    def infer(outputs=None, inputs=None, **more):
        return client.infer("mlp", inputs or [input_of(x)], outputs=outputs, **more)

    def shared(tensor):
        tensor.set_shared_memory("region", 128)
        return tensor

    def bytes_of(array):
        return client.infer("text", [input_of(array, datatype="BYTES")]).as_numpy("y").tolist()

    def classes(**how):
        return texts_of(infer([kind.InferRequestedOutput("y", class_count=3, **how)]).as_numpy("y"))

    return {
        "live": client.is_server_live() and client.is_server_ready() and client.is_model_ready("mlp"),
        "plain": infer().as_numpy("y").ravel().tolist(),
        "others": [
            infer(**more).as_numpy("y").ravel().tolist()
            for more in [*compressions, {"timeout": 10_000_000}, {"parameters": {"custom": 1, "flag": True, "text": "t"}}]
        ]
        + [
            infer([kind.InferRequestedOutput("y", **how)], [input_of(x, **given)]).as_numpy("y").ravel().tolist()
            for given, how in without_binary
        ],
        "classes": [classes(), *[classes(**how) for _, how in without_binary]],
        "texts": bytes_of(texts) == texts.tolist(),
        "loads": client.unload_model("text", unload_dependents=True) is None and client.load_model("text") is None,
        "refused": {
            "bytes": refused(lambda: bytes_of(numpy.array([b"\xff\x00"], numpy.object_))),
            "sequence_id": refused(lambda: infer(sequence_id=5, sequence_start=True)),
            "sequence_id of text": refused(lambda: infer(sequence_id="five")),
            "priority": refused(lambda: infer(priority=1)),
            "timeout": refused(lambda: infer(timeout=1)),
            "shared input": refused(lambda: infer(inputs=[shared(kind.InferInput("x", x.shape, "FP32"))])),
            "shared output": refused(lambda: infer([shared(kind.InferRequestedOutput("y"))])),
            "shared region": refused(lambda: client.register_system_shared_memory("region", "/region", 128)),
            "config": refused(lambda: client.load_model("mlp", config="{}")),
            "files": refused(lambda: client.load_model("mlp", config="{}", files={"file:1/model.onnx": b"none"})),
            "model": refused(lambda: client.infer("none", [input_of(x)])),
            "version": refused(lambda: infer(model_version="7")),
        },
    }


def last_of_stream():
    client = tritonclient.grpc.InferenceServerClient(grpc_address)
    came = queue.Queue()
    client.start_stream(callback=lambda result, error: came.put((result, error)))
    tensor = tritonclient.grpc.InferInput("x", x.shape, "FP32")
    tensor.set_data_from_numpy(x)
    client.async_stream_infer("mlp", [tensor], request_id="s", enable_empty_final_response=True)
    result, error = came.get(timeout=30)
    client.stop_stream()
    response = result.get_response()
    return [response.id, response.parameters["triton_final_response"].bool_param, error is None]


print(
    json.dumps(
        {
            "http": ask(
                tritonclient.http,
                http_address,
                [
                    {"request_compression_algorithm": given, "response_compression_algorithm": wanted}
                    for given, wanted in [("gzip", None), ("deflate", None), (None, "gzip"), (None, "deflate"), ("gzip", "gzip")]
                ],
                [({"binary_data": False}, {"binary_data": False}), ({}, {"binary_data": False})],
            ),
            "grpc": ask(
                tritonclient.grpc, grpc_address, [{"compression_algorithm": given} for given in ["gzip", "deflate"]], []
            ),
            "stream": last_of_stream(),
        }
    )
)
