# The sidecar: `docker build -t shardmill .`
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
# What `shardmill --version` shows: `--build-arg SHARDMILL_COMMIT=$(git rev-parse --short=12 HEAD)`.
ARG SHARDMILL_COMMIT=
RUN cargo build --profile dist --locked --package shardmill-sidecar --features sns,s3

FROM debian:bookworm-20260824-slim
# The service endpoints' certificates; SQLite and TLS are linked in.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home shardmill \
    && install --directory --owner=shardmill /var/lib/shardmill
COPY --from=build /src/target/dist/shardmill /usr/local/bin/shardmill
USER shardmill
WORKDIR /var/lib/shardmill
ENTRYPOINT ["/usr/local/bin/shardmill"]
CMD ["run", "-c", "/etc/shardmill/shardmill.yaml"]
