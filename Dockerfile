# Every image of Whence:   docker build --target gateway|serving|model-server|training|sbom .
#
#   gateway       HTTP outside, gRPC inside; no TensorFlow
#   serving       TensorFlow Serving's own image with the released model and its configuration
#   model-server  the embedded model server: for clusters that do not want the official image
#   training      prepare, fit, evaluate, export
#   sbom          files only: what is installed in each image, as CycloneDX JSON (docker build --target sbom -o sbom .)
#
# Bases are pinned by these arguments; in production give a digest: --build-arg PYTHON_IMAGE=python@sha256:...
# Needs BuildKit, the default of every Docker since 23.0. No `# syntax=` line: it would fetch an image of its own.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG TF_SERVING_IMAGE=tensorflow/serving:2.20.0
ARG VERSION=0.1.0

# ---- each room's virtual environment, from its hashed lock ----------------------------------------------------------
FROM ${PYTHON_IMAGE} AS venv
# All files get this time, so that the same sources give the same layers.
ARG SOURCE_DATE_EPOCH=1767225600
ENV PIP_CACHE_DIR=/var/cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
COPY k8s/images/install-lock /usr/local/bin/

FROM venv AS gateway-venv
COPY gateway/requirements.lock /tmp/requirements.lock
RUN --mount=type=cache,target=/var/cache/pip sh /usr/local/bin/install-lock /tmp/requirements.lock --slim

FROM venv AS serving-venv
# serving/int8.lock for the embedded server's int8 engine; then EXPORT_OPTIONS="--precision int8" too
ARG SERVING_LOCK=serving/requirements.lock
COPY ${SERVING_LOCK} /tmp/requirements.lock
RUN --mount=type=cache,target=/var/cache/pip sh /usr/local/bin/install-lock /tmp/requirements.lock --slim

FROM venv AS training-venv
COPY training/requirements.lock /tmp/requirements.lock
RUN --mount=type=cache,target=/var/cache/pip sh /usr/local/bin/install-lock /tmp/requirements.lock

# ---- our own files, each set with one time and the modes that a foreign user needs ------------------------------------
FROM venv AS code
COPY gateway /src/gateway/app/gateway
COPY serving/__init__.py serving/contract.py serving/images.py serving/index.py serving/memory.py \
    serving/reference.py /src/gateway/app/serving/
