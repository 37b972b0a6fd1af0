#!/bin/sh
# run.sh DRIVER: the driver's program of this directory, compiled where it has to be, against DATABASE_URL (see steps.txt).
# Exit code 77: the driver is not installed, and what would install it.
set -eu
cd "$(dirname "$0")"
drivers=$(cd ../../target/drivers && pwd)
export PYTHONDONTWRITEBYTECODE=1

not_here() {
    echo "$*" >&2
    exit 77
}

# python PROGRAM
python() {
    [ -x "$drivers/venv/bin/python" ] || not_here "tests/drivers/setup.sh installs it"
    exec "$drivers/venv/bin/python" "$1"
}

# node PROGRAM
node() {
    [ -d "$drivers/node/node_modules" ] || not_here "tests/drivers/setup.sh installs it"
    NODE_PATH="$drivers/node/node_modules" exec node "$1"
}

# newer WHAT SOURCE...: whether WHAT was made from the sources as they are.
newer() {
    what=$1
    shift
    [ -e "$what" ] && [ -z "$(find "$@" -newer "$what")" ]
}

# go_program PACKAGE: of the Debian packages under /usr/share/gocode
go_program() {
    command -v go >/dev/null || not_here "apt-get install golang-go"
    [ -d "/usr/share/gocode/src/$2" ] || not_here "apt-get install $3"
    if ! newer "$drivers/$1" "go/$1"; then
        GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE="$drivers/gocache" go build -o "$drivers/$1" "./go/$1"
    fi
    exec "$drivers/$1"
}

# rust_program NAME: as `make drivers` has built it.
rust_program() {
    program=$drivers/rust/debug/$1
    newer "$program" "rust/src/bin/$1.rs" rust/src/lib.rs rust/Cargo.toml rust/Cargo.lock || not_here "make drivers builds it"
    exec "$program"
}

case $1 in
    psql) exec ./psql.sh ;;
    psycopg3) python psycopg3.py ;;
    psycopg2) python psycopg2_app.py ;;
    asyncpg) python asyncpg_app.py ;;
    sqlalchemy) python sqlalchemy_app.py ;;
    django) python django_app.py ;;
    node-postgres) node node_pg.js ;;
    postgres.js) node postgres_js.js ;;
    sqlx | diesel) rust_program "$1" ;;
    pgx) go_program pgx github.com/jackc/pgx/v4 golang-github-jackc-pgx-v4-dev ;;
    lib-pq) go_program pq github.com/lib/pq golang-github-lib-pq-dev ;;
    libpq)
        command -v pg_config >/dev/null && [ -e "$(pg_config --includedir)/libpq-fe.h" ] || not_here "apt-get install libpq-dev"
        command -v cc >/dev/null || not_here "apt-get install gcc libc6-dev"
        if ! newer "$drivers/libpq_app" libpq_app.c; then
            cc -Wall -Wextra -Werror -O1 -I"$(pg_config --includedir)" -o "$drivers/libpq_app" libpq_app.c -L"$(pg_config --libdir)" -lpq -lpthread
        fi
        exec "$drivers/libpq_app"
        ;;
    pgjdbc)
        jar=/usr/share/java/postgresql.jar
        [ -e "$jar" ] || not_here "apt-get install libpostgresql-jdbc-java"
        command -v javac >/dev/null || not_here "apt-get install default-jdk-headless"
        if ! newer "$drivers/java/Jdbc.class" Jdbc.java; then
            javac -Xlint:all -cp "$jar" -d "$drivers/java" Jdbc.java
        fi
        exec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$drivers/java:$jar" Jdbc
        ;;
    ruby-pg)
        ruby -e 'require "pg"' 2>/dev/null || not_here "apt-get install ruby ruby-pg"
        exec ruby ruby_pg.rb
        ;;
    activerecord)
        ruby -e 'require "active_record"; require "pg"' 2>/dev/null || not_here "apt-get install ruby ruby-pg ruby-activerecord"
        exec ruby active_record_app.rb
        ;;
    php-pdo)
        php -m 2>/dev/null | grep -q '^pdo_pgsql$' || not_here "apt-get install php-cli php-pgsql"
        exec php pdo.php
        ;;
    *)
        echo "there is no driver $1 here" >&2
        exit 2
        ;;
esac
