// pgjdbc: see steps.txt. It prepares under names after five executions, fetches in parts with portals, cancels with a timeout.

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.math.BigDecimal;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.sql.Array;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.postgresql.PGConnection;
import org.postgresql.PGStatement;
import org.postgresql.copy.CopyIn;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PGobject;
import org.postgresql.util.PSQLException;

final class Jdbc {
    static final long FIRST = Long.parseLong(System.getenv("FIRST"));
    static final long[] USERS = new long[16];
    static final String TEXT = "Grüße 東京 🚀 \\ ' \" $1 %s -- /* {} \\N \t.";
    static final String DATA = "{\"a\": 1, \"b\": [true, null, \"ü'\\\"\\\\\"], \"c\": {\"x\": 1.5}}";
    static final BigDecimal PRICE = new BigDecimal("12345678901234.567891");
    static final BigDecimal BIG = new BigDecimal("1234567890123456789012345678901234567890.0123456789");
    static final String COLUMNS = "numbers, words, data, doc, at, local, day, price, big, ratio, bytes, flag, note";

    static {
        for (int n = 0; n < 16; n++) {
            USERS[n] = FIRST + n;
        }
    }

    interface Step {
        void run(Connection conn) throws Exception;
    }

    static final class Wrong extends RuntimeException {
        private static final long serialVersionUID = 1;

        Wrong(String why) {
            super(why);
        }
    }

    static void same(Object got, Object expected) {
        if (!Objects.deepEquals(got, expected)) {
            throw new Wrong("got " + got + ", expected " + expected);
        }
    }

    interface Does {
        void run() throws SQLException;
    }

    static PSQLException fails(String state, Does does) throws SQLException {
        try {
            does.run();
        } catch (SQLException e) {
            if (!state.equals(e.getSQLState())) {
                throw e;
            }
            return e instanceof PSQLException ? (PSQLException) e : (PSQLException) e.getCause();
        }
        throw new Wrong("no error, where " + state + " was expected");
    }

    static void set(PreparedStatement statement, Object... values) throws SQLException {
        for (int n = 0; n < values.length; n++) {
            statement.setObject(n + 1, values[n]);
        }
    }