COPY training/release/index /src/gateway/app/release/index
COPY training/release/reference.json /src/gateway/app/release/
COPY serving /src/model-server/app/serving
COPY serving /src/training/app/serving
COPY training /src/training/app/training
COPY serving/models.config serving/batching.config serving/monitoring.config /src/configs/
COPY k8s/images/model-ready k8s/images/quick-precision k8s/images/serve-until-term /src/bin/
RUN chmod -R u=rwX,go=rX /src && chmod 0755 /src/bin/* \
    && find /src -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH}" {} +

# ---- the released checkpoint as a SavedModel ----------------------------------------------------------------------------
FROM serving-venv AS export
# e.g. "--precision bfloat16"; see `python -m training export --help`
ARG EXPORT_OPTIONS=""
COPY --from=code /src/training/app /app
WORKDIR /app
RUN HOME=/tmp TF_CPP_MIN_LOG_LEVEL=2 /venv/bin/python -m training export --models /models ${EXPORT_OPTIONS} \
    && chmod -R u=rwX,go=rX /models \
    && find /models -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH}" {} +

# ---- what every Python image runs on: no pip, no build tools, no root -------------------------------------------------
FROM ${PYTHON_IMAGE} AS trimmed
ARG SOURCE_DATE_EPOCH=1767225600
COPY k8s/images/trim-base /tmp/
RUN sh /tmp/trim-base

# Flattened, so that what was removed is really gone.
FROM scratch AS runtime
# hadolint ignore=DL3067
COPY --from=trimmed / /
# HOME: the user has no entry in /etc/passwd, and some libraries want a place for a dot file; /tmp is the only writable one.
ENV PATH=/venv/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001

# ---- targets ----------------------------------------------------------------------------------------------------------------
FROM runtime AS gateway
ARG VERSION
ARG REVISION=unknown
LABEL org.opencontainers.image.title="whence-gateway" \
      org.opencontainers.image.description="HTTP gateway of Whence: tells from which culture an artwork comes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=gateway-venv /image/ /
COPY --from=code /src/gateway/ /
# A sample of objects for explain=neighbours; mount another collection's index and name it instead.
ENV WHENCE_INDEX=/app/release/index WHENCE_REFERENCE=/app/release/reference.json
WORKDIR /app
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=8s --start-period=30s --retries=3 \
    CMD ["python", "-I", "/app/gateway/healthcheck.py"]
CMD ["gunicorn", "--config", "/app/gateway/gunicorn.conf.py", "gateway:create_app()"]

FROM ${TF_SERVING_IMAGE} AS serving
ARG VERSION
ARG REVISION=unknown
LABEL org.opencontainers.image.title="whence-serving" \
      org.opencontainers.image.description="TensorFlow Serving with the released model of Whence" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=code /src/bin/ /usr/local/bin/
COPY --from=code /src/configs/ /etc/whence/
COPY --from=export /models/ /models/
USER 10001:10001
EXPOSE 8500 8501
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD ["/usr/local/bin/model-ready"]
# TensorFlow Serving has no handler for SIGTERM, so as process 1 it would ignore it; the wrapper drains and ends it.
ENTRYPOINT ["/usr/local/bin/serve-until-term", "/usr/local/bin/quick-precision", "tensorflow_model_server"]
CMD ["--port=8500", \
     "--rest_api_port=8501", \
     "--model_config_file=/etc/whence/models.config", \
     "--enable_batching=true", \
     "--batching_parameters_file=/etc/whence/batching.config", \
     "--monitoring_config_file=/etc/whence/monitoring.config", \
     "--enable_grpc_healthcheck_service=true"]

FROM runtime AS model-server
ARG VERSION
ARG REVISION=unknown
LABEL org.opencontainers.image.title="whence-model-server" \
      org.opencontainers.image.description="Embedded model server of Whence with the released model" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=serving-venv /image/ /
COPY --from=code /src/model-server/ /
COPY --from=code /src/bin/ /usr/local/bin/
COPY --from=code /src/configs/ /etc/whence/
COPY --from=export /models/ /models/
WORKDIR /app
# The last: serving/memory.py says what it is good for.
ENV TF_CPP_MIN_LOG_LEVEL=2 \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1
EXPOSE 8500 8501
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD ["/usr/local/bin/model-ready"]
CMD ["python", "-m", "serving.server", \
     "--host=0.0.0.0", \
     "--port=8500", \
     "--rest_api_port=8501", \
     "--model_config_file=/etc/whence/models.config", \
     "--batching_parameters_file=/etc/whence/batching.config", \
     "--monitoring_config_file=/etc/whence/monitoring.config"]

FROM runtime AS training
ARG VERSION
ARG REVISION=unknown
LABEL org.opencontainers.image.title="whence-training" \
      org.opencontainers.image.description="Training pipeline of Whence: prepare, fit, evaluate, export" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=training-venv /image/ /
COPY --from=code /src/training/ /
WORKDIR /app
ENV TF_CPP_MIN_LOG_LEVEL=2 MPLCONFIGDIR=/tmp
ENTRYPOINT ["python", "-m", "training"]
CMD ["--help"]

# ---- what is inside, for scanners ------------------------------------------------------------------------------------------
FROM venv AS sbom-files
ARG VERSION
COPY k8s/images/sbom.py /tmp/sbom.py
RUN --mount=from=gateway-venv,source=/image/venv,target=/venvs/gateway \
    --mount=from=serving-venv,source=/image/venv,target=/venvs/model-server \
    --mount=from=training-venv,source=/image/venv,target=/venvs/training \
    mkdir /sbom && for room in gateway model-server training; do \
      python /tmp/sbom.py "whence-$room" "${VERSION}" /venvs/$room/lib/python3*/site-packages > /sbom/$room.cdx.json || exit 1; \
    done

FROM scratch AS sbom
COPY --from=sbom-files /sbom/ /
