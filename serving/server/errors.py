"""What a call can fail with. Each class is one gRPC status; raise it where you know, the doors only translate.

ServingError (UNKNOWN)
  ├─ InvalidArgument      the request does not fit the signature
  ├─ NotFound             no such model, or no such version loaded
  ├─ FailedPrecondition   no such signature
  ├─ Unavailable          still loading, or the queue is full: try again
  ├─ DeadlineExceeded     the caller's time is over
  ├─ ResourceExhausted    the engine ran out of memory
  └─ Internal             our fault; the text says no more than that
"""

import grpc


class ServingError(Exception):
    """A failure whose text may be shown to the caller."""

    code = grpc.StatusCode.UNKNOWN


class InvalidArgument(ServingError):
    """The request is wrong and will stay wrong."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(ServingError):
    """No such model, or no such version."""

    code = grpc.StatusCode.NOT_FOUND


class FailedPrecondition(ServingError):
    """The model has no such signature."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Unavailable(ServingError):
    """Not now: still loading, or too much is waiting."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(ServingError):
    """The caller no longer waits for the answer."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class ResourceExhausted(ServingError):
    """The engine ran out of memory."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Internal(ServingError):
    """A fault of ours or of the model; the log knows more."""

    code = grpc.StatusCode.INTERNAL
