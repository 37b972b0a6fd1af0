# docker build -t presplit .
# docker run -p 6432:6432 -v ./shardmap.toml:/etc/presplit/shardmap.toml:ro presplit
#
# In the container the map's [proxy] listen must be "*:6432" or it is reached from inside only; users need passwords then.
# To have edits of the map seen, mount its directory (-v ./map:/etc/presplit:ro): a file that is mounted alone stays the
# old one when an editor puts a new file in its place.

FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock shardmap.toml ./
COPY src src
# The test and the benchmark are named in Cargo.toml and not part of the image.
RUN mkdir -p tests bench && touch tests/tests.rs bench/micro.rs
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin presplit && cp target/release/presplit /presplit

FROM debian:bookworm-slim
COPY --from=build /presplit /usr/local/bin/presplit
USER 65532:65532
EXPOSE 6432
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s \
    CMD ["presplit", "health", "127.0.0.1:6432"]
ENTRYPOINT ["presplit"]
CMD ["serve", "--map", "/etc/presplit/shardmap.toml"]
