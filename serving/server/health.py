"""grpc.health.v1, kept equal to the models' state: SERVING while every model has a version AVAILABLE."""

from collections.abc import Iterable, Sequence

from grpc_health.v1 import health, health_pb2

from serving.server.models import Models

SERVICES = ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")


class Health:
    """Answers for the server ("" and each service), and for each model under `model/<name>`."""

    def __init__(self, names: Iterable[str]) -> None:
        self.servicer = health.aio.HealthServicer()
        self._names: Sequence[str] = list(names)

    async def update(self, models: Models | None) -> None:
        """Takes the models' state over; without models nothing serves yet. Ignored once the server is stopping."""
        ready = {name: models is not None and models.is_ready(name) for name in self._names}
        for service in SERVICES:
            await self._set(service, all(ready.values()))
        for name, is_ready in ready.items():
            await self._set(f"model/{name}", is_ready)

    async def stop(self) -> None:
        """NOT_SERVING for everything, for good."""
        await self.servicer.enter_graceful_shutdown()

    async def _set(self, service: str, serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        await self.servicer.set(service, states.SERVING if serving else states.NOT_SERVING)
