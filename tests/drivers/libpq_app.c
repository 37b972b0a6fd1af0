/* libpq itself, mostly in pipeline mode: see steps.txt. A step that finds something wrong says so and jumps out of itself. */

#include <libpq-fe.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long first;
static long users[16];
static PGconn *conn;
static jmp_buf out;
static char why[1000];

static const char TEXT[] = "Grüße 東京 🚀 \\ ' \" $1 %s -- /* {} \\N \t.";
static const char DATA[] = "{\"a\": 1, \"b\": [true, null, \"ü'\\\"\\\\\"], \"c\": {\"x\": 1.5}}";

__attribute__((noreturn, format(printf, 1, 2))) static void wrong(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    longjmp(out, 1);
}

static void same(const char *got, const char *expected) {
    if (got == NULL || strcmp(got, expected) != 0)
        wrong("got %s, expected %s", got == NULL ? "NULL" : got, expected);
}

static void same_number(long got, long expected) {
    if (got != expected)
        wrong("got %ld, expected %ld", got, expected);
}

static PGresult *expect(PGresult *result, ExecStatusType status) {
    if (PQresultStatus(result) != status)
        wrong("%s where %s was expected: %s %s", PQresStatus(PQresultStatus(result)), PQresStatus(status),
              PQresultErrorField(result, PG_DIAG_SQLSTATE) ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : "", PQresultErrorMessage(result));
    return result;
}

/* What a printf-like format makes: kept until a few more were made. */
__attribute__((format(printf, 1, 2))) static const char *text(const char *format, ...) {
    static char texts[32][2000];
    static int next;
    char *to = texts[next++ % 32];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(to, sizeof texts[0], format, arguments);
    va_end(arguments);
    return to;
}

static const char *number(long n) { return text("%ld", n); }

static PGresult *run(const char *sql, int n, ...) {
    const char *values[20];
    va_list arguments;
    va_start(arguments, n);
    for (int i = 0; i < n; i++)
        values[i] = va_arg(arguments, const char *);
    va_end(arguments);
    return PQexecParams(conn, sql, n, NULL, values, NULL, NULL, 0);
}

static void sent(int ok) {
    if (!ok)
        wrong("not sent: %s", PQerrorMessage(conn));
}

static void simple(const char *sql) { PQclear(expect(PQexec(conn, sql), PGRES_COMMAND_OK)); }

/* The only value of a result, kept as `text` keeps it. */
static const char *value(PGresult *result) {
    expect(result, PGRES_TUPLES_OK);
    same_number(PQntuples(result), 1);
    const char *found = PQgetisnull(result, 0, 0) ? NULL : text("%s", PQgetvalue(result, 0, 0));
    PQclear(result);
    return found;
}

static void affects(PGresult *result, const char *rows) {
    expect(result, PGRES_COMMAND_OK);
    same(PQcmdTuples(result), rows);
    PQclear(result);
}

static void failing(PGresult *result, const char *state) {
    expect(result, PGRES_FATAL_ERROR);
    same(PQresultErrorField(result, PG_DIAG_SQLSTATE), state);
    PQclear(result);
}

static const char *list(int from, int to) {
    char all[400] = "{";
    for (int i = from; i < to; i++)
        sprintf(all + strlen(all), "%s%ld", i > from ? "," : "", users[i]);
    strcat(all, "}");
    return text("%s", all);
}

static void captions(const char *caption, const char *expected) {
    same(value(run("SELECT count(*) FROM photos WHERE user_id = ANY ($1) AND caption = $2", 2, list(0, 16), caption)), expected);
}

static void open_connection(void) {
    conn = PQconnectdb(getenv("DATABASE_URL"));
    if (PQstatus(conn) != CONNECTION_OK)
        wrong("%s", PQerrorMessage(conn));
}

