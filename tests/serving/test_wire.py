"""The gateway's own messages are TensorFlow Serving's, field by field, both ways."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_pb2,
    model_service_pb2,
    predict_pb2,
    prediction_service_pb2,
    status_pb2,
)

from gateway import tensors, wire
from gateway.wire import prediction_pb2 as pb

PAIRS: list[tuple[type[Message], type[Message]]] = [
    (pb.TensorShapeProto, tensor_shape_pb2.TensorShapeProto),
    (pb.TensorShapeProto.Dim, tensor_shape_pb2.TensorShapeProto.Dim),
    (pb.TensorProto, tensor_pb2.TensorProto),
    (pb.ModelSpec, model_pb2.ModelSpec),
    (pb.PredictRequest, predict_pb2.PredictRequest),
    (pb.PredictResponse, predict_pb2.PredictResponse),
    (pb.StatusProto, status_pb2.StatusProto),
    (pb.GetModelStatusRequest, get_model_status_pb2.GetModelStatusRequest),
    (pb.GetModelStatusResponse, get_model_status_pb2.GetModelStatusResponse),
    (pb.ModelVersionStatus, get_model_status_pb2.ModelVersionStatus),
]
# Official fields that we neither send nor read.
LEFT_OUT = {
    "TensorProto": {"scomplex_val", "dcomplex_val", "resource_handle_val", "variant_val", "uint32_val", "uint64_val",
                    "float8_val"},
    "PredictRequest": {"predict_streamed_options", "client_id", "request_options"},
}  # fmt: skip
# On the wire an enum is a varint, as int32 is.
AS_VARINT = {("StatusProto", "error_code")}


def shape(field: FieldDescriptor) -> tuple[object, ...]:
    """What of a field decides how it travels, and how it is called."""
    one_of = field.containing_oneof.name if field.containing_oneof else None
    return field.number, field.name, field.type, field.is_repeated, field.is_packed, one_of


def fields(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    return {field.name: field for field in descriptor.fields}


@pytest.mark.parametrize(("ours", "official"), PAIRS, ids=lambda message: message.__module__)
def test_every_field_is_the_official_one(ours: type[Message], official: type[Message]) -> None:
    mine, theirs = fields(ours.DESCRIPTOR), fields(official.DESCRIPTOR)
    name = ours.DESCRIPTOR.name
    assert theirs.keys() - mine.keys() == LEFT_OUT.get(name, set()) & theirs.keys()
    for field in mine.values():
        if (name, field.name) in AS_VARINT:
            assert (field.number, theirs[field.name].type) == (theirs[field.name].number, FieldDescriptor.TYPE_ENUM)
        else:
            assert shape(field) == shape(theirs[field.name])


@pytest.mark.parametrize(
    ("ours", "official"),
    [
        (pb.DataType.DESCRIPTOR, types_pb2.DataType.DESCRIPTOR),
        (pb.ModelVersionStatus.State.DESCRIPTOR, get_model_status_pb2.ModelVersionStatus.State.DESCRIPTOR),
    ],
)
def test_every_enum_value_is_the_official_one(ours: EnumDescriptor, official: EnumDescriptor) -> None:
    for value in ours.values:
        assert official.values_by_name[value.name].number == value.number


@pytest.mark.parametrize(
    ("path", "service", "method"),
    [
        (wire.PREDICT, prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"], "Predict"),
        (wire.GET_MODEL_STATUS, model_service_pb2.DESCRIPTOR.services_by_name["ModelService"], "GetModelStatus"),
    ],
)
def test_method_paths_are_the_official_ones(path: str, service: object, method: str) -> None:
    assert path == f"/{service.full_name}/{method}"  # type: ignore[attr-defined]
    assert method in service.methods_by_name  # type: ignore[attr-defined]


def test_our_request_reads_as_an_official_one() -> None:
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    ours = pb.PredictRequest(
        model_spec=pb.ModelSpec(name="culture", signature_name="serving_default"),
        inputs={"images": tensors.to_proto(images)},
    )
    official = predict_pb2.PredictRequest.FromString(ours.SerializeToString())
    np.testing.assert_array_equal(tf.make_ndarray(official.inputs["images"]), images)
    assert pb.PredictRequest.FromString(official.SerializeToString()) == ours


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("packed", [True, False])
def test_an_official_tensor_reads_as_its_array(dtype: str, packed: bool) -> None:
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    official = tf.make_tensor_proto(array)
    if not packed:
        repeated = {"float32": "float_val", "float64": "double_val", "float16": "half_val", "int64": "int64_val",
                    "bool": "bool_val"}.get(dtype, "int_val")  # fmt: skip
        values = array.view(np.uint16) if dtype == "float16" else array
        official.ClearField("tensor_content")
        official.ClearField(repeated)
        getattr(official, repeated).extend(values.ravel().tolist())
    ours = pb.TensorProto.FromString(official.SerializeToString())
    result = tensors.to_numpy(ours)
    assert result.dtype == array.dtype
    np.testing.assert_array_equal(result, array)


def test_an_official_string_tensor_reads_as_bytes() -> None:
    official = tf.make_tensor_proto(np.array([["a", "é"]], dtype=object))
    assert tensors.to_numpy(pb.TensorProto.FromString(official.SerializeToString())).tolist() == [[b"a", "é".encode()]]


def test_an_official_reply_loses_nothing() -> None:
    official = predict_pb2.PredictResponse()
    official.model_spec.name = "culture"
    official.model_spec.version.value = 3
    official.outputs["probabilities"].CopyFrom(tf.make_tensor_proto(np.ones((2, 3), np.float32)))
    ours = pb.PredictResponse.FromString(official.SerializeToString())
    assert predict_pb2.PredictResponse.FromString(ours.SerializeToString()) == official
    assert ours.model_spec.version.value == 3
