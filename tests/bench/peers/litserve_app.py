"""LitServe as its documentation shows it: one worker, dynamic batching; our SavedModel, our pixels."""

import os

import litserve
import numpy as np

from serving import contract, images


class Culture(litserve.LitAPI):
    def setup(self, device: str) -> None:
        import tensorflow as tf

        self._predict = tf.saved_model.load(os.environ["MODEL"]).signatures[contract.SERVING]
        self._predict(images=tf.zeros((16, *contract.IMAGES.shape[1:]), tf.uint8))

    def decode_request(self, request):  # no annotation: then LitServe hands over the form
        return images.decode(request["file"].file.read())

    def predict(self, batch: np.ndarray) -> list[dict]:
        import tensorflow as tf

        outputs = self._predict(images=tf.constant(np.asarray(batch)))
        labels = [label.decode() for label in outputs[contract.LABELS][0].numpy()]
        return [dict(zip(labels, map(float, row), strict=True)) for row in outputs[contract.PROBABILITIES].numpy()]

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    api = Culture(max_batch_size=16, batch_timeout=0.01)
    litserve.LitServer(api, accelerator="cpu").run(
        host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False
    )