static void step_connect(void) {
    printf("version %d.%d\n", PQlibVersion() / 10000, PQlibVersion() % 10000);
    same(PQparameterStatus(conn, "client_encoding"), "UTF8");
    for (int i = 0; i < 16; i++) {
        PQclear(expect(run("DELETE FROM things WHERE user_id = $1", 1, number(users[i])), PGRES_COMMAND_OK));
        PQclear(expect(run("DELETE FROM photos WHERE user_id = $1", 1, number(users[i])), PGRES_COMMAND_OK));
        PQclear(expect(run("DELETE FROM users WHERE id = $1", 1, number(users[i])), PGRES_COMMAND_OK));
    }
}

static void step_create(void) {
    for (int i = 0; i < 16; i++) {
        affects(run("INSERT INTO users (id, name) VALUES ($1, $2)", 2, number(users[i]), text("user %ld", users[i])), "1");
        if (atol(value(run("INSERT INTO photos (user_id, caption) VALUES ($1, 'first') RETURNING id", 1, number(users[i])))) <= 0)
            wrong("no id");
    }
}

static void step_read(void) {
    for (int i = 0; i < 16; i++) {
        same(value(run("SELECT name FROM users WHERE id = $1", 1, number(users[i]))), text("user %ld", users[i]));
        const char *photo = value(run("SELECT id FROM photos WHERE user_id = $1", 1, number(users[i])));
        same(value(run("SELECT user_id FROM photos WHERE id = $1", 1, photo)), number(users[i]));
    }
    PGresult *two = expect(run("SELECT id FROM users WHERE id IN ($1, $2) ORDER BY id", 2, number(users[0]), number(users[5])), PGRES_TUPLES_OK);
    same_number(PQntuples(two), 2);
    same(PQgetvalue(two, 1, 0), number(users[5]));
    PQclear(two);
    same(value(run("SELECT u.name || '/' || p.caption FROM users u JOIN photos p ON p.user_id = u.id WHERE u.id = $1", 1, number(users[3]))),
         text("user %ld/first", users[3]));
    PGresult *nobody = expect(run("SELECT name FROM users WHERE id = $1", 1, number(first + 999)), PGRES_TUPLES_OK);
    same_number(PQntuples(nobody), 0);
    PQclear(nobody);
}

static void step_update(void) {
    for (int i = 0; i < 16; i++)
        affects(run("UPDATE photos SET caption = $1 WHERE user_id = $2", 2, "updated", number(users[i])), "1");
    affects(run("UPDATE photos SET caption = 'updated' WHERE user_id = ANY ($1)", 1, list(0, 4)), "4");
}

static void step_delete(void) {
    affects(run("INSERT INTO photos (user_id, caption) VALUES ($1, 'gone')", 1, number(users[2])), "1");
    affects(run("DELETE FROM photos WHERE user_id = $1 AND caption = 'gone'", 1, number(users[2])), "1");
    affects(run("DELETE FROM photos WHERE user_id = $1 AND caption = 'gone'", 1, number(users[2])), "0");
}

static void step_scatter(void) {
    same(value(run("SELECT count(*) FROM photos WHERE user_id BETWEEN $1 AND $2", 2, number(users[0]), number(users[15]))), "16");
    PGresult *last = run("SELECT id FROM users WHERE id BETWEEN $1 AND $2 ORDER BY id DESC LIMIT 10", 2, number(users[0]), number(users[15]));
    expect(last, PGRES_TUPLES_OK);
    same_number(PQntuples(last), 10);
    same(PQgetvalue(last, 9, 0), number(users[6]));
    PQclear(last);
}

