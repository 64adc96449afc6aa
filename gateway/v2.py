"""Tensors of the Open Inference Protocol (v2) over REST, as JSON and in its binary form. Pure functions.

kserve/open-inference-protocol: specification/protocol/inference_rest.md. The binary form is Triton's extension (server:
docs/protocol/extension_binary_data.md): JSON first, its length in a header, then the tensors one after another.
"""

import binascii
import json
import struct
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gateway import documents
from gateway.errors import BadRequest, TooLarge
from gateway.limits import Account
from gateway.replies import Reply
from serving import contract

LENGTH_HEADER: Final = "Inference-Header-Content-Length"
# Eight pictures as pixels in JSON, each number and each list counted; the binary form takes more.
MAX_JSON_VALUES: Final = 8 * (contract.IMAGE_SIZE**2 * 4 + contract.IMAGE_SIZE + 1) + documents.MEMBERS
IMAGES_SHAPE: Final = (-1, contract.IMAGE_SIZE, contract.IMAGE_SIZE, 3)


@dataclass(frozen=True)
class Output:
    """A tensor that goes back."""

    name: str
    datatype: str  # FP32 or BYTES
    array: NDArray[Any]

    def flat(self) -> list[Any]:
        """The values for JSON."""
        values = self.array.ravel().tolist()
        return [value.decode() for value in values] if self.datatype == "BYTES" else values

    def packed(self) -> bytes:
        """The values in the binary form."""
        if self.datatype == "BYTES":
            return b"".join(struct.pack("<I", len(value)) + value for value in self.array.ravel())
        return self.array.astype("<f4").tobytes()


@dataclass(frozen=True)
class Question:
    """An inference request. Either encoded pictures or pixels, uint8 [N, 224, 224, 3]."""

    id: str | None
    pictures: list[bytes] | None
    pixels: NDArray[np.uint8] | None
    outputs: dict[str, bool] | None  # names wanted and whether in the binary form; None: all
    binary: bool  # for outputs that do not say it themselves

    @property
    def count(self) -> int:
        """How many pictures there are."""
        return len(self.pixels if self.pixels is not None else self.pictures or ())


def read(body: bytes, json_length: str | None, account: Account, *, most: int) -> Question:
    """The question in `body` about at most `most` pictures; `json_length` is the value of LENGTH_HEADER.

    Raises BadRequest, TooLarge or Overloaded.
    """
    head, rest = _split(body, json_length)
    with documents.opened(head, account, most=MAX_JSON_VALUES) as document:
        return _question(document, rest, most)


def _question(document: dict[str, Any], rest: bytes, most: int) -> Question:
    """The question that `document` asks; `rest` is what followed it. Raises BadRequest or TooLarge."""
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise BadRequest('expected one tensor in "inputs"')
    tensor = inputs[0]
    if tensor.get("name") != contract.INPUT:
        raise BadRequest(f"the input is called {contract.INPUT!r}")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not shape or not all(type(size) is int and 0 < size < 2**31 for size in shape):
        raise BadRequest("the shape of the input is no list of sizes")
    if shape[0] > most:
        raise TooLarge(f"more than {most} pictures")
    data = _data(tensor, rest)
    pictures = pixels = None
    match tensor.get("datatype"):
        case "BYTES":
            pictures = _pictures(data, shape)
        case "UINT8":
            pixels = _pixels(data, shape)
        case _:
            raise BadRequest("the input is UINT8 pixels or BYTES of pictures")
    name = document.get("id")
    binary = _parameters(document).get("binary_data_output") is True
    return Question(name if isinstance(name, str) else None, pictures, pixels, _wanted(document, binary), binary)


def write(question: Question, reply: Reply, model_name: str) -> tuple[bytes, int | None]:
    """The body of the answer, and the length of its JSON if tensors follow in the binary form. Raises BadRequest."""
    outputs = {output.name: output for output in outputs_of(reply)}
    wanted = question.outputs if question.outputs is not None else dict.fromkeys(outputs, question.binary)
    if unknown := wanted.keys() - outputs.keys():
        raise BadRequest(f"there is no output {sorted(unknown)[0][:50]!r}")
    described, packed = [], []
    for name, binary in wanted.items():
        output = outputs[name]
        each: dict[str, Any] = {"name": name, "datatype": output.datatype, "shape": list(output.array.shape)}
        if binary:
            packed.append(output.packed())
            each["parameters"] = {"binary_data_size": len(packed[-1])}
        else:
            each["data"] = output.flat()
        described.append(each)
    document = {"model_name": model_name, "model_version": str(reply.version), "outputs": described}
    if question.id is not None:
        document["id"] = question.id
    head = json.dumps(document).encode()
    return head + b"".join(packed), len(head) if packed else None


