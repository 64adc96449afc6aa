"""Replays the requests that a version brings along, so that the first caller finds every graph already built."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from serving.server.config import Batching
from serving.server.engine import Servable
from serving.server.logs import event
from serving.server.requests import read

FILE: Final = Path("assets.extra/tf_serving_warmup_requests")  # TensorFlow Serving's place: saved_model_warmup_util.h
MAX_RECORDS: Final = 1000  # the same


def warm_up(path: Path, servable: Servable, batching: Batching, *, rest: float = 0.0) -> int:
    """Runs every recorded request of a version directory and returns how many there were; without a file, 0.

    Args:
        path: The version directory.
        servable: What was loaded from it.
        batching: How it will be run.
        rest: Pause after each run, as a multiple of its time: leaves the cores to those who are being served meanwhile.

    Raises:
        ValueError: The file is damaged or holds more than 1000 records.
        ServingError: A recorded request does not fit the model.
    """
    file = path / FILE
    if not file.is_file():
        return 0
    count = 0
    for log in _records(file):
        count += 1
        if count > MAX_RECORDS:
            raise ValueError(f"{FILE} has more than {MAX_RECORDS} records")
        if log.WhichOneof("log_type") != "predict_log":
            event(logging.WARNING, "skipped a warmup record that is no predict_log", path=path, record=count)
            continue
        call = read(log.predict_log.request, servable)
        # A request with more rows than a run may have is cut to a run's size, as it would be when it is served.
        cut = batching.enabled and (call.rows or 0) > batching.piece_rows
        inputs = {name: array[: batching.piece_rows] if cut else array for name, array in call.inputs.items()}
        for narrow in servable.widths(call.signature.name):
            start = time.monotonic()
            servable.run(call.signature.name, inputs, narrow=narrow)
            time.sleep(rest * (time.monotonic() - start))
    return count


def _records(file: Path) -> Iterator[prediction_log_pb2.PredictionLog]:
    whole = 0
    try:
        for record in tf.compat.v1.io.tf_record_iterator(str(file)):
            yield prediction_log_pb2.PredictionLog.FromString(record)
            whole += 1
    except (DecodeError, tf.errors.DataLossError) as error:
        raise ValueError(f"{FILE}: record {whole + 1} is damaged") from error