static void step_prepared(void) {
    PQclear(expect(PQprepare(conn, "by user", "SELECT name, (SELECT count(*) FROM photos WHERE user_id = $1) FROM users WHERE id = $1", 0, NULL), PGRES_COMMAND_OK));
    PQclear(expect(PQprepare(conn, "rename", "UPDATE users SET name = $2 WHERE id = $1", 0, NULL), PGRES_COMMAND_OK));
    PGresult *described = expect(PQdescribePrepared(conn, "rename"), PGRES_COMMAND_OK);
    same_number(PQnparams(described), 2);
    same_number(PQparamtype(described, 0), 20);
    PQclear(described);
    for (int turn = 0; turn < 3; turn++)
        for (int i = 0; i < 16; i++) {
            const char *values[] = {number(users[i]), text("user %ld", users[i])};
            PGresult *found = expect(PQexecPrepared(conn, "by user", 1, values, NULL, NULL, 0), PGRES_TUPLES_OK);
            same(PQgetvalue(found, 0, 0), values[1]);
            same(PQgetvalue(found, 0, 1), "1");
            PQclear(found);
            affects(PQexecPrepared(conn, "rename", 2, values, NULL, NULL, 0), "1");
        }
    simple("DEALLOCATE rename");
    failing(PQexecPrepared(conn, "rename", 0, NULL, NULL, NULL, 0), "26000");
}

static void step_commit(void) {
    simple("BEGIN");
    for (int i = 0; i < 3; i++)
        affects(run("UPDATE users SET name = 'committed' WHERE id = $1", 1, number(users[i == 1 ? 4 : i])), "1");
    same_number(PQtransactionStatus(conn), PQTRANS_INTRANS);
    simple("COMMIT");
    same(value(run("SELECT count(*) FROM users WHERE name = 'committed' AND id = ANY ($1)", 1, list(0, 16))), "3");
}

static void step_rollback(void) {
    simple("BEGIN");
    affects(run("UPDATE users SET name = 'never' WHERE id = $1", 1, number(users[0])), "1");
    affects(run("UPDATE users SET name = 'never' WHERE id = $1", 1, number(users[4])), "1");
    simple("ROLLBACK");
    same(value(run("SELECT count(*) FROM users WHERE name = 'never' AND id = ANY ($1)", 1, list(0, 16))), "0");
}

static void step_savepoint(void) {
    simple("BEGIN");
    for (int i = 4; i < 6; i++) {
        affects(run("INSERT INTO photos (user_id, caption) VALUES ($1, 'before')", 1, number(users[i])), "1");
        simple("SAVEPOINT one");
        affects(run("INSERT INTO photos (user_id, caption) VALUES ($1, 'undone')", 1, number(users[i])), "1");
        failing(run("INSERT INTO users (id, name) VALUES ($1, 'twice')", 1, number(users[i])), "23505");
        same_number(PQtransactionStatus(conn), PQTRANS_INERROR);
        simple("ROLLBACK TO SAVEPOINT one");
        simple("RELEASE SAVEPOINT one");
    }
    simple("COMMIT");
    same(value(run("SELECT string_agg(caption, '/' ORDER BY id) FROM photos WHERE user_id = $1", 1, number(users[4]))), "updated/before");
}

/* In pipeline mode: what is asked without waiting, up to a Sync or a Flush. */
static void send(const char *sql, int n, ...) {
    const char *values[4];
    va_list arguments;
    va_start(arguments, n);
    for (int i = 0; i < n; i++)
        values[i] = va_arg(arguments, const char *);
    va_end(arguments);
    sent(PQsendQueryParams(conn, sql, n, NULL, values, NULL, NULL, 0));
}

static PGresult *next(ExecStatusType status) {
    PGresult *result = PQgetResult(conn);
    if (result == NULL)
        wrong("no result where %s was expected", PQresStatus(status));
    return expect(result, status);
}

static void answered(ExecStatusType status, const char *state) {
    PGresult *result = next(status);
    if (state != NULL)
        same(PQresultErrorField(result, PG_DIAG_SQLSTATE), state);
    PQclear(result);
    if (status != PGRES_PIPELINE_SYNC && PQgetResult(conn) != NULL)
        wrong("a second result");
}