    static int update(Connection conn, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = conn.prepareStatement(sql)) {
            set(statement, values);
            return statement.executeUpdate();
        }
    }

    /** The first column of all rows. */
    static List<Object> column(Connection conn, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = conn.prepareStatement(sql)) {
            set(statement, values);
            try (ResultSet rows = statement.executeQuery()) {
                List<Object> found = new ArrayList<>();
                while (rows.next()) {
                    found.add(rows.getObject(1));
                }
                return found;
            }
        }
    }

    static Object value(Connection conn, String sql, Object... values) throws SQLException {
        List<Object> found = column(conn, sql, values);
        same(found.size(), 1);
        return found.get(0);
    }

    static List<Object> list(Object... values) {
        return Arrays.asList(values);
    }

    static Long[] users(int from, int to) {
        return Arrays.stream(USERS, from, to).boxed().toArray(Long[]::new);
    }

    static long count(Connection conn, String caption) throws SQLException {
        String sql = "SELECT count(*) FROM photos WHERE user_id = ANY (?) AND caption = ?";
        return (long) value(conn, sql, conn.createArrayOf("bigint", users(0, 16)), caption);
    }

    static void connect(Connection conn) throws SQLException {
        System.out.println("version " + conn.getMetaData().getDriverVersion());
        same(conn.getMetaData().getDatabaseMajorVersion() >= 13, true);
        same(value(conn, "SHOW client_encoding"), "UTF8");
        for (long user : USERS) {
            update(conn, "DELETE FROM things WHERE user_id = ?", user);
            update(conn, "DELETE FROM photos WHERE user_id = ?", user);
            update(conn, "DELETE FROM users WHERE id = ?", user);
        }
    }

    static void create(Connection conn) throws SQLException {
        for (long user : USERS) {
            same(update(conn, "INSERT INTO users (id, name) VALUES (?, ?)", user, "user " + user), 1);
            String sql = "INSERT INTO photos (user_id, caption) VALUES (?, ?)";
            // Adds RETURNING.
            try (PreparedStatement statement = conn.prepareStatement(sql, new String[] {"id", "caption"})) {
                set(statement, user, "first");
                same(statement.executeUpdate(), 1);
                ResultSet keys = statement.getGeneratedKeys();
                same(keys.next() && keys.getLong("id") > 0, true);
                same(keys.getString("caption"), "first");
            }
        }
    }

    static void read(Connection conn) throws SQLException {
        for (long user : USERS) {
            same(value(conn, "SELECT name FROM users WHERE id = ?", user), "user " + user);
            Object photo = value(conn, "SELECT id FROM photos WHERE user_id = ?", user);
            same(value(conn, "SELECT user_id FROM photos WHERE id = ?", photo), user);
        }
        same(column(conn, "SELECT id FROM users WHERE id IN (?, ?) ORDER BY id", USERS[0], USERS[5]), list(USERS[0], USERS[5]));
        String joined = "SELECT u.name || '/' || p.caption FROM users u JOIN photos p ON p.user_id = u.id WHERE u.id = ?";
        same(value(conn, joined, USERS[3]), "user " + USERS[3] + "/first");
        same(column(conn, "SELECT name FROM users WHERE id = ?", FIRST + 999), list());
    }

    static void update(Connection conn) throws SQLException {
        for (long user : USERS) {
            same(update(conn, "UPDATE photos SET caption = ? WHERE user_id = ?", "updated", user), 1);
        }
        String some = "UPDATE photos SET caption = 'updated' WHERE user_id = ANY (?)";
        same(update(conn, some, conn.createArrayOf("bigint", users(0, 4))), 4);
    }

    static void delete(Connection conn) throws SQLException {
        update(conn, "INSERT INTO photos (user_id, caption) VALUES (?, 'gone')", USERS[2]);
        same(update(conn, "DELETE FROM photos WHERE user_id = ? AND caption = 'gone'", USERS[2]), 1);
        same(update(conn, "DELETE FROM photos WHERE user_id = ? AND caption = 'gone'", USERS[2]), 0);
    }

    static void scatter(Connection conn) throws SQLException {
        same(value(conn, "SELECT count(*) FROM photos WHERE user_id BETWEEN ? AND ?", USERS[0], USERS[15]), 16L);
        String last = "SELECT id FROM users WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 10";
        List<Object> found = column(conn, last, USERS[0], USERS[15]);
        same(found.size() == 10 && found.get(0).equals(USERS[15]) && found.get(9).equals(USERS[6]), true);
    }

    static void prepared(Connection conn) throws SQLException {
        String sql = "SELECT name, (SELECT count(*) FROM photos WHERE user_id = ?) FROM users WHERE id = ?";
        try (PreparedStatement byUser = conn.prepareStatement(sql);
                PreparedStatement rename = conn.prepareStatement("UPDATE users SET name = ? WHERE id = ?")) {
            same(byUser.getParameterMetaData().getParameterTypeName(1), "int8");
            same(byUser.getMetaData().getColumnCount(), 2);
            for (int turn = 0; turn < 3; turn++) {
                for (long user : USERS) {
                    set(byUser, user, user);
                    ResultSet rows = byUser.executeQuery();
                    same(rows.next() && rows.getString(1).equals("user " + user) && rows.getInt(2) == 1, true);
                    set(rename, "user " + user, user);
                    same(rename.executeUpdate(), 1);
                }
            }
            same(byUser.unwrap(PGStatement.class).isUseServerPrepare(), true);
        }
    }

    static void commit(Connection conn) throws SQLException {
        conn.setAutoCommit(false);
        for (int n : new int[] {0, 4, 1}) {
            update(conn, "UPDATE users SET name = 'committed' WHERE id = ?", USERS[n]);
        }
        conn.commit();
        String named = "SELECT count(*) FROM users WHERE name = 'committed' AND id = ANY (?)";
        same(value(conn, named, conn.createArrayOf("bigint", users(0, 16))), 3L);
        conn.commit();
        conn.setReadOnly(true);
        fails("25006", () -> update(conn, "UPDATE users SET name = 'never' WHERE id = ?", USERS[4]));
        conn.rollback();
        conn.setReadOnly(false);
        conn.setAutoCommit(true);
        // By SET SESSION CHARACTERISTICS.
        conn.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        conn.setAutoCommit(false);
        same(value(conn, "SELECT name FROM users WHERE id = ?", USERS[4]), "committed");
        same(value(conn, "SHOW transaction_isolation"), "serializable");
        conn.commit();
        conn.setAutoCommit(true);
        conn.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
        same(value(conn, "SHOW transaction_isolation"), "read committed");
    }

    static void rollback(Connection conn) throws SQLException {
        conn.setAutoCommit(false);
        for (int n : new int[] {0, 4}) {
            update(conn, "UPDATE users SET name = 'never' WHERE id = ?", USERS[n]);
        }
        conn.rollback();
        String named = "SELECT count(*) FROM users WHERE name = 'never' AND id = ANY (?)";
        same(value(conn, named, conn.createArrayOf("bigint", users(0, 16))), 0L);
        conn.setAutoCommit(true);
    }

    static void savepoint(Connection conn) throws SQLException {
        conn.setAutoCommit(false);
        for (int n = 4; n < 6; n++) {
            long user = USERS[n];
            update(conn, "INSERT INTO photos (user_id, caption) VALUES (?, 'before')", user);
            Savepoint one = conn.setSavepoint();
            update(conn, "INSERT INTO photos (user_id, caption) VALUES (?, 'undone')", user);
            fails("23505", () -> update(conn, "INSERT INTO users (id, name) VALUES (?, 'twice')", user));
            conn.rollback(one);
            conn.releaseSavepoint(one);
            conn.releaseSavepoint(conn.setSavepoint("it's \"named\""));
        }
        conn.commit();
        same(column(conn, "SELECT caption FROM photos WHERE user_id = ? ORDER BY id", USERS[4]), list("updated", "before"));
        conn.setAutoCommit(true);
    }

    static void batch(Connection conn) throws SQLException {
        try (PreparedStatement insert = conn.prepareStatement("INSERT INTO photos (user_id, caption) VALUES (?, ?)")) {
            for (int n = 0; n < 3; n++) {
                for (long user : USERS) {
                    set(insert, user, "batch " + n);
                    insert.addBatch();
                }
            }
            int[] each = new int[48];
            Arrays.fill(each, 1);
            same(insert.executeBatch(), each);
        }
        conn.setAutoCommit(false);
        try (Statement many = conn.createStatement()) {
            for (long user : USERS) {
                many.addBatch("UPDATE photos SET caption = 'many' WHERE caption = 'batch 2' AND user_id = " + user);
            }
            same(many.executeBatch().length, 16);
        }
        conn.commit();
        conn.setAutoCommit(true);
        same(count(conn, "many"), 16L);
        // Rewritten to INSERTs of many rows.
        try (Connection rewriting = open("&reWriteBatchedInserts=true");
                PreparedStatement insert = rewriting.prepareStatement("INSERT INTO photos (user_id, caption) VALUES (?, ?)")) {
            for (long user : USERS) {
                set(insert, user, "rewritten");
                insert.addBatch();
            }
            same(insert.executeBatch().length, 16);
            same(count(rewriting, "rewritten"), 16L);
        }
    }

    static void batchError(Connection conn) throws SQLException {
        conn.setAutoCommit(false);
        try (PreparedStatement insert = conn.prepareStatement("INSERT INTO things (user_id, id) VALUES (?, 5)")) {
            for (int n : new int[] {0, 4, 0}) {
                set(insert, USERS[n]);
                insert.addBatch();
            }
            try {
                insert.executeBatch();
                throw new Wrong("no error");
            } catch (BatchUpdateException e) {
                same(e.getSQLState(), "23505");
            }
        }
        conn.rollback();
        conn.setAutoCommit(true);
        String five = "SELECT count(*) FROM things WHERE id = 5 AND user_id = ANY (?)";
        same(value(conn, five, conn.createArrayOf("bigint", users(0, 16))), 0L);
    }

    static void copyIn(Connection conn) throws Exception {
        CopyManager copies = conn.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder photos = new StringBuilder();
        StringBuilder things = new StringBuilder();
        for (long user : USERS) {
            photos.append(user).append("\tcopied \\t\\\\ ü🚀\n");
            things.append(user).append(",30,\n");
        }
        same(copies.copyIn("COPY photos (user_id, caption) FROM STDIN", new StringReader(photos.toString())), 16L);
        byte[] csv = things.toString().getBytes(StandardCharsets.UTF_8);
        same(copies.copyIn("COPY things (user_id, id, note) FROM STDIN (FORMAT csv)", new ByteArrayInputStream(csv)), 16L);
        same(count(conn, "copied \t\\ ü🚀"), 16L);
        CopyIn broken = copies.copyIn("COPY photos (user_id, caption) FROM STDIN");
        byte[] lost = (USERS[0] + "\tlost\n").getBytes(StandardCharsets.UTF_8);
        broken.writeToCopy(lost, 0, lost.length);
        broken.cancelCopy();
        same(count(conn, "lost"), 0L);
    }

    static void copyOut(Connection conn) throws Exception {
        CopyManager copies = conn.unwrap(PGConnection.class).getCopyAPI();
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        copies.copyOut("COPY (SELECT name, NULL FROM users WHERE id = " + USERS[9] + ") TO STDOUT", out);
        same(out.toString(StandardCharsets.UTF_8), "user " + USERS[9] + "\t\\N\n");
        out.reset();
        copies.copyOut("COPY (SELECT id FROM users WHERE id BETWEEN " + USERS[0] + " AND " + USERS[15] + ") TO STDOUT", out);
        String[] ids = out.toString(StandardCharsets.UTF_8).split("\n");
        Arrays.sort(ids);
        same(ids, Arrays.stream(USERS).mapToObj(Long::toString).toArray());
    }

    static void cursor(Connection conn) throws SQLException {
        conn.setAutoCommit(false);
        try (PreparedStatement mine = conn.prepareStatement("SELECT caption FROM photos WHERE user_id = ? ORDER BY id")) {
            mine.setFetchSize(2);
            set(mine, USERS[0]);
            ResultSet rows = mine.executeQuery();
            int n = 0;
            while (rows.next()) {
                n++;
                // Another statement between the parts.
                same(value(conn, "SELECT id FROM users WHERE id = ?", USERS[n]), USERS[n]);
            }
            same(n, 6);
        }
        try (PreparedStatement all = conn.prepareStatement("SELECT id FROM users WHERE id BETWEEN ? AND ? ORDER BY id")) {
            all.setFetchSize(5);
            set(all, USERS[0], USERS[15]);
            ResultSet rows = all.executeQuery();
            for (long user : USERS) {
                same(rows.next() && rows.getLong(1) == user, true);
            }
            same(rows.next(), false);
            all.setFetchSize(0);
            all.setMaxRows(3);
            rows = all.executeQuery();
            same(rows.next() && rows.next() && rows.next() && !rows.next(), true);
        }
        conn.commit();
        conn.setAutoCommit(true);
    }

    static void uniqueViolation(Connection conn) throws SQLException {
        PSQLException e = fails("23505", () -> update(conn, "INSERT INTO users (id, name) VALUES (?, 'twice')", USERS[6]));
        same(e.getServerErrorMessage().getTable(), "users");
        same(e.getServerErrorMessage().getConstraint(), "users_pkey");
        same(value(conn, "SELECT name FROM users WHERE id = ?", USERS[6]), "user " + USERS[6]);
    }

    static void syntaxError(Connection conn) throws SQLException {
        fails("42601", () -> column(conn, "SELEC 1"));
        fails("42601", () -> column(conn, "SELECT name FRM users WHERE id = ?", USERS[0]));
        fails("42703", () -> column(conn, "SELECT nothing FROM users WHERE id = ?", USERS[0]));
        same(value(conn, "SELECT 1"), 1);
    }

    static void failedTransaction(Connection conn) throws SQLException {
        conn.setAutoCommit(false);
        update(conn, "INSERT INTO photos (user_id, caption) VALUES (?, 'lost')", USERS[0]);
        fails("22012", () -> column(conn, "SELECT 1 / (id - id) FROM users WHERE id = ?", USERS[0]));
        fails("25P02", () -> column(conn, "SELECT 1"));
        conn.rollback();
        conn.setAutoCommit(true);
        same(count(conn, "lost"), 0L);
    }

    static void cancel(Connection conn) throws Exception {
        for (String sql : new String[] {"SELECT pg_sleep(60)", "SELECT pg_sleep(60) FROM users WHERE id = " + USERS[0]}) {
            try (Statement statement = conn.createStatement()) {
                statement.setQueryTimeout(1);
                fails("57014", () -> statement.execute(sql));
            }
            try (Statement statement = conn.createStatement()) {
                Thread canceller = new Thread(() -> {
                    try {
                        while (true) {
                            Thread.sleep(100);
                            statement.cancel();
                        }
                    } catch (InterruptedException | SQLException e) {
                        // It is over.
                    }
                });
                canceller.start();
                fails("57014", () -> statement.execute(sql));
                canceller.interrupt();
                canceller.join();
            }
        }
        same(value(conn, "SELECT 1"), 1);
    }

    static void put(Connection conn, int number, String column, Object... values) throws SQLException {
        for (int u = 0; u < 8; u++) {
            for (int n = 0; n < values.length; n++) {
                update(conn, "INSERT INTO things (user_id, id, " + column + ") VALUES (?, ?, ?)", USERS[u], number + n, values[n]);
            }
        }
    }

    interface Reads {
        Object from(ResultSet row) throws SQLException;
    }

    /** It comes as text at first and in binary once the statement is prepared under a name: both are read. */
    static void got(Connection conn, int number, String column, Object expected, Reads reads) throws SQLException {
        String sql = "SELECT " + column + " FROM things WHERE user_id = ? AND id = ?";
        try (PreparedStatement statement = conn.prepareStatement(sql)) {
            for (int u = 0; u < 8; u++) {
                set(statement, USERS[u], number);
                ResultSet rows = statement.executeQuery();
                same(rows.next(), true);
                same(reads.from(rows), expected);
                same(rows.next(), false);
            }
        }
    }

    static void arrays(Connection conn) throws SQLException {
        Integer[] numbers = {1, null, -3, 2147483647};
        String[] words = {"a", "b c", "quo\"te", "", null, "NULL", "ünï,{}\\"};
        put(conn, 100, "numbers", conn.createArrayOf("int4", numbers), conn.createArrayOf("int4", new Integer[0]));
        put(conn, 110, "words", conn.createArrayOf("text", words));
        Reads array = row -> {
            Array it = row.getArray(1);
            return it.getArray();
        };
        got(conn, 100, "numbers", numbers, array);
        got(conn, 101, "numbers", new Integer[0], array);
        got(conn, 110, "words", words, array);
        Array some = conn.createArrayOf("bigint", users(3, 9));
        same(column(conn, "SELECT id FROM users WHERE id = ANY (?) ORDER BY id", some), list((Object[]) users(3, 9)));
        same(value(conn, "SELECT id FROM things WHERE user_id = ? AND ? = ANY (words)", USERS[1], "b c"), 110);
    }

    static void json(Connection conn) throws SQLException {
        PGobject json = new PGobject();
        json.setType("jsonb");
        json.setValue(DATA);
        put(conn, 200, "data", json);
        json.setType("json");
        put(conn, 201, "doc", json);
        got(conn, 200, "data", DATA, row -> row.getString(1));
        got(conn, 201, "doc", DATA, row -> row.getString(1));
        for (int u = 0; u < 8; u++) {
            same(value(conn, "SELECT id FROM things WHERE user_id = ? AND data ->> 'a' = ? AND data ?? 'c'", USERS[u], "1"), 200);
        }
    }

    static void timestamps(Connection conn) throws SQLException {
        OffsetDateTime at = OffsetDateTime.parse("2024-02-29T12:34:56.789012Z");
        LocalDateTime local = LocalDateTime.parse("2024-12-31T23:59:59.999999");
        put(conn, 300, "at", at);
        put(conn, 301, "local", local);
        put(conn, 302, "day", LocalDate.parse("1999-12-31"), Date.valueOf("1999-12-31"));
        got(conn, 300, "at", at, row -> row.getObject(1, OffsetDateTime.class));
        got(conn, 301, "local", local, row -> row.getObject(1, LocalDateTime.class));
        got(conn, 302, "day", LocalDate.parse("1999-12-31"), row -> row.getObject(1, LocalDate.class));
        try (Statement statement = conn.createStatement()) {
            statement.execute("SET TIME ZONE 'Asia/Kathmandu'");
            got(conn, 300, "at::text", "2024-02-29 18:19:56.789012+05:45", row -> row.getString(1));
            statement.execute("RESET TIME ZONE");
        }
    }

    static void numerics(Connection conn) throws SQLException {
        put(conn, 400, "price", PRICE, PRICE.negate());
        put(conn, 410, "big", BIG);
        put(conn, 420, "ratio", Double.POSITIVE_INFINITY, Double.NaN, 0.1);
        got(conn, 401, "price", PRICE.negate(), row -> row.getBigDecimal(1));
        got(conn, 410, "big", BIG, row -> row.getBigDecimal(1));
        got(conn, 420, "ratio", Double.POSITIVE_INFINITY, row -> row.getDouble(1));
        got(conn, 421, "ratio", Double.NaN, row -> row.getDouble(1));
        got(conn, 422, "ratio", 0.1, row -> row.getDouble(1));
        String total = "SELECT sum(price) FROM things WHERE user_id BETWEEN ? AND ? AND id = 400";
        same(value(conn, total, USERS[0], USERS[15]), PRICE.multiply(new BigDecimal(8)));
    }

    static void nulls(Connection conn) throws SQLException {
        String places = ", ?".repeat(13);
        for (int u = 0; u < 8; u++) {
            try (PreparedStatement insert =
                    conn.prepareStatement("INSERT INTO things (user_id, id, " + COLUMNS + ") VALUES (?, 500" + places + ")")) {
                insert.setLong(1, USERS[u]);
                for (int n = 2; n < 15; n++) {
                    insert.setNull(n, Types.NULL);
                }
                insert.executeUpdate();
            }
            try (PreparedStatement select = conn.prepareStatement("SELECT " + COLUMNS + " FROM things WHERE user_id = ? AND id = 500")) {
                set(select, USERS[u]);
                ResultSet rows = select.executeQuery();
                same(rows.next(), true);
                for (int n = 1; n < 14; n++) {
                    same(rows.getObject(n), null);
                    same(rows.wasNull(), true);
                }
            }
        }
        same(value(conn, "SELECT id FROM things WHERE user_id = ? AND id >= 500 AND note IS NULL", USERS[5]), 500);
    }

    static void bytea(Connection conn) throws SQLException {
        byte[] bytes = new byte[256];
        byte[] many = new byte[102400];
        for (int n = 0; n < many.length; n++) {
            many[n] = (byte) n;
            bytes[n % 256] = (byte) n;
        }
        put(conn, 600, "bytes", bytes, new byte[0], many);
        got(conn, 600, "bytes", bytes, row -> row.getBytes(1));
        got(conn, 601, "bytes", new byte[0], row -> row.getBytes(1));
        got(conn, 602, "bytes", many, row -> row.getBytes(1));
    }

    static void unicode(Connection conn) throws SQLException {
        put(conn, 700, "note", TEXT);
        got(conn, 700, "note", TEXT, row -> row.getString(1));
        got(conn, 700, "length(note)", TEXT.codePointCount(0, TEXT.length()), row -> row.getInt(1));
        same(value(conn, "SELECT id FROM things WHERE user_id = ? AND note = ?", USERS[0], TEXT), 700);
        same(value(conn, "SELECT '東🚀''' FROM things WHERE user_id = " + USERS[0] + " AND note LIKE '%🚀%'"), "東🚀'");
    }

    /** It has no pool of its own; what pools do between two users of a connection is done here. */
    static void pool(Connection unused) throws Exception {
        List<Thread> threads = new ArrayList<>();
        List<Throwable> faults = new ArrayList<>();
        for (int n = 0; n < 16; n++) {
            int number = n;
            threads.add(new Thread(() -> {
                try (Connection conn = open("&ApplicationName=pool")) {
                    for (int turn = 0; turn < 12; turn++) {
                        long user = USERS[(number + turn) % 16];
                        same(conn.isValid(5), true);
                        conn.setAutoCommit(turn % 2 == 0);
                        same(value(conn, "SELECT id FROM users WHERE id = ?", user), user);
                        same(value(conn, "SHOW application_name"), "pool");
                        if (turn % 2 == 1) {
                            update(conn, "UPDATE users SET name = 'never' WHERE id = ?", user);
                            conn.rollback();
                        }
                    }
                } catch (Throwable e) {
                    synchronized (faults) {
                        faults.add(e);
                    }
                }
            }));
        }
        for (Thread thread : threads) {
            thread.start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        if (!faults.isEmpty()) {
            throw new Exception(faults.get(0));
        }
    }

    /** Every way to send: simple, extended without names, names from the first on. */
    static void modes(Connection unused) throws SQLException {
        for (String mode : new String[] {"preferQueryMode=simple", "preferQueryMode=extended", "preferQueryMode=extendedCacheEverything", "prepareThreshold=1", "prepareThreshold=-1",
            "autosave=always", "targetServerType=primary", "defaultRowFetchSize=3", "options=-c%20statement_timeout=9s"}) {
            try (Connection conn = open("&" + mode)) {
                for (int turn = 0; turn < 3; turn++) {
                    for (long user : USERS) {
                        same(value(conn, "SELECT id FROM users WHERE id = ?", user), user);
                    }
                }
                conn.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
                same(conn.getTransactionIsolation(), Connection.TRANSACTION_READ_COMMITTED);
            }
        }
    }

    static void metadata(Connection conn) throws SQLException {
        List<String> columns = new ArrayList<>();
        // Without the schema it would list those of every shard of the host that answers.
        try (ResultSet rows = conn.getMetaData().getColumns(null, conn.getSchema(), "photos", null)) {
            while (rows.next()) {
                columns.add(rows.getString("COLUMN_NAME"));
            }
        }
        same(columns, Arrays.asList("id", "user_id", "caption", "created_at"));
        try (ResultSet keys = conn.getMetaData().getPrimaryKeys(null, conn.getSchema(), "things")) {
            same(keys.next() && keys.getString("COLUMN_NAME").equals("user_id"), true);
        }
    }
    static Connection open(String options) throws SQLException {
        URI url = URI.create(System.getenv("DATABASE_URL"));
        String[] login = url.getUserInfo().split(":", 2);
        String jdbc = "jdbc:postgresql://" + url.getHost() + ":" + url.getPort() + url.getPath();
        return DriverManager.getConnection(jdbc + "?user=" + login[0] + "&password=" + (login.length > 1 ? login[1] : "") + options);
    }

    public static void main(String[] arguments) throws SQLException {
        Map<String, Step> steps = new LinkedHashMap<>();
        steps.put("connect", Jdbc::connect);
        steps.put("create", Jdbc::create);
        steps.put("read", Jdbc::read);
        steps.put("update", Jdbc::update);
        steps.put("delete", Jdbc::delete);
        steps.put("scatter", Jdbc::scatter);
        steps.put("prepared", Jdbc::prepared);
        steps.put("commit", Jdbc::commit);
        steps.put("rollback", Jdbc::rollback);
        steps.put("savepoint", Jdbc::savepoint);
        steps.put("batch", Jdbc::batch);
        steps.put("batch_error", Jdbc::batchError);
        steps.put("copy_in", Jdbc::copyIn);
        steps.put("copy_out", Jdbc::copyOut);
        steps.put("cursor", Jdbc::cursor);
        steps.put("unique_violation", Jdbc::uniqueViolation);
        steps.put("syntax_error", Jdbc::syntaxError);
        steps.put("failed_transaction", Jdbc::failedTransaction);
        steps.put("cancel", Jdbc::cancel);
        steps.put("arrays", Jdbc::arrays);
        steps.put("json", Jdbc::json);
        steps.put("timestamps", Jdbc::timestamps);
        steps.put("numerics", Jdbc::numerics);
        steps.put("null", Jdbc::nulls);
        steps.put("bytea", Jdbc::bytea);
        steps.put("unicode", Jdbc::unicode);
        steps.put("pool", Jdbc::pool);
        steps.put("also query modes", Jdbc::modes);
        steps.put("also metadata", Jdbc::metadata);
        boolean failed = false;
        Connection conn = null;
        for (Map.Entry<String, Step> step : steps.entrySet()) {
            try {
                if (conn == null) {
                    conn = open("");
                }
                step.getValue().run(conn);
                System.out.println("ok " + step.getKey());
            } catch (Exception e) {
                failed = true;
                String state = e instanceof SQLException ? ((SQLException) e).getSQLState() + " " : "";
                System.out.println("fail " + step.getKey() + ": " + state + String.valueOf(e.getMessage()).replaceAll("\\s+", " "));
                e.printStackTrace();
                if (conn != null) {
                    conn.close();
                }
                conn = null;
            }
        }
        if (conn != null) {
            conn.close();
        }
        System.exit(failed ? 1 : 0);
    }
}
