# Stands in for prom/prometheus where no registry can be reached: Debian's Prometheus under the official image's paths.
FROM python:3.11-slim-bookworm
LABEL whence.stands-in="true"
RUN apt-get update && apt-get install -y --no-install-recommends prometheus \
    && mkdir -p /prometheus && chown 65534:65534 /prometheus
USER 65534:65534
WORKDIR /prometheus
ENTRYPOINT ["/usr/bin/prometheus"]