static void step_batch(void) {
    sent(PQenterPipelineMode(conn));
    sent(PQsendPrepare(conn, "in a pipeline", "INSERT INTO photos (user_id, caption) VALUES ($1, $2)", 0, NULL));
    for (int n = 0; n < 3; n++)
        for (int i = 0; i < 16; i++) {
            const char *values[] = {number(users[i]), text("batch %d", n)};
            sent(PQsendQueryPrepared(conn, "in a pipeline", 2, values, NULL, NULL, 0));
        }
    sent(PQpipelineSync(conn));
    /* The next part is sent before the first is read. */
    for (int i = 0; i < 16; i++)
        send("UPDATE photos SET caption = 'many' WHERE user_id = $1 AND caption = 'batch 2' RETURNING user_id", 1, number(users[i]));
    sent(PQsendFlushRequest(conn));
    sent(PQsendDescribePrepared(conn, "in a pipeline"));
    sent(PQpipelineSync(conn));
    for (int n = 0; n < 49; n++)
        answered(PGRES_COMMAND_OK, NULL);
    answered(PGRES_PIPELINE_SYNC, NULL);
    for (int i = 0; i < 16; i++) {
        PGresult *result = next(PGRES_TUPLES_OK);
        same(PQgetvalue(result, 0, 0), number(users[i]));
        PQclear(result);
        if (PQgetResult(conn) != NULL)
            wrong("a second result");
    }
    answered(PGRES_COMMAND_OK, NULL);
    answered(PGRES_PIPELINE_SYNC, NULL);
    sent(PQexitPipelineMode(conn));
    captions("many", "16");
}

static void step_batch_error(void) {
    sent(PQenterPipelineMode(conn));
    const int order[] = {0, 4, 0, 1};
    for (int n = 0; n < 4; n++)
        send("INSERT INTO things (user_id, id) VALUES ($1, 5)", 1, number(users[order[n]]));
    sent(PQpipelineSync(conn));
    send("INSERT INTO things (user_id, id) VALUES ($1, 6)", 1, number(users[4]));
    sent(PQpipelineSync(conn));
    answered(PGRES_COMMAND_OK, NULL);
    answered(PGRES_COMMAND_OK, NULL);
    answered(PGRES_FATAL_ERROR, "23505");
    answered(PGRES_PIPELINE_ABORTED, NULL);
    same_number(PQpipelineStatus(conn), PQ_PIPELINE_ABORTED);
    answered(PGRES_PIPELINE_SYNC, NULL);
    answered(PGRES_COMMAND_OK, NULL);
    answered(PGRES_PIPELINE_SYNC, NULL);
    /* A block in a pipeline, rolled back in another. */
    send("BEGIN", 0);
    send("INSERT INTO things (user_id, id) VALUES ($1, 7)", 1, number(users[0]));
    send("INSERT INTO things (user_id, id) VALUES ($1, 7)", 1, number(users[4]));
    sent(PQpipelineSync(conn));
    send("ROLLBACK", 0);
    sent(PQpipelineSync(conn));
    for (int n = 0; n < 3; n++)
        answered(PGRES_COMMAND_OK, NULL);
    answered(PGRES_PIPELINE_SYNC, NULL);
    answered(PGRES_COMMAND_OK, NULL);
    answered(PGRES_PIPELINE_SYNC, NULL);
    sent(PQexitPipelineMode(conn));
    same(value(run("SELECT string_agg(id::text, ',' ) FROM things WHERE user_id = $1", 1, number(users[4]))), "6");
    same(value(run("SELECT count(*) FROM things WHERE id = 5 AND user_id = ANY ($1)", 1, list(0, 16))), "0");
}

static void copied(const char *sql, const char *row) {
    PQclear(expect(PQexec(conn, sql), PGRES_COPY_IN));
    for (int i = 0; i < 16; i++) {
        const char *line = text("%ld%s", users[i], row);
        sent(PQputCopyData(conn, line, (int)strlen(line)) == 1);
    }
    sent(PQputCopyEnd(conn, NULL) == 1);
    PGresult *end = next(PGRES_COMMAND_OK);
    same(PQcmdTuples(end), "16");
    PQclear(end);
    if (PQgetResult(conn) != NULL)
        wrong("a second result");
}

