#!/usr/bin/env bash
# psql: see steps.txt. Each step is a psql or several, by standard input.
set -uo pipefail

U=$FIRST
L=$((FIRST + 15))
vars=(-v u="$U" -v l="$L")
for n in 1 4 5 6; do vars+=(-v "u$n=$((FIRST + n))"); done
TEXT='Grüße 東京 🚀 \ '\'' " $1 %s -- /* {} \N '$'\t''.'
DATA='{"a": 1, "b": [true, null, "ü'\''\"\\"], "c": {"x": 1.5}}'
PRICE=12345678901234.567891
BIG=1234567890123456789012345678901234567890.0123456789

wrong() {
    echo "$*" >&2
    exit 1
}

# What psql prints of these lines; it stops at the first error.
ask() { psql -XqAt -v ON_ERROR_STOP=1 "${vars[@]}" "$@" "$DATABASE_URL" -f -; }

# same EXPECTED: standard input, put through psql, gives this.
same() {
    local expected=$1 got
    shift
    got=$(ask "$@") || exit 1
    [ "$got" = "$expected" ] || wrong "got $got, expected $expected"
}

# all_said WORDS...: what psql says of standard input, errors too, has these words in this order. It goes on after errors.
all_said() {
    local said rest word
    said=$(psql -XqAt -v VERBOSITY=verbose "${vars[@]}" "$DATABASE_URL" -f - 2>&1)
    rest=$said
    for word in "$@"; do
        case $rest in
            *"$word"*) rest=${rest#*"$word"} ;;
            *) wrong "no $word in: $said" ;;
        esac
    done
}

# The same statement for each of the own users, as :i.
each() {
    local sql=$1 i
    for i in $(seq "$U" "$L"); do echo "\\set i $i"; echo "$sql"; done
}

connect() {
    psql --version | sed 's/.*) /version /'
    [ "$(psql -XAt "$DATABASE_URL" -c 'SHOW client_encoding')" = UTF8 ] || wrong "not UTF8"
    each 'DELETE FROM things WHERE user_id = :i; DELETE FROM photos WHERE user_id = :i; DELETE FROM users WHERE id = :i;' | ask
    # What \d and completion ask for is read as a whole elsewhere (tests/psql.rs).
    [ "$(psql -XAt "$DATABASE_URL" -c '\d things' | grep -c .)" -gt 14 ] || wrong '\d things'
}

create() {
    each "INSERT INTO users (id, name) VALUES (:i, 'user ' || :'i'); INSERT INTO photos (user_id, caption) VALUES (:i, 'first') RETURNING id > 0;" |
        same "$(yes t | head -16)"
}

read_() {
    each "SELECT name FROM users WHERE id = :i; SELECT id AS photo FROM photos WHERE user_id = :i
\\gset
SELECT user_id FROM photos WHERE id = :photo;" | same "$(for i in $(seq "$U" "$L"); do printf 'user %s\n%s\n' "$i" "$i"; done)"
    same "$U"$'\n'"$((U + 5))"$'\n'"user $((U + 3))|first" <<<"SELECT id FROM users WHERE id IN (:u, :u5) ORDER BY id;
SELECT u.name, p.caption FROM users u JOIN photos p ON p.user_id = u.id WHERE u.id = $((U + 3));
SELECT name FROM users WHERE id = $((U + 999));"
}

