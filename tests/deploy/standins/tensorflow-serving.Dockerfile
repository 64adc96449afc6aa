# Stands in for tensorflow/serving where no registry can be reached: the embedded model server behind the same program name.
# It starts with exactly the command of our manifests.
FROM whence/model-server:test
LABEL whence.stands-in="true"
USER 0
COPY tensorflow_model_server /usr/local/bin/
RUN chmod 0755 /usr/local/bin/tensorflow_model_server
WORKDIR /