static void step_copy_in(void) {
    copied("COPY photos (user_id, caption) FROM STDIN", "\tcopied \\t\\\\ ü🚀\n");
    copied("COPY things (user_id, id, note) FROM STDIN (FORMAT csv)", ",30,\n");
    captions("copied \t\\ ü🚀", "16");
    PQclear(expect(PQexec(conn, "COPY photos (user_id, caption) FROM STDIN"), PGRES_COPY_IN));
    const char *line = text("%ld\tlost\n", users[0]);
    sent(PQputCopyData(conn, line, (int)strlen(line)) == 1);
    sent(PQputCopyEnd(conn, "the client breaks off") == 1);
    failing(PQgetResult(conn), "57014");
    if (PQgetResult(conn) != NULL)
        wrong("a second result");
    captions("lost", "0");
}

static void step_copy_out(void) {
    PQclear(expect(PQexec(conn, text("COPY (SELECT name, NULL FROM users WHERE id = %ld) TO STDOUT", users[9])), PGRES_COPY_OUT));
    char *line;
    sent(PQgetCopyData(conn, &line, 0) > 0);
    same(line, text("user %ld\t\\N\n", users[9]));
    PQfreemem(line);
    same_number(PQgetCopyData(conn, &line, 0), -1);
    PQclear(next(PGRES_COMMAND_OK));
    PQclear(PQgetResult(conn));
    PQclear(expect(PQexec(conn, text("COPY (SELECT id FROM users WHERE id BETWEEN %ld AND %ld) TO STDOUT", users[0], users[15])), PGRES_COPY_OUT));
    long sum = 0, lines = 0;
    while (PQgetCopyData(conn, &line, 0) > 0) {
        sum += atol(line) - first;
        lines++;
        PQfreemem(line);
    }
    same_number(lines * 1000 + sum, 16 * 1000 + 120);
    PQclear(next(PGRES_COMMAND_OK));
    PQclear(PQgetResult(conn));
}

static void step_cursor(void) {
    simple("BEGIN");
    simple(text("DECLARE mine NO SCROLL CURSOR FOR SELECT caption FROM photos WHERE user_id = %ld ORDER BY id", users[0]));
    const int sizes[] = {2, 2, 1, 0};
    for (int n = 0; n < 4; n++) {
        PGresult *part = expect(PQexec(conn, "FETCH 2 FROM mine"), PGRES_TUPLES_OK);
        same_number(PQntuples(part), sizes[n]);
        PQclear(part);
    }
    PGresult *described = expect(PQdescribePortal(conn, "mine"), PGRES_COMMAND_OK);
    same(PQfname(described, 0), "caption");
    PQclear(described);
    simple("CLOSE mine");
    simple("COMMIT");
    /* Row by row as they come. */
    const char *range[] = {number(users[0]), number(users[15])};
    sent(PQsendQueryParams(conn, "SELECT id FROM users WHERE id BETWEEN $1 AND $2 ORDER BY id", 2, NULL, range, NULL, NULL, 0));
    sent(PQsetSingleRowMode(conn));
    for (int i = 0; i < 16; i++) {
        PGresult *row = next(PGRES_SINGLE_TUPLE);
        same(PQgetvalue(row, 0, 0), number(users[i]));
        PQclear(row);
    }
    PQclear(next(PGRES_TUPLES_OK));
    PQclear(PQgetResult(conn));
}

static void step_unique_violation(void) {
    PGresult *twice = expect(run("INSERT INTO users (id, name) VALUES ($1, 'twice')", 1, number(users[6])), PGRES_FATAL_ERROR);
    same(PQresultErrorField(twice, PG_DIAG_SQLSTATE), "23505");
    same(PQresultErrorField(twice, PG_DIAG_TABLE_NAME), "users");
    same(PQresultErrorField(twice, PG_DIAG_CONSTRAINT_NAME), "users_pkey");
    PQclear(twice);
    same(value(run("SELECT name FROM users WHERE id = $1", 1, number(users[6]))), text("user %ld", users[6]));
}

