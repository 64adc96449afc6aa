"""Pictures to predictions: decode each, ask the model for all of them at once. Knows nothing of HTTP."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway import errors
from gateway.client import PredictionClient
from gateway.context import Context
from gateway.limits import Account, ByteBudget, Gate, Slots
from gateway.metrics import Metrics
from gateway.reads import bodies
from gateway.replies import Prediction, Reply
from gateway.settings import Settings
from gateway.watch import Watch
from serving import contract, images
from serving.images import ImageError, Picture

# Decoding takes 4 to 16 bytes a pixel. Pictures above this are decoded one at a time, so that memory stays bounded by
# one of the largest (450 MB for 50 megapixels) and some of these.
LARGE_MEGAPIXELS: Final = 8.0

Result = Prediction | errors.Problem
Made = TypeVar("Made")


@dataclass(frozen=True)
class Answer:
    """A result for each picture, in order, and the version that answered (None when no picture reached the model)."""

    results: list[Result]
    version: int | None
    pixels: list[NDArray[np.uint8] | None]  # what the model saw, where there is a prediction


class Classifier:
    """The way of a picture through the gateway, with its limits and its clocks."""

    def __init__(self, settings: Settings, client: PredictionClient, metrics: Metrics) -> None:
        """Raises SettingsError when the reference cannot be read."""
        self._settings = settings
        self._client = client
        self._metrics = metrics
        self._watch = Watch(settings, metrics)
        self.decoders = Slots(settings.decode_threads)
        self.large = Slots(1)
        self._bytes = ByteBudget(settings.max_held_bytes)
        self.gate = Gate(settings.max_in_flight, max_waiting=settings.max_waiting, max_wait_s=settings.max_wait_s)

    @contextmanager
    def admitted(self, context: Context) -> Iterator[Account]:
        """A place among the requests, and an account for the bytes of the body. Raises Overloaded or Expired."""
        with ExitStack() as held:
            with context.stage("wait"):
                try:
                    held.enter_context(self.gate.place(context.deadline))
                except errors.Overloaded:
                    bodies.hurry()  # who sends slowly has a place that others need
                    raise
            held.enter_context(self._metrics.in_flight.track_inprogress())
            yield held.enter_context(self._bytes.account())

    def classify(self, uploads: Sequence[bytes], context: Context, *, signature: str = contract.SERVING) -> Answer:
        """What the model says about each picture. A picture that cannot be decoded gets its problem as its result.

        Raises Expired, ModelUnavailable, ModelTimeout or ContractBroken for all of them together.
        """
        decoded = self.decode(uploads, context)
        pixels = [None if isinstance(each, errors.Problem) else each for each in decoded]
        seen = [each for each in pixels if each is not None]
        if not seen:
            return Answer([each for each in decoded if isinstance(each, errors.Problem)], None, pixels)
        reply = self.ask(np.stack(seen), context, signature=signature)
        answers = iter(reply.predictions)
        results = [each if isinstance(each, errors.Problem) else next(answers) for each in decoded]
        return Answer(results, reply.version, pixels)

    def decode(self, uploads: Sequence[bytes], context: Context) -> list[NDArray[np.uint8] | errors.Problem]:
        """Pixels, uint8 [224, 224, 3], or the problem to tell, for each picture. Raises Expired."""
        return [self._decode(data, context) for data in uploads]

    def ask(
        self,
        pixels: NDArray[np.uint8],
        context: Context,
        *,
        signature: str = contract.SERVING,
        version: int | None = None,
    ) -> Reply:
        """The model's reply to uint8 [N, 224, 224, 3]. Raises as `classify`, and NotFound for an unknown `version`."""
        start, inside = time.monotonic(), self.gate.taken
        try:
            with context.stage("rpc"):
                reply = self._client.predict(
                    pixels,
                    deadline=context.deadline,
                    metadata=_metadata(context),
                    signature=signature,
                    version=version,
                    client=context.sock,
                )
        except errors.ModelTimeout:
            self.gate.learn(time.monotonic() - start, inside, answered=False)
            raise
        self.gate.learn(time.monotonic() - start, inside, answered=True)
        context.model_version = reply.version
        context.cultures = [prediction.culture for prediction in reply.predictions]
        self._watch.look(reply)
        for prediction in reply.predictions:
            self._metrics.saw_prediction(prediction.culture, prediction.decision, prediction.probability)
        return reply

    def _decode(self, data: bytes, context: Context) -> NDArray[np.uint8] | errors.Problem:
        """Pixels, or the problem to tell. Raises Expired."""
        self._metrics.image_bytes.observe(len(data))
        try:
            return self.make(data, context, self._pixels)
        except ImageError as error:
            return errors.of_picture(error)

    def _pixels(self, picture: Picture) -> NDArray[np.uint8]:
        self._metrics.image_megapixels.observe(picture.megapixels)
        return picture.pixels()

    def make(self, data: bytes, context: Context, what: Callable[[Picture], Made]) -> Made:
        """What `what` decodes of the picture, when it is its turn. Raises Expired or ImageError."""
        with self._decoding(context):
            picture = images.load(data, max_pixels=self._settings.max_pixels)
            if picture.megapixels <= LARGE_MEGAPIXELS:
                return what(picture)
        # Large ones queue without keeping a decoder from the others, or the memory that opening them took.
        del picture
        with self.large.slot(context.deadline) as waited_s, self._decoding(context, waited_s):
            return what(images.load(data, max_pixels=self._settings.max_pixels))

    @contextmanager
    def _decoding(self, context: Context, waited_s: float = 0.0) -> Iterator[None]:
        """One of the decoders, and the clocks. Raises Expired."""
        with self.decoders.slot(context.deadline) as here_s, context.stage("decode"):
            context.stages_s["wait"] = context.stages_s.get("wait", 0.0) + waited_s + here_s
            yield


def _metadata(context: Context) -> tuple[tuple[str, str], ...]:
    """What the model server is told about the request."""
    metadata = [("x-request-id", context.request_id)]
    if context.span_here:
        metadata.append(("traceparent", context.span_here))
    return tuple(metadata)
