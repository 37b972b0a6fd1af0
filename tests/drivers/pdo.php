<?php
// PHP's PDO: see steps.txt. It prepares under names (pdo_stmt_00000001 ...) and drops them with DEALLOCATE, or without names, or
// emulates; parameters and results are text.

const TEXT = "Grüße 東京 🚀 \\ ' \" $1 %s -- /* {} \\N \t.";
const DATA = '{"a": 1, "b": [true, null, "ü\'\\"\\\\"], "c": {"x": 1.5}}';
const PRICE = '12345678901234.567891';
const BIG = '1234567890123456789012345678901234567890.0123456789';
const COLUMNS = 'numbers, words, data, doc, at, local, day, price, big, ratio, bytes, flag, note';
define('FIRST', (int) getenv('FIRST'));
define('USERS', range(FIRST, FIRST + 15));

class Missing extends Exception
{
}

function same($got, $expected): void
{
    if ($got !== $expected) {
        throw new Exception('got ' . var_export($got, true) . ', expected ' . var_export($expected, true));
    }
}

function open(array $options = []): PDO
{
    $url = parse_url(getenv('DATABASE_URL'));
    $dsn = "pgsql:host={$url['host']};port={$url['port']};dbname=" . substr($url['path'], 1);
    $options += [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION, PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_NUM];
    return new PDO($dsn, $url['user'], $url['pass'] ?? null, $options);
}

function run(PDO $db, string $sql, ...$values): PDOStatement
{
    $statement = $db->prepare($sql);
    $statement->execute($values);
    return $statement;
}

function rows(PDO $db, string $sql, ...$values): array
{
    return run($db, $sql, ...$values)->fetchAll();
}

function value(PDO $db, string $sql, ...$values)
{
    $rows = rows($db, $sql, ...$values);
    same([count($rows), count($rows[0])], [1, 1]);
    return $rows[0][0];
}

function fails(string $code, callable $does): PDOException
{
    try {
        $does();
    } catch (PDOException $e) {
        if ($e->errorInfo[0] !== $code) {
            throw $e;
        }
        return $e;
    }
    throw new Exception("no error, where $code was expected");
}

function all_users(): string
{
    return '{' . implode(',', USERS) . '}';
}

function captions(PDO $db, string $caption): int
{
    return value($db, 'SELECT count(*) FROM photos WHERE user_id = ANY (?) AND caption = ?', all_users(), $caption);
}

function put(PDO $db, int $number, string $column, ...$values): void
{
    foreach (array_slice(USERS, 0, 8) as $user) {
        foreach ($values as $n => $value) {
            same(run($db, "INSERT INTO things (user_id, id, $column) VALUES (?, ?, ?)", $user, $number + $n, $value)->rowCount(), 1);
        }
    }
}

function got(PDO $db, int $number, string $columns, $expected): void
{
    foreach (array_slice(USERS, 0, 8) as $user) {
        same(value($db, "SELECT $columns FROM things WHERE user_id = ? AND id = ?", $user, $number), $expected);
    }
}

