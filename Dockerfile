# A server of one model. Build and run:
#   docker build -t chatsmith .
#   docker run --rm -v chatsmith:/data --entrypoint chatsmith chatsmith keys new alice
#   docker run -p 8000:8000 -v ./my-model:/model:ro -v chatsmith:/data chatsmith --allow-host models.example
# PIP_FLAGS can name an index that has torch without CUDA, which makes the image several gigabytes smaller.
FROM python:3.12-slim AS build
ARG PIP_FLAGS=""
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN python -m venv /chatsmith && read -ra flags <<< "$PIP_FLAGS" && \
    /chatsmith/bin/pip install --no-cache-dir "${flags[@]}" ".[serve,constrain]"

FROM python:3.12-slim
RUN useradd --create-home --uid 1000 chatsmith && install -d -o chatsmith /data
COPY --from=build /chatsmith /chatsmith
ENV PATH=/chatsmith/bin:$PATH CHATSMITH_DATA=/data CHATSMITH_CACHE=/data/cache
USER 1000
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["chatsmith", "serve", "/model", "--host", "0.0.0.0"]