static void step_syntax_error(void) {
    failing(PQexec(conn, "SELEC 1"), "42601");
    failing(run("SELECT name FRM users WHERE id = $1", 1, number(users[0])), "42601");
    PGresult *nothing = expect(run("SELECT nothing FROM users WHERE id = $1", 1, number(users[0])), PGRES_FATAL_ERROR);
    same(PQresultErrorField(nothing, PG_DIAG_SQLSTATE), "42703");
    same(PQresultErrorField(nothing, PG_DIAG_STATEMENT_POSITION), "8");
    PQclear(nothing);
    same(value(PQexec(conn, "SELECT 1")), "1");
}

static void step_failed_transaction(void) {
    simple("BEGIN");
    affects(run("INSERT INTO photos (user_id, caption) VALUES ($1, 'lost')", 1, number(users[0])), "1");
    failing(run("SELECT 1 / (id - id) FROM users WHERE id = $1", 1, number(users[0])), "22012");
    failing(PQexec(conn, "SELECT 1"), "25P02");
    PGresult *end = expect(PQexec(conn, "COMMIT"), PGRES_COMMAND_OK);
    same(PQcmdStatus(end), "ROLLBACK");
    PQclear(end);
    captions("lost", "0");
}

static void step_cancel(void) {
    PGcancel *cancel = PQgetCancel(conn);
    char fault[256];
    for (int turn = 0; turn < 2; turn++) {
        sent(PQsendQuery(conn, turn == 0 ? "SELECT pg_sleep(60)" : text("SELECT pg_sleep(60) FROM users WHERE id = %ld", users[0])));
        for (;;) {
            usleep(100000);
            if (!PQconsumeInput(conn))
                wrong("%s", PQerrorMessage(conn));
            if (!PQisBusy(conn))
                break;
            if (!PQcancel(cancel, fault, sizeof fault))
                wrong("%s", fault);
        }
        failing(PQgetResult(conn), "57014");
        PQclear(PQgetResult(conn));
        /* One that came late can hit the next. */
        PQclear(PQexec(conn, "SELECT 1"));
        same(value(PQexec(conn, "SELECT 1")), "1");
    }
    PQfreeCancel(cancel);
}

static void put(int id, const char *column, const char *given) {
    for (int i = 0; i < 8; i++)
        affects(run(text("INSERT INTO things (user_id, id, %s) VALUES ($1, $2, $3)", column), 3, number(users[i]), number(id), given), "1");
}

static void got(int id, const char *column, const char *expected) {
    for (int i = 0; i < 8; i++)
        same(value(run(text("SELECT %s FROM things WHERE user_id = $1 AND id = $2", column), 2, number(users[i]), number(id))), expected);
}

static void step_arrays(void) {
    put(100, "numbers", "{1,NULL,-3,2147483647}");
    put(101, "numbers", "{}");
    put(110, "words", "{a,\"b c\",\"quo\\\"te\",\"\",NULL,\"NULL\",\"ünï,{}\\\\\"}");
    got(100, "numbers", "{1,NULL,-3,2147483647}");
    got(101, "numbers", "{}");
    got(110, "words", "{a,\"b c\",\"quo\\\"te\",\"\",NULL,\"NULL\",\"ünï,{}\\\\\"}");
    PGresult *some = expect(run("SELECT id FROM users WHERE id = ANY ($1) ORDER BY id", 1, list(3, 9)), PGRES_TUPLES_OK);
    same_number(PQntuples(some), 6);
    same(PQgetvalue(some, 5, 0), number(users[8]));
    PQclear(some);
    same(value(run("SELECT id FROM things WHERE user_id = $1 AND $2 = ANY (words)", 2, number(users[1]), "b c")), "110");
}

