"""Calls a server by Debian's python3-grpcio, with stubs that protoc made of the protocol: prints what came as JSON.

usage: client.py STUBS ADDRESS FILE, where FILE has {"typed": [[...]], "shape": [...]}
"""
import json
import struct
import sys

stubs, address, file = sys.argv[1:]
sys.path.insert(0, stubs)

import grpc  # noqa: E402
import health_pb2  # noqa: E402
import health_pb2_grpc  # noqa: E402
import open_inference_pb2 as pb  # noqa: E402
import open_inference_pb2_grpc as pb_grpc  # noqa: E402

with open(file) as given:
    about = json.load(given)
values, shape = about["values"], about["shape"]


def request(**more):
    return pb.ModelInferRequest(model_name="mlp", **more)


def typed(**more):
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=shape, **more)
    tensor.contents.fp32_contents.extend(values)
    return tensor


def floats(reply):
    raw = reply.raw_output_contents[0]
    return list(struct.unpack("<%df" % (len(raw) // 4), raw))


def code(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


channel = grpc.insecure_channel(address)
stub = pb_grpc.GRPCInferenceServiceStub(channel)
health = health_pb2_grpc.HealthStub(channel)
raw = request(
    id="raw",
    inputs=[pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=shape)],
    raw_input_contents=[struct.pack("<%df" % len(values), *values)],
)
by_raw = stub.ModelInfer(raw)
by_typed = stub.ModelInfer(request(id="typed", inputs=[typed()]))
wrong_shape = typed()
wrong_shape.shape[:] = [3, 16]
late = request(inputs=[typed()])
late.parameters["timeout"].int64_param = 1
stream = [request(id=str(i), inputs=[typed()]) for i in range(3)]
metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="mlp"))
print(
    json.dumps(
        {
            "live": stub.ServerLive(pb.ServerLiveRequest()).live,
            "ready": stub.ServerReady(pb.ServerReadyRequest()).ready,
            "model_ready": stub.ModelReady(pb.ModelReadyRequest(name="mlp", version="1")).ready,
            "serving": health.Check(health_pb2.HealthCheckRequest()).status,
            "server": stub.ServerMetadata(pb.ServerMetadataRequest()).name,
            "inputs": [[i.name, i.datatype, list(i.shape)] for i in metadata.inputs],
            "raw": floats(by_raw),
            "typed": floats(by_typed),
            "ids": [by_raw.id, by_typed.id],
            "k": by_raw.parameters["kofn_k"].int64_param,
            "gain": by_raw.parameters["kofn_error_gain"].double_param,
            "stream": sorted([r.infer_response.id, floats(r.infer_response)] for r in stub.ModelStreamInfer(iter(stream))),
            "unknown": code(lambda: stub.ModelInfer(pb.ModelInferRequest(model_name="other", inputs=[typed()]))),
            "shape": code(lambda: stub.ModelInfer(request(inputs=[wrong_shape]))),
            "late": code(lambda: stub.ModelInfer(late)),
            "deadline": code(lambda: stub.ModelInfer(request(inputs=[typed()]), timeout=0.0001)),
            "index": [m.state for m in stub.RepositoryIndex(pb.RepositoryIndexRequest()).models],
        }
    )
)
