# Try it:   make demo [PORT=6432]
# Test it:  make test [THREADS=4], and now and then
#           make drivers [DRIVERS="psycopg3 pgjdbc"]
#           make differential [DIFFERENTIAL_STATEMENTS=20000] [DIFFERENTIAL_SEED=1]
#           make leak [LEAK_SECONDS=120] [LEAK_SEED=2]
#           make bank [BANK_SECONDS=300] [BANK_SEED=2]
#           make state [STATE_CHECKS=100000] [STATE_SEED=1]
#           make transcript [TRANSCRIPT_STREAMS=10000] [TRANSCRIPT_SEED=1]
#           make feedkill [FEED_KILL_SECONDS=180] [FEED_KILL_SEED=1] [FEED_KILL_BESIDE=1]
#           make scanner [MUTATIONS=1000000]
#           make page
#
# What a Debian or Ubuntu lacks is installed, what can't be installed is named (.ci/need). Rust comes from rustup.rs.

PORT ?= 6432
MUTATIONS ?= 1000000
export PATH := $(HOME)/.cargo/bin:$(PATH)

BASE := cc:build-essential initdb:postgresql psql:postgresql-client setpriv:util-linux
TESTED := $(BASE) redis-server:redis-server
# What the drivers' programs need (tests/drivers/run.sh): what no test run goes without, and what is skipped where it can't be had.
SCRIPTED := python-venv:python3-venv node:nodejs npm:npm ruby:ruby ruby-pg:ruby-pg activerecord:ruby-activerecord
COMPILED := libpq:libpq-dev php:php-cli php-pgsql:php-pgsql go:golang-go lib-pq:golang-github-lib-pq-dev \
	pgx:golang-github-jackc-pgx-v4-dev javac:default-jdk-headless pgjdbc:libpostgresql-jdbc-java
DRIVERS ?= all
# Tests that run at once. Half of what a test takes it waits, for servers and for other programs: twice as many are quicker on a quiet machine.
THREADS ?= $(shell nproc)

.PHONY: demo test drivers differential transcript leak bank state feedkill scanner page bench fmt lint

demo:
	@.ci/need $(BASE)
	@cargo run --quiet --bin presplit -- demo --port $(PORT)

test:
	@.ci/need $(TESTED) $(SCRIPTED)
	-@.ci/need $(COMPILED)
	tests/drivers/setup.sh & setup=$$!; cargo test --no-run; built=$$?; wait $$setup && exit $$built
	RUST_TEST_THREADS=$(THREADS) cargo test

# All drivers: which version, how many steps (tests/drivers/steps.txt) pass, fail, are not in the driver. sqlx and diesel take a
# while to build, so that `make test` runs them only once they are built here.
drivers:
	@.ci/need $(BASE) $(SCRIPTED) $(COMPILED)
	tests/drivers/setup.sh
	CARGO_TARGET_DIR=target/drivers/rust cargo build --quiet --manifest-path tests/drivers/rust/Cargo.toml
	DRIVERS="$(DRIVERS)" cargo test --test tests -- --exact drivers::each_driver_goes_through_all_steps
	cargo test --test tests -- --exact migrations::django migrations::alembic migrations::rails

# Our scanner against Postgres' own, and texts of one shape against each other's plans.
scanner:
	@.ci/need cc:build-essential libclang:libclang-dev
	MUTATIONS=$(MUTATIONS) cargo test --profile perf --features scanner --lib -- sql::parse::postgres one_shape --nocapture

# Random statements on one Postgres and through presplit; what else can be said is in tests/differential/mod.rs.
differential:
	@.ci/need $(BASE)
	cargo test --test tests -- --ignored --exact --nocapture differential::many_random_statements_mean_the_same

# Random streams of protocol messages to one Postgres and through presplit: every byte that comes back must be the same.
transcript:
	@.ci/need $(BASE)
	cargo test --test tests -- --ignored --nocapture transcript::many_random_streams

# Many clients, killed hosts, replaced maps: no row may reach the wrong client, no write may be lost or run twice.
leak:
	@.ci/need $(BASE)
	cargo test --test tests -- --ignored --exact --nocapture leak::rows_stay_with_their_users_through_much_trouble

# Transfers over three hosts while everything is killed, cut and frozen: no money may be made or lost, nothing stay locked.
bank:
	@.ci/need $(BASE)
	cargo test --test tests -- --ignored --exact --nocapture bank::no_money_is_made_or_lost_in_much_trouble

# 200 clients with all kinds of settings over four server connections, each beside a twin on a plain Postgres.
state:
	@.ci/need $(BASE)
	cargo test --test tests -- --ignored --exact --nocapture state::two_hundred_clients_see_their_own

# Everything of the feed service is killed with -9, at random, while apps post: every post must reach every follower once, in order.
feedkill:
	@.ci/need $(BASE) redis-server:redis-server
	cargo test --test tests -- --ignored --exact --nocapture feed::kill::nothing_is_lost_whatever_is_killed_for_minutes

# The demo's page as a person uses it, in Chromium, which `make test` does not install. Pictures of it: target/page/*.png
page:
	@.ci/need $(BASE) chromium:chromium fonts:fonts-liberation
	cargo test --test tests -- page::

bench:
	@.ci/need $(BASE) pgbouncer:pgbouncer
	cargo build --release
	bench/run.sh

fmt:
	cargo fmt

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
