"""mosec as its documentation shows it: one worker, dynamic batching; our SavedModel, our pixels."""

import os

import numpy as np
from mosec import Server, Worker

from serving import contract, images


class Culture(Worker):
    def __init__(self) -> None:
        import tensorflow as tf

        self._predict = tf.saved_model.load(os.environ["MODEL"]).signatures[contract.SERVING]
        self._predict(images=tf.zeros((16, *contract.IMAGES.shape[1:]), tf.uint8))

    def deserialize(self, data: bytes) -> np.ndarray:
        return images.decode(data)

    def forward(self, data: list[np.ndarray]) -> list[dict]:
        import tensorflow as tf

        outputs = self._predict(images=tf.constant(np.stack(data)))
        labels = [label.decode() for label in outputs[contract.LABELS][0].numpy()]
        return [dict(zip(labels, map(float, row), strict=True)) for row in outputs[contract.PROBABILITIES].numpy()]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Culture, num=1, max_batch_size=16, max_wait_time=10)
    server.run()