static void step_json(void) {
    put(200, "data", DATA);
    put(201, "doc", DATA);
    got(200, "data", DATA);
    got(201, "doc", DATA);
    for (int i = 0; i < 8; i++)
        same(value(run("SELECT id FROM things WHERE user_id = $1 AND data ->> 'a' = $2 AND data ? 'c'", 2, number(users[i]), "1")), "200");
}

static void step_timestamps(void) {
    put(300, "at", "2024-02-29 12:34:56.789012+00");
    put(301, "local", "2024-12-31 23:59:59.999999");
    put(302, "day", "1999-12-31");
    simple("SET TIME ZONE 'Asia/Kathmandu'");
    same(PQparameterStatus(conn, "TimeZone"), "Asia/Kathmandu");
    got(300, "at", "2024-02-29 18:19:56.789012+05:45");
    got(301, "local", "2024-12-31 23:59:59.999999");
    got(302, "day", "1999-12-31");
    simple("RESET TIME ZONE");
}

static void step_numerics(void) {
    put(400, "price", "12345678901234.567891");
    put(401, "price", "-12345678901234.567891");
    put(410, "big", "1234567890123456789012345678901234567890.0123456789");
    put(420, "ratio", "Infinity");
    put(421, "ratio", "NaN");
    put(422, "ratio", "0.1");
    got(401, "price", "-12345678901234.567891");
    got(410, "big", "1234567890123456789012345678901234567890.0123456789");
    got(420, "ratio", "Infinity");
    got(421, "ratio", "NaN");
    got(422, "ratio", "0.1");
    same(value(run("SELECT sum(price) FROM things WHERE user_id BETWEEN $1 AND $2 AND id = 400", 2, number(users[0]), number(users[15]))), "98765431209876.543128");
}

static void step_null(void) {
    const char *columns = "numbers, words, data, doc, at, local, day, price, big, ratio, bytes, flag, note";
    const char *values[14] = {NULL};
    for (int i = 0; i < 8; i++) {
        values[0] = number(users[i]);
        affects(PQexecParams(conn, text("INSERT INTO things (user_id, id, %s) VALUES ($1, 500, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)", columns),
                             14, NULL, values, NULL, NULL, 0), "1");
        PGresult *row = expect(run(text("SELECT %s FROM things WHERE user_id = $1 AND id = 500", columns), 1, values[0]), PGRES_TUPLES_OK);
        for (int n = 0; n < 13; n++)
            same_number(PQgetisnull(row, 0, n), 1);
        PQclear(row);
        same(value(run("SELECT id FROM things WHERE user_id = $1 AND id >= 500 AND note IS NULL", 1, values[0])), "500");
    }
}

static void step_bytea(void) {
    static char bytes[102400];
    for (size_t n = 0; n < sizeof bytes; n++)
        bytes[n] = (char)n;
    const int lengths[] = {256, 0, sizeof bytes};
    for (int n = 0; n < 3; n++)
        for (int i = 0; i < 8; i++) {
            const char *values[] = {number(users[i]), number(600 + n), bytes};
            const int sizes[] = {0, 0, lengths[n]}, formats[] = {0, 0, 1};
            affects(PQexecParams(conn, "INSERT INTO things (user_id, id, bytes) VALUES ($1, $2, $3)", 3, NULL, values, sizes, formats, 0), "1");
            for (int format = 0; format < 2; format++) {
                PGresult *row = PQexecParams(conn, "SELECT bytes FROM things WHERE user_id = $1 AND id = $2", 2, NULL, values, NULL, NULL, format);
                expect(row, PGRES_TUPLES_OK);
                size_t length = (size_t)PQgetlength(row, 0, 0);
                unsigned char *plain = format == 1 ? NULL : PQunescapeBytea((unsigned char *)PQgetvalue(row, 0, 0), &length);
                same_number((long)length, lengths[n]);
                if (memcmp(format == 1 ? PQgetvalue(row, 0, 0) : (char *)plain, bytes, length) != 0)
                    wrong("other bytes");
                PQfreemem(plain);
                PQclear(row);
            }
        }
}

