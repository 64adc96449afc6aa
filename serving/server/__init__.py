"""The embedded model server: TensorFlow Serving's gRPC API for machines where no container runs.

It is run, as `python -m serving.server`; nobody imports it.
"""