def outputs_of(reply: Reply) -> list[Output]:
    """What the model said, with a column for each label."""
    known = [dict(zip(each.cultures, each.probabilities, strict=True)) for each in reply.predictions]
    probabilities = np.array([[row[label] for label in reply.labels] for row in known], np.float32)
    labels = _bytes_array([reply.labels] * len(known))
    outputs = [
        Output(contract.PROBABILITIES, "FP32", probabilities),
        Output(contract.LABELS, "BYTES", labels),
        Output(contract.DECISION, "BYTES", _bytes_array([each.decision for each in reply.predictions])),
    ]
    scores = [each.ood_score for each in reply.predictions]
    if None not in scores:
        outputs.append(Output(contract.OOD_SCORE, "FP32", np.array(scores, np.float32)))
    return outputs


def _bytes_array(values: Sequence[Any]) -> NDArray[Any]:
    return np.char.encode(np.array(values, np.str_), "utf-8").astype(object)


def _split(body: bytes, json_length: str | None) -> tuple[bytes, bytes]:
    if json_length is None:
        return body, b""
    if not (json_length.isascii() and json_length.isdigit() and int(json_length[:12]) <= len(body)):
        raise BadRequest(f"{LENGTH_HEADER} is not the length of the JSON")
    return body[: int(json_length[:12])], body[int(json_length[:12]) :]


def _parameters(described: dict[str, Any]) -> dict[str, Any]:
    parameters = described.get("parameters", {})
    if not isinstance(parameters, dict):
        raise BadRequest('"parameters" is no object')
    return parameters


def _data(tensor: dict[str, Any], rest: bytes) -> list[Any] | bytes:
    """The values: a list from JSON, or bytes of the binary form."""
    size = _parameters(tensor).get("binary_data_size")
    if size is not None:
        if size != len(rest):
            raise BadRequest("binary_data_size is not what follows the JSON")
        return rest
    data = tensor.get("data")
    if not isinstance(data, list):
        raise BadRequest('the input has no "data"')
    return data


def _pictures(data: list[Any] | bytes, shape: list[int]) -> list[bytes]:
    """Encoded pictures: BYTES of shape [N] or [N, 1]; in JSON as base64."""
    if len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
        raise BadRequest("BYTES of pictures have shape [N] or [N, 1]")
    if isinstance(data, bytes):
        return _unpack(data, shape[0])
    if len(data) != shape[0]:
        raise BadRequest(f"{len(data)} values do not make shape {shape}")
    return [_base64(value) for value in _flat(data)]


def _unpack(data: bytes, count: int) -> list[bytes]:
    """So many values, each after its length, four bytes, little-endian."""
    values, at = [], 0
    for _ in range(count):
        if at + 4 > len(data):
            raise BadRequest("the BYTES end early")
        (size,) = struct.unpack_from("<I", data, at)
        at += 4 + size
        if at > len(data):
            raise BadRequest("the BYTES end early")
        values.append(data[at - size : at])
    if at < len(data):
        raise BadRequest(f"there are more than {count} values")
    return values


def _flat(data: list[Any]) -> list[Any]:
    """The values of [N] or [N, 1]."""
    return [each[0] if isinstance(each, list) and len(each) == 1 else each for each in data]


def _base64(value: object) -> bytes:
    if not isinstance(value, str):
        raise BadRequest("a picture in JSON is a string of base64")
    try:
        return b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest("a picture in JSON is no base64") from error


def _pixels(data: list[Any] | bytes, shape: list[int]) -> NDArray[np.uint8]:
    """Pixels, uint8 [N, 224, 224, 3]."""
    if tuple(shape[1:]) != IMAGES_SHAPE[1:]:
        raise BadRequest(f"UINT8 pixels have shape {list(IMAGES_SHAPE)}, RGB")
    values = np.frombuffer(data if isinstance(data, bytes) else _numbers(data), np.uint8)
    if values.size != np.prod(shape, dtype=float):
        raise BadRequest(f"{values.size} values do not make shape {shape}")
    return values.reshape(shape)


def _numbers(data: list[Any]) -> bytes:
    """The whole numbers from 0 to 255 in `data`, which may be nested as the tensor is."""
    while data and isinstance(data[0], list):
        if any(not isinstance(each, list) or len(each) != len(data[0]) for each in data):
            raise BadRequest("the data have no shape")
        data = list(chain.from_iterable(data))
    try:
        return bytes(data)  # np.array would take what is no number too, and give all texts the longest one's room
    except (TypeError, ValueError) as error:
        raise BadRequest("UINT8 data are whole numbers from 0 to 255") from error


def _wanted(document: dict[str, Any], binary: bool) -> dict[str, bool] | None:
    outputs = document.get("outputs")
    if outputs is None:
        return None
    if not isinstance(outputs, list) or not all(isinstance(each, dict) for each in outputs):
        raise BadRequest('"outputs" is no list of tensors')
    if not all(isinstance(each.get("name"), str) for each in outputs):
        raise BadRequest("an output has no name")
    return {each["name"]: _parameters(each).get("binary_data", binary) is True for each in outputs}