update() {
    { each "UPDATE photos SET caption = 'updated' WHERE user_id = :i
\\;
SELECT :i;"; echo "UPDATE photos SET caption = 'updated' WHERE user_id IN ($U, $((U + 1)), $((U + 4)))
\\g
\\echo :ROW_COUNT"; } | same "$(seq "$U" "$L"; echo 3)"
}

delete() {
    same $'1\n0' <<<"INSERT INTO photos (user_id, caption) VALUES (:u, 'gone');
DELETE FROM photos WHERE user_id = :u AND caption = 'gone';
\\echo :ROW_COUNT
DELETE FROM photos WHERE user_id = :u AND caption = 'gone';
\\echo :ROW_COUNT"
}

scatter() {
    same "16"$'\n'"$(seq "$L" -1 $((U + 6)))" <<<"SELECT count(*) FROM photos WHERE user_id BETWEEN :u AND :l;
SELECT id FROM users WHERE id BETWEEN :u AND :l ORDER BY id DESC LIMIT 10;"
}

# \bind is psql 16's: PREPARE in SQL. \gdesc prepares and describes.
prepared() {
    { echo 'PREPARE by_user (bigint) AS SELECT name FROM users WHERE id = $1;'
        echo 'PREPARE rename AS UPDATE users SET name = $2 WHERE id = $1 RETURNING id;'
        each "EXECUTE by_user (:i); EXECUTE rename (:i, 'user ' || :'i'); EXECUTE by_user (:i);"
        echo 'DEALLOCATE by_user; DEALLOCATE ALL;'; } |
        same "$(for i in $(seq "$U" "$L"); do printf 'user %s\n%s\nuser %s\n' "$i" "$i" "$i"; done)"
    same $'id|bigint\nname|text' <<<"SELECT id, name FROM users WHERE id = :u \\gdesc"
    same $'id|bigint\nname|text' <<<"SELECT id, name FROM users WHERE id BETWEEN :u AND :l ORDER BY id \\gdesc"
}

commit() {
    same 3 <<<"BEGIN;
UPDATE users SET name = 'committed' WHERE id = :u;
UPDATE users SET name = 'committed' WHERE id = :u4;
UPDATE users SET name = 'committed' WHERE id = :u1;
COMMIT;
SELECT count(*) FROM users WHERE name = 'committed' AND id BETWEEN :u AND :l;"
    same 1 -1 <<<"UPDATE users SET name = 'single' WHERE id = $((U + 2)); SELECT 1;"
}

rollback() {
    same 0 <<<"BEGIN;
UPDATE users SET name = 'never' WHERE id = :u;
UPDATE users SET name = 'never' WHERE id = :u4;
ROLLBACK;
SELECT count(*) FROM users WHERE name = 'never' AND id BETWEEN :u AND :l;"
}

savepoint() {
    # It sets a savepoint before each statement by itself, too.
    all_said 23505 users_pkey "updated,before" <<<"\\set ON_ERROR_ROLLBACK on
BEGIN;
INSERT INTO photos (user_id, caption) VALUES (:u4, 'before');
INSERT INTO users (id, name) VALUES (:u4, 'twice');
SAVEPOINT one;
INSERT INTO photos (user_id, caption) VALUES (:u4, 'undone');
ROLLBACK TO SAVEPOINT one;
RELEASE SAVEPOINT one;
COMMIT;
SELECT string_agg(caption, ',' ORDER BY id) FROM photos WHERE user_id = :u4;"
}

batch() {
    { for n in 0 1 2; do for i in $(seq "$U" "$L"); do printf "INSERT INTO photos (user_id, caption) VALUES (%s, 'batch %s')\\;" "$i" "$n"; done; done
        echo "SELECT count(*) FROM photos WHERE user_id BETWEEN :u AND :l AND caption LIKE 'batch _';"; } | same 48
    echo "SELECT format('UPDATE photos SET caption = ''many'' WHERE user_id = %s AND caption = ''batch 2''', id) FROM users WHERE id BETWEEN :u AND :l
\\gexec
SELECT count(*) FROM photos WHERE user_id BETWEEN :u AND :l AND caption = 'many';" | same 16
}

batch_error() {
    all_said 23505 things_pkey "left 0" <<<"INSERT INTO things (user_id, id) VALUES (:u, 5)\\; INSERT INTO things (user_id, id) VALUES (:u4, 5)\\; INSERT INTO things (user_id, id) VALUES (:u, 5);
SELECT 'left ' || count(*) FROM things WHERE id = 5 AND user_id BETWEEN :u AND :l;"
}

copy_in() {
    for i in $(seq "$U" "$L"); do printf '%s\tcopied \\t\\\\ ü🚀\n' "$i"; done |
        psql -Xq -v ON_ERROR_STOP=1 "$DATABASE_URL" -c '\copy photos (user_id, caption) FROM pstdin' || exit 1
    for i in $(seq "$U" "$L"); do echo "$i,30,"; done >"$work/things"
    same $'16\nt' <<<"\\copy things (user_id, id, note) FROM '$work/things' (FORMAT csv)
SELECT count(*) FROM photos WHERE user_id BETWEEN :u AND :l AND caption = E'copied \\t\\\\ ü🚀';
SELECT note IS NULL FROM things WHERE user_id = :u AND id = 30;"
    # A row that is wrong undoes all.
    printf '%s\tlost\nno number\tlost\n' "$U" >"$work/lost"
    all_said 22P02 "left 0" <<<"\\copy photos (user_id, caption) FROM '$work/lost'
SELECT 'left ' || count(*) FROM photos WHERE user_id BETWEEN :u AND :l AND caption = 'lost';"
}

copy_out() {
    same "user $((U + 9))"$'\t''\N'$'\n'"16 $U $L" <<<"COPY (SELECT name, NULL FROM users WHERE id = $((U + 9))) TO STDOUT;
\\copy (SELECT id FROM users WHERE id BETWEEN $U AND $L) TO '$work/ids'
\\! sort -n $work/ids | sed -n '1h;\$H;\${g;s/\\n/ /;p}' | sed 's/^/16 /'"
    [ "$(wc -l <"$work/ids")" = 16 ] || wrong "not 16 lines"
}

cursor() {
    # It declares a cursor itself.
    same "$(printf 'updated\nbatch 0\nbatch 1\nmany\ncopied \t\\ ü🚀')" -v FETCH_COUNT=2 <<<"SELECT caption FROM photos WHERE user_id = :u ORDER BY id;"
    same $'2\n2\n1' <<<"BEGIN;
DECLARE mine CURSOR FOR SELECT caption AS c FROM photos WHERE user_id = :u ORDER BY id;
FETCH 2 FROM mine
\\g /dev/null
\\echo :ROW_COUNT
FETCH 2 FROM mine
\\g /dev/null
\\echo :ROW_COUNT
FETCH 2 FROM mine
\\g /dev/null
\\echo :ROW_COUNT
COMMIT;"
}

unique_violation() {
    all_said 23505 "TABLE NAME:  users" "CONSTRAINT NAME:  users_pkey" "still user $((U + 6))" <<<"INSERT INTO users (id, name) VALUES (:u6, 'twice');
SELECT 'still ' || name FROM users WHERE id = :u6;"
}

syntax_error() {
    all_said 42601 "SELEC" 42601 "FRM" 42703 "nothing" "still 1" <<<"SELEC 1;
SELECT name FRM users WHERE id = :u;
SELECT nothing FROM users WHERE id = :u;
SELECT 'still ' || 1;"
}

failed_transaction() {
    all_said 22012 25P02 "left 0" <<<"BEGIN;
INSERT INTO photos (user_id, caption) VALUES (:u, 'lost');
SELECT 1 / (id - id) FROM users WHERE id = :u;
SELECT 1;
COMMIT;
SELECT 'left ' || count(*) FROM photos WHERE user_id = :u AND caption = 'lost';"
}

cancel() {
    local sql pid
    for sql in "SELECT pg_sleep(60);" "SELECT pg_sleep(60) FROM users WHERE id = $U;"; do
        # In a process group of its own interrupts are not ignored; it ends at the error with 3.
        printf '%s\n' '\set ON_ERROR_STOP on' '\set VERBOSITY verbose' "$sql" >"$work/sleep"
        setsid bash -c 'trap - INT; exec psql -XqAt "$DATABASE_URL" -f "$1"' - "$work/sleep" >"$work/said" 2>&1 &
        pid=$!
        while kill -0 "$pid" 2>/dev/null; do
            sleep 0.3
            kill -INT "$pid" 2>/dev/null
        done
        wait "$pid"
        grep -q 57014 "$work/said" || wrong "$(cat "$work/said")"
    done
    all_said 57014 "still 1" <<<"SET statement_timeout = '200ms';
SELECT pg_sleep(60) FROM users WHERE id = :u;
SELECT 'still ' || 1;"
}

# round ID COLUMN VALUE [SHOWN]: a row for eight users with this in a column, and reads it again.
round() {
    local i
    { for i in $(seq "$U" $((U + 7))); do
        echo "\\set i $i"
        echo "INSERT INTO things (user_id, id, $2) VALUES (:i, $1, :'value');"
        echo "SELECT $2 FROM things WHERE user_id = :i AND id = $1;"
    done; } | same "$(for i in 1 2 3 4 5 6 7 8; do printf '%s\n' "${4-$3}"; done)" -v value="$3"
}

arrays() {
    round 100 numbers '{1,NULL,-3,2147483647}'
    round 101 numbers '{}'
    round 110 words '{a,"b c","quo\"te","",NULL,"NULL","ünï,{}\\"}'
    same "$(seq $((U + 3)) $((U + 8)))"$'\n110' <<<"SELECT id FROM users WHERE id = ANY ('{$(seq -s, $((U + 3)) $((U + 8)))}') ORDER BY id;
SELECT id FROM things WHERE user_id = :u1 AND 'b c' = ANY (words);"
}

json() {
    round 200 data "$DATA"
    round 201 doc "$DATA"
    same 200 <<<"SELECT id FROM things WHERE user_id = :u AND data ->> 'a' = '1' AND data ? 'c';"
}

timestamps() {
    export PGTZ=Asia/Kathmandu
    round 300 at '2024-02-29 12:34:56.789012+00' '2024-02-29 18:19:56.789012+05:45'
    unset PGTZ
    round 301 local '2024-12-31 23:59:59.999999'
    round 302 day 1999-12-31
    same "2024-02-29 12:34:56.789012+00"$'\n'"2024-02-29 18:19:56.789012+05:45" <<<"SET TIME ZONE 'UTC';
SELECT at FROM things WHERE user_id = :u AND id = 300;
SET TIME ZONE 'Asia/Kathmandu';
SELECT at FROM things WHERE user_id = :u AND id = 300;"
}

numerics() {
    round 400 price "$PRICE"
    round 401 price "-$PRICE"
    round 410 big "$BIG"
    round 420 ratio Infinity
    round 421 ratio NaN
    round 422 ratio 0.1
    same 98765431209876.543128 <<<"SELECT sum(price) FROM things WHERE user_id BETWEEN :u AND :l AND id = 400;"
}

null() {
    local columns="numbers, words, data, doc, at, local, day, price, big, ratio, bytes, flag, note" i
    { for i in $(seq "$U" $((U + 7))); do
        echo "INSERT INTO things (user_id, id, $columns) VALUES ($i, 500$(printf ', NULL%.0s' $(seq 13)));"
        echo "SELECT $columns FROM things WHERE user_id = $i AND id = 500;"
    done; } | same "$(for i in 1 2 3 4 5 6 7 8; do echo '-|-|-|-|-|-|-|-|-|-|-|-|-'; done)" -P null=-
}

bytea() {
    local all
    all=$(printf '\\x'; seq 0 255 | while read -r n; do printf '%02x' "$n"; done)
    round 600 bytes "$all"
    round 601 bytes '\x'
    same 102400 <<<"INSERT INTO things (user_id, id, bytes) VALUES (:u, 602, decode(repeat('00ff', 51200), 'hex'));
SELECT length(bytes) FROM things WHERE user_id = :u AND id = 602;"
}

unicode() {
    round 700 note "$TEXT"
    same $'37\n'"東🚀'" <<<"SELECT length(note) FROM things WHERE user_id = :u AND id = 700;
SELECT '東🚀''' FROM things WHERE user_id = :u AND note LIKE '%🚀%';"
}

# Sixteen at once.
pool() {
    local n pids=()
    for n in $(seq 0 15); do
        same "$((U + n))"$'\n'"of $n" <<<"SET application_name = 'of $n';
SELECT id FROM users WHERE id = $((U + n));
SHOW application_name;" &
        pids+=($!)
    done
    for n in "${pids[@]}"; do wait "$n" || exit 1; done
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
for step in connect create read update delete scatter prepared commit rollback savepoint batch batch_error copy_in copy_out cursor \
    unique_violation syntax_error failed_transaction cancel arrays json timestamps numerics null bytea unicode pool; do
    run=$step
    [ "$step" != read ] || run=read_
    if (set -e; "$run") 2>"$work/fault"; then
        echo "ok $step"
    else
        failed=1
        echo "fail $step: $(tr '\n' ' ' <"$work/fault" | cut -c1-400)"
    fi
done
exit "$failed"