static void step_unicode(void) {
    put(700, "note", TEXT);
    got(700, "note", TEXT);
    got(700, "length(note)", "37");
    same(value(run("SELECT id FROM things WHERE user_id = $1 AND note = $2", 2, number(users[0]), TEXT)), "700");
    same(value(PQexec(conn, text("SELECT '東🚀''' FROM things WHERE user_id = %ld AND note LIKE '%%🚀%%'", users[0]))), "東🚀'");
}

/* One thread of the pool: its own connection, pipelines of its own. Returns what is wrong, or NULL. */
static void *works(void *argument) {
    long n = (long)argument;
    PGconn *mine = PQconnectdb(getenv("DATABASE_URL"));
    if (PQstatus(mine) != CONNECTION_OK || !PQenterPipelineMode(mine))
        return strdup(PQerrorMessage(mine));
    char *fault = NULL;
    for (int turn = 0; turn < 10 && fault == NULL; turn++) {
        char user[30];
        sprintf(user, "%ld", users[(n + turn) % 16]);
        const char *values[] = {user};
        PQsendQueryParams(mine, "SELECT id FROM users WHERE id = $1", 1, NULL, values, NULL, NULL, 0);
        PQsendQueryParams(mine, "SELECT count(*) FROM photos WHERE user_id = $1", 1, NULL, values, NULL, NULL, 0);
        PQpipelineSync(mine);
        PGresult *result = PQgetResult(mine);
        if (PQresultStatus(result) != PGRES_TUPLES_OK || strcmp(PQgetvalue(result, 0, 0), user) != 0)
            fault = strdup(PQresultErrorMessage(result));
        PQclear(result);
        for (int rest = 0; rest < 4; rest++)
            PQclear(PQgetResult(mine));
    }
    PQfinish(mine);
    return fault;
}

static void step_pool(void) {
    pthread_t threads[16];
    for (long n = 0; n < 16; n++)
        pthread_create(&threads[n], NULL, works, (void *)n);
    void *fault = NULL, *found;
    for (int n = 0; n < 16; n++) {
        pthread_join(threads[n], &found);
        fault = fault != NULL ? fault : found;
    }
    if (fault != NULL)
        wrong("%s", (char *)fault);
}

static const struct {
    const char *name;
    void (*step)(void);
} STEPS[] = {
    {"connect", step_connect}, {"create", step_create}, {"read", step_read}, {"update", step_update}, {"delete", step_delete},
    {"scatter", step_scatter}, {"prepared", step_prepared}, {"commit", step_commit}, {"rollback", step_rollback},
    {"savepoint", step_savepoint}, {"batch", step_batch}, {"batch_error", step_batch_error}, {"copy_in", step_copy_in},
    {"copy_out", step_copy_out}, {"cursor", step_cursor}, {"unique_violation", step_unique_violation},
    {"syntax_error", step_syntax_error}, {"failed_transaction", step_failed_transaction}, {"cancel", step_cancel},
    {"arrays", step_arrays}, {"json", step_json}, {"timestamps", step_timestamps}, {"numerics", step_numerics}, {"null", step_null},
    {"bytea", step_bytea}, {"unicode", step_unicode}, {"pool", step_pool},
};

int main(void) {
    volatile bool failed = false;
    first = atol(getenv("FIRST"));
    for (int i = 0; i < 16; i++)
        users[i] = first + i;
    for (volatile size_t n = 0; n < sizeof STEPS / sizeof STEPS[0]; n++) {
        if (setjmp(out) == 0) {
            if (conn == NULL)
                open_connection();
            STEPS[n].step();
            printf("ok %s\n", STEPS[n].name);
        } else {
            failed = true;
            for (char *c = why; *c != '\0'; c++)
                *c = *c == '\n' ? ' ' : *c;
            printf("fail %s: %s\n", STEPS[n].name, why);
            PQfinish(conn);
            conn = NULL;
        }
        fflush(stdout);
    }
    PQfinish(conn);
    return failed ? 1 : 0;
}
