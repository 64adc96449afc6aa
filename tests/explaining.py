"""A model server's behaviour that explains itself: maps, embedding and provenance that a test can work out by hand."""

import json

import grpc
import numpy as np

from gateway.wire import prediction_pb2 as pb
from tests.fakes import LABELS, floats, good, pixels_of, strings

RELEASE = "ab" * 32  # the SHA-256 that this servable says it was made from
LEAST, GREATEST = 0.5, 3.0


def explaining(request: pb.PredictRequest, context: grpc.ServicerContext | None = None) -> pb.PredictResponse:
    """The good answer; each colour channel is a culture whose map is the channel itself, at 14 x 14."""
    response = good(request, context)
    pixels = pixels_of(request).astype(np.float32) / 255  # [N, 224, 224, 3]
    count = len(pixels)
    probabilities = np.frombuffer(response.outputs["probabilities"].tensor_content, "<f4").reshape(count, -1)
    decisions = ["accepted" if row.max() >= LEAST else "abstained" for row in probabilities]
    response.outputs["decision"].CopyFrom(strings(decisions, (count,)))
    response.outputs["ood_score"].CopyFrom(floats(np.full(count, 0.25, np.float32)))
    response.outputs["thresholds"].CopyFrom(floats(np.array([[LEAST, GREATEST]] * count, np.float32)))
    means = pixels.mean((1, 2)) + 1e-6
    response.outputs["embedding"].CopyFrom(floats(means / np.linalg.norm(means, axis=1, keepdims=True)))
    if request.model_spec.signature_name == "explain":
        maps = pixels.reshape(count, 14, 16, 14, 16, len(LABELS)).mean((2, 4)) / 196
        response.outputs["heatmaps"].CopyFrom(floats(maps))
        response.outputs["provenance"].CopyFrom(strings([json.dumps({"release_sha256": RELEASE})] * count, (count,)))
    return response
