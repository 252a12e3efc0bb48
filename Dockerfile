# The server in a small image that takes what the official `redis` image takes.

FROM rust:1-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin redis-server \
    && install -D target/release/redis-server /out/redis-server

FROM debian:bookworm-slim
# redis-cli, for health checks and for people.
RUN groupadd --system --gid 999 redis \
    && useradd --system --gid redis --uid 999 --home-dir /data --no-create-home redis \
    && apt-get update \
    && apt-get install --yes --no-install-recommends redis-tools \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir /data \
    && chown redis:redis /data
COPY --from=build /out/redis-server /usr/local/bin/redis-server
COPY scripts/docker-entrypoint /usr/local/bin/docker-entrypoint
# The server is its own checkers, called by their names; before the ones of redis-tools in the path.
RUN ln -s redis-server /usr/local/bin/redis-check-rdb \
    && ln -s redis-server /usr/local/bin/redis-check-aof
VOLUME /data
WORKDIR /data
EXPOSE 6379
# Starts as root only to hand /data to the server's user, and goes on as that user.
ENTRYPOINT ["docker-entrypoint"]
CMD ["redis-server"]