$steps = [
    'connect' => function (PDO $db) {
        echo 'version ', phpversion('pdo_pgsql'), ', ', $db->getAttribute(PDO::ATTR_CLIENT_VERSION), "\n";
        same((int) $db->getAttribute(PDO::ATTR_SERVER_VERSION) >= 13, true);
        same(value($db, 'SHOW client_encoding'), 'UTF8');
        foreach (USERS as $user) {
            run($db, 'DELETE FROM things WHERE user_id = ?', $user);
            run($db, 'DELETE FROM photos WHERE user_id = ?', $user);
            run($db, 'DELETE FROM users WHERE id = ?', $user);
        }
    },

    'create' => function (PDO $db) {
        foreach (USERS as $user) {
            same(run($db, 'INSERT INTO users (id, name) VALUES (:id, :name)', $user, "user $user")->rowCount(), 1);
            [[$photo, $caption]] = rows($db, 'INSERT INTO photos (user_id, caption) VALUES (?, ?) RETURNING id, caption', $user, 'first');
            same([is_int($photo), $caption], [true, 'first']);
        }
    },

    'read' => function (PDO $db) {
        foreach (USERS as $user) {
            same(value($db, 'SELECT name FROM users WHERE id = ?', $user), "user $user");
            $photo = value($db, 'SELECT id FROM photos WHERE user_id = ?', $user);
            same(value($db, 'SELECT user_id FROM photos WHERE id = ?', $photo), $user);
        }
        same(rows($db, 'SELECT id FROM users WHERE id IN (?, ?) ORDER BY id', USERS[0], USERS[5]), [[USERS[0]], [USERS[5]]]);
        $joined = 'SELECT u.name, p.caption FROM users u JOIN photos p ON p.user_id = u.id WHERE u.id = ?';
        same(rows($db, $joined, USERS[3]), [['user ' . USERS[3], 'first']]);
        same(rows($db, 'SELECT name FROM users WHERE id = ?', FIRST + 999), []);
    },

    'update' => function (PDO $db) {
        foreach (USERS as $user) {
            same(run($db, 'UPDATE photos SET caption = ? WHERE user_id = ?', 'updated', $user)->rowCount(), 1);
        }
        $some = '{' . implode(',', array_slice(USERS, 0, 4)) . '}';
        same(run($db, "UPDATE photos SET caption = 'updated' WHERE user_id = ANY (?)", $some)->rowCount(), 4);
    },

    'delete' => function (PDO $db) {
        run($db, "INSERT INTO photos (user_id, caption) VALUES (?, 'gone')", USERS[2]);
        same(run($db, "DELETE FROM photos WHERE user_id = ? AND caption = 'gone'", USERS[2])->rowCount(), 1);
        same($db->exec("DELETE FROM photos WHERE user_id = " . USERS[2] . " AND caption = 'gone'"), 0);
    },

    'scatter' => function (PDO $db) {
        same(value($db, 'SELECT count(*) FROM photos WHERE user_id BETWEEN ? AND ?', USERS[0], USERS[15]), 16);
        $last = run($db, 'SELECT id FROM users WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 10', USERS[0], USERS[15]);
        same($last->fetchAll(PDO::FETCH_COLUMN), array_reverse(array_slice(USERS, 6)));
    },

    'prepared' => function (PDO $db) {
        $by = $db->prepare('SELECT name, (SELECT count(*) FROM photos WHERE user_id = :user) FROM users WHERE id = :user');
        $rename = $db->prepare('UPDATE users SET name = ? WHERE id = ?');
        foreach ([1, 2, 3] as $turn) {
            foreach (USERS as $user) {
                $by->execute(['user' => $user]);
                same($by->fetchAll(), [["user $user", 1]]);
                $rename->bindValue(1, "user $user");
                $rename->bindValue(2, $user, PDO::PARAM_INT);
                $rename->execute();
                same($rename->rowCount(), 1);
            }
        }
    },

    'commit' => function (PDO $db) {
        $db->beginTransaction();
        foreach ([0, 4, 1] as $n) {
            run($db, "UPDATE users SET name = 'committed' WHERE id = ?", USERS[$n]);
        }
        same($db->inTransaction(), true);
        $db->commit();
        same(value($db, "SELECT count(*) FROM users WHERE name = 'committed' AND id = ANY (?)", all_users()), 3);
    },

    'rollback' => function (PDO $db) {
        $db->beginTransaction();
        foreach ([0, 4] as $n) {
            run($db, "UPDATE users SET name = 'never' WHERE id = ?", USERS[$n]);
        }
        $db->rollBack();
        same(value($db, "SELECT count(*) FROM users WHERE name = 'never' AND id = ANY (?)", all_users()), 0);
    },

    'savepoint' => function (PDO $db) {
        $db->beginTransaction();
        foreach ([4, 5] as $n) {
            run($db, "INSERT INTO photos (user_id, caption) VALUES (?, 'before')", USERS[$n]);
            $db->exec('SAVEPOINT one');
            run($db, "INSERT INTO photos (user_id, caption) VALUES (?, 'undone')", USERS[$n]);
            fails('23505', fn() => run($db, "INSERT INTO users (id, name) VALUES (?, 'twice')", USERS[$n]));
            $db->exec('ROLLBACK TO SAVEPOINT one');
            $db->exec('RELEASE SAVEPOINT one');
        }
        $db->commit();
        same(rows($db, 'SELECT caption FROM photos WHERE user_id = ? ORDER BY id', USERS[4]), [['updated'], ['before']]);
    },

    // Several statements in one text, and rows of many users in one statement.
    'batch' => function (PDO $db) {
        $insert = fn($user) => "INSERT INTO photos (user_id, caption) VALUES ($user, 'batch')";
        $db->exec(implode(';', array_map($insert, USERS)));
        $places = implode(', ', array_fill(0, 16, "(?, 'many')"));
        $made = run($db, "INSERT INTO photos (user_id, caption) VALUES $places RETURNING user_id", ...USERS);
        same($made->fetchAll(PDO::FETCH_COLUMN), USERS);
        same(captions($db, 'many'), 16);
    },

    'batch_error' => function (PDO $db) {
        $insert = fn($n) => 'INSERT INTO things (user_id, id) VALUES (' . USERS[$n] . ', 5)';
        fails('23505', fn() => $db->exec(implode(';', array_map($insert, [0, 4, 0]))));
        same(value($db, 'SELECT count(*) FROM things WHERE id = 5 AND user_id = ANY (?)', all_users()), 0);
    },

    'copy_in' => function (PDO $db) {
        $photos = array_map(fn($user) => "$user\tcopied \\t\\\\ ü🚀", USERS);
        same($db->pgsqlCopyFromArray('photos', $photos, "\t", '\\\\N', 'user_id, caption'), true);
        $file = tempnam(sys_get_temp_dir(), 'pdo');
        file_put_contents($file, implode('', array_map(fn($user) => "$user,30,\\N\n", USERS)));
        same($db->pgsqlCopyFromFile('things', $file, ',', '\\\\N', 'user_id, id, note'), true);
        unlink($file);
        same(captions($db, "copied \t\\ ü🚀"), 16);
        same(value($db, 'SELECT note FROM things WHERE user_id = ? AND id = 30', USERS[9]), null);
        fails('22P02', fn() => $db->pgsqlCopyFromArray('photos', [USERS[0] . "\tlost", "no number\tlost"], "\t", '\\\\N', 'user_id, caption'));
        same(captions($db, 'lost'), 0);
    },

    // A whole table, as it has no other.
    'copy_out' => function (PDO $db) {
        $mine = array_filter($db->pgsqlCopyToArray('users', "\t", '\\\\N', 'id, name'), fn($line) => in_array((int) $line, USERS, true));
        same(count($mine), 16);
        same(in_array(USERS[9] . "\tuser " . USERS[9] . "\n", $mine, true), true);
    },

    'cursor' => function (PDO $db) {
        $db->beginTransaction();
        $far = $db->prepare('SELECT caption FROM photos WHERE user_id = ? ORDER BY id', [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
        $far->execute([USERS[0]]);
        same($far->fetch(), ['updated']);
        same($far->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_LAST), ["copied \t\\ ü🚀"]);
        same($far->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_ABS, 2), ['batch']);
        same($far->fetch(), ['many']);
        $far->closeCursor();
        $db->commit();
    },

    'unique_violation' => function (PDO $db) {
        $e = fails('23505', fn() => run($db, "INSERT INTO users (id, name) VALUES (?, 'twice')", USERS[6]));
        same(str_contains($e->getMessage(), '"users_pkey"'), true);
        same(value($db, 'SELECT name FROM users WHERE id = ?', USERS[6]), 'user ' . USERS[6]);
    },

    'syntax_error' => function (PDO $db) {
        fails('42601', fn() => run($db, 'SELEC 1'));
        fails('42601', fn() => run($db, 'SELECT name FRM users WHERE id = ?', USERS[0]));
        fails('42703', fn() => run($db, 'SELECT nothing FROM users WHERE id = ?', USERS[0]));
        fails('42601', fn() => $db->exec('SELEC 1'));
        same(value($db, 'SELECT 1'), 1);
    },

    'failed_transaction' => function (PDO $db) {
        $db->beginTransaction();
        run($db, "INSERT INTO photos (user_id, caption) VALUES (?, 'lost')", USERS[0]);
        fails('22012', fn() => run($db, 'SELECT 1 / (id - id) FROM users WHERE id = ?', USERS[0]));
        fails('25P02', fn() => run($db, 'SELECT 1'));
        $db->rollBack();
        same(captions($db, 'lost'), 0);
    },

    // PDO can't cancel; the other extension over the same libpq can.
    'cancel' => function (PDO $db) {
        $url = parse_url(getenv('DATABASE_URL'));
        $login = "host={$url['host']} port={$url['port']} dbname=" . substr($url['path'], 1) . " user={$url['user']} password=" . ($url['pass'] ?? "''");
        $conn = pg_connect($login, PGSQL_CONNECT_FORCE_NEW);
        foreach (['SELECT pg_sleep(60)', 'SELECT pg_sleep(60) FROM users WHERE id = ' . USERS[0]] as $sql) {
            pg_send_query($conn, $sql);
            usleep(200000);
            same(pg_connection_busy($conn), true);
            // Sends the request and takes the results.
            same(pg_cancel_query($conn), true);
            same(pg_fetch_result(pg_query($conn, 'SELECT 1'), 0, 0), '1');
        }
        pg_close($conn);
        $db->exec("SET statement_timeout = '200ms'");
        fails('57014', fn() => run($db, 'SELECT pg_sleep(60) FROM users WHERE id = ?', USERS[1]));
        $db->exec('RESET statement_timeout');
    },

    'arrays' => function (PDO $db) {
        put($db, 100, 'numbers', '{1,NULL,-3,2147483647}', '{}');
        $words = '{a,"b c","quo\\"te","",NULL,"NULL","ünï,{}\\\\"}';
        put($db, 110, 'words', $words);
        got($db, 100, 'numbers', '{1,NULL,-3,2147483647}');
        got($db, 101, 'numbers', '{}');
        got($db, 110, 'words', $words);
        $some = '{' . implode(',', array_slice(USERS, 3, 6)) . '}';
        $found = run($db, 'SELECT id FROM users WHERE id = ANY (?) ORDER BY id', $some);
        same($found->fetchAll(PDO::FETCH_COLUMN), array_slice(USERS, 3, 6));
        same(value($db, 'SELECT id FROM things WHERE user_id = ? AND ? = ANY (words)', USERS[1], 'b c'), 110);
    },

    'json' => function (PDO $db) {
        put($db, 200, 'data', DATA);
        put($db, 201, 'doc', DATA);
        got($db, 200, 'data', DATA);
        got($db, 201, 'doc', DATA);
        foreach (array_slice(USERS, 0, 8) as $user) {
            same(value($db, "SELECT id FROM things WHERE user_id = ? AND data ->> 'a' = ? AND data ?? 'c'", $user, '1'), 200);
        }
    },

    'timestamps' => function (PDO $db) {
        put($db, 300, 'at', '2024-02-29 12:34:56.789012+00');
        put($db, 301, 'local', '2024-12-31 23:59:59.999999');
        put($db, 302, 'day', '1999-12-31');
        $db->exec("SET TIME ZONE 'Asia/Kathmandu'");
        got($db, 300, 'at', '2024-02-29 18:19:56.789012+05:45');
        got($db, 301, 'local', '2024-12-31 23:59:59.999999');
        got($db, 302, 'day', '1999-12-31');
        $db->exec('RESET TIME ZONE');
    },

    'numerics' => function (PDO $db) {
        put($db, 400, 'price', PRICE, '-' . PRICE);
        put($db, 410, 'big', BIG);
        put($db, 420, 'ratio', 'Infinity', 'NaN', 0.1);
        got($db, 401, 'price', '-' . PRICE);
        got($db, 410, 'big', BIG);
        got($db, 420, 'ratio', 'Infinity');
        got($db, 421, 'ratio', 'NaN');
        got($db, 422, 'ratio', '0.1');
        same(value($db, 'SELECT sum(price) FROM things WHERE user_id BETWEEN ? AND ? AND id = 400', USERS[0], USERS[15]), '98765431209876.543128');
    },

    'null' => function (PDO $db) {
        $places = str_repeat(', ?', 13);
        foreach (array_slice(USERS, 0, 8) as $user) {
            run($db, 'INSERT INTO things (user_id, id, ' . COLUMNS . ") VALUES (?, 500$places)", $user, ...array_fill(0, 13, null));
            same(rows($db, 'SELECT ' . COLUMNS . ' FROM things WHERE user_id = ? AND id = 500', $user), [array_fill(0, 13, null)]);
            same(value($db, 'SELECT id FROM things WHERE user_id = ? AND id >= 500 AND note IS NULL', $user), 500);
        }
    },

    'bytea' => function (PDO $db) {
        $bytes = implode('', array_map('chr', range(0, 255)));
        foreach ([$bytes, '', str_repeat($bytes, 400)] as $n => $value) {
            foreach (array_slice(USERS, 0, 8) as $user) {
                $insert = $db->prepare('INSERT INTO things (user_id, id, bytes) VALUES (?, ?, ?)');
                $insert->bindValue(1, $user);
                $insert->bindValue(2, 600 + $n);
                $insert->bindValue(3, $value, PDO::PARAM_LOB);
                $insert->execute();
                same(stream_get_contents(value($db, 'SELECT bytes FROM things WHERE user_id = ? AND id = ?', $user, 600 + $n)), $value);
            }
        }
    },

    'unicode' => function (PDO $db) {
        put($db, 700, 'note', TEXT);
        got($db, 700, 'note', TEXT);
        got($db, 700, 'length(note)', preg_match_all('/./us', TEXT));
        same(value($db, 'SELECT id FROM things WHERE user_id = ? AND note = ?', USERS[0], TEXT), 700);
        same(value($db, "SELECT '東🚀''' FROM things WHERE user_id = " . USERS[0] . " AND note LIKE '%🚀%'"), "東🚀'");
    },

    // One thread: the connections take turns. Each prepares under the names that the others use.
    'pool' => function (PDO $unused) {
        $all = array_map(fn() => open(), range(1, 16));
        $held = array_map(fn($db) => $db->prepare('SELECT id FROM users WHERE id = ?'), $all);
        for ($turn = 0; $turn < 10; $turn++) {
            foreach ($all as $n => $db) {
                $user = USERS[($n + $turn) % 16];
                $held[$n]->execute([$user]);
                same($held[$n]->fetchAll(), [[$user]]);
                if ($turn % 3 === 0) {
                    run($db, "SELECT set_config('application_name', ?, false)", "of $n");
                }
                same(value($db, 'SHOW application_name'), "of $n");
            }
        }
    },

    'also emulated and nameless statements' => function (PDO $unused) {
        foreach ([PDO::ATTR_EMULATE_PREPARES, PDO::PGSQL_ATTR_DISABLE_PREPARES, PDO::ATTR_PERSISTENT] as $option) {
            $db = open([$option => true]);
            foreach (USERS as $user) {
                same((int) value($db, 'SELECT id FROM users WHERE id = ?', $user), $user);
            }
        }
    },
];

$failed = false;
$db = null;
foreach ($steps as $name => $step) {
    try {
        $db ??= open();
        $step($db);
        echo "ok $name\n";
    } catch (Missing $e) {
        echo "none $name: {$e->getMessage()}\n";
    } catch (Throwable $e) {
        $failed = true;
        echo "fail $name: ", preg_replace('/\s+/', ' ', $e->getMessage()), "\n";
        fwrite(STDERR, "$e\n");
        $db = null;
    }
}
exit($failed ? 1 : 0);
