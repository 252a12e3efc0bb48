# The server in a small image that takes what the official `redis` image takes.

FROM rust:1-bookworm AS build
WORKDIR /build
# Dependencies are a layer of their own, which stays as long as they do.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
RUN mkdir -p src/bin tests/differential benches/load \
    && for file in src/bin/server tests/differential/main tests/loom benches/load/main benches/growth benches/table; do \
        echo 'fn main() {}' > $file.rs || exit; \
    done \
    && touch src/lib.rs \
    && cargo build --release --locked --bin redis-server \
    && rm -r src tests benches
COPY . .
# What only a debugger needs goes; the names of functions stay, for the report of a crash.
RUN touch src/lib.rs src/bin/server.rs \
    && TESSERA_FOR_IMAGE=1 cargo build --release --locked --bin redis-server \
    && mkdir /out \
    && strip --strip-debug -o /out/redis-server target/release/redis-server

FROM debian:bookworm-slim
# redis-cli and redis-benchmark, for health checks and for people.
RUN groupadd --system --gid 999 redis \
    && useradd --system --gid redis --uid 999 --home-dir /data --no-create-home redis \
    && apt-get update \
    && apt-get install --yes --no-install-recommends redis-tools \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir /data \
    && chown redis:redis /data
COPY --from=build /out/redis-server /usr/local/bin/redis-server
COPY scripts/docker-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
# The server is its own checkers and Sentinel, by the name it is called; all names stand where the
# official image has them, before those of redis-tools in the path.
RUN for name in redis-sentinel redis-check-rdb redis-check-aof; do \
        ln -s redis-server "/usr/local/bin/$name" || exit; \
    done \
    && ln -s /usr/bin/redis-cli /usr/bin/redis-benchmark /usr/local/bin/
# The Redis whose behaviour this is.
ENV REDIS_VERSION=7.0.15
VOLUME /data
WORKDIR /data
EXPOSE 6379
# Starts as root only to hand /data to the server's user, and goes on as that user.
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["redis-server"]
