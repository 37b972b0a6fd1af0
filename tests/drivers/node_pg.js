// node-postgres with its cursor and its COPY streams: see steps.txt.
'use strict';

const assert = require('node:assert/strict');
const { Readable } = require('node:stream');
const { pipeline } = require('node:stream/promises');
const { Client, Pool } = require('pg');
const { from: copyFrom, to: copyTo } = require('pg-copy-streams');
const Cursor = require('pg-cursor');
const { big, bytes, columns, data, fails, first, numbers, price, run, text, url, users, words } = require('./steps.js');

const same = assert.deepEqual;
// Users of the checks that are no steps.
const own = Array.from({ length: 16 }, (_, n) => first + 16 + n);
const all = async (client, text, ...values) => (await client.query(text, values)).rows;
const rowCount = async (client, text, ...values) => (await client.query(text, values)).rowCount;
const value = async (client, text, ...values) => {
  const { rows } = await client.query({ text, values, rowMode: 'array' });
  same([rows.length, rows[0]?.length], [1, 1]);
  return rows[0][0];
};
const count = async (client, caption) => value(client, 'SELECT count(*)::int FROM photos WHERE user_id = ANY($1) AND caption = $2', users, caption);

const put = async (client, number, column, ...values) => {
  for (const user of users.slice(0, 8)) {
    for (const [n, value] of values.entries()) {
      same(await rowCount(client, `INSERT INTO things (user_id, id, ${column}) VALUES ($1, $2, $3)`, user, number + n, value), 1);
    }
  }
};
const got = (client, user, number, column) => value(client, `SELECT ${column} FROM things WHERE user_id = $1 AND id = $2`, user, number);

/** A CancelRequest on a connection of its own, as `client.cancel` of libpq's bindings sends it. */
function cancelled(client) {
  const connection = new Client({ connectionString: url });
  connection.cancel(client, client._activeQuery ?? client.activeQuery);
}

async function simple(client) {
  for (const user of own) {
    await client.query(`DELETE FROM photos WHERE user_id = ${user}`);
    await client.query(`DELETE FROM users WHERE id = ${user}`);
    const made = await client.query(`INSERT INTO users (id, name) VALUES (${user}, 'it''s ${user}')`);
    assert.equal(made.command, 'INSERT');
    assert.equal(made.rowCount, 1);
    const { rows, fields } = await client.query(`SELECT id, name FROM users WHERE id = ${user} -- mine`);
    assert.deepEqual(rows, [{ id: String(user), name: `it's ${user}` }]);
    assert.deepEqual(fields.map((f) => f.dataTypeID), [20, 25]);
  }
}

async function parameters(client) {
  for (const user of own) {
    const made = await client.query('INSERT INTO photos (user_id, caption) VALUES ($1, $2) RETURNING id, caption', [user, 'ünïcode']);
    assert.equal(made.rows[0].caption, 'ünïcode');
    const byId = await client.query('SELECT user_id FROM photos WHERE id = $1', [made.rows[0].id]);
    assert.deepEqual(byId.rows, [{ user_id: String(user) }]);
    for (const value of [user, String(user), BigInt(user)]) {
      const found = await client.query('SELECT count(*)::int AS n FROM photos WHERE user_id = $1', [value]);
      assert.equal(found.rows[0].n, 1);
    }
    const array = await client.query({ text: 'SELECT name, $2::text FROM users WHERE id = $1::bigint', values: [user, null], rowMode: 'array' });
    assert.deepEqual(array.rows, [[`it's ${user}`, null]]);
    const country = await client.query('SELECT name FROM countries WHERE code = $1', ['de']);
    assert.equal(country.rows[0].name, 'Germany');
  }
}

async function named(client) {
  for (let turn = 0; turn < 3; turn++) {
    for (const user of own) {
      const found = await client.query({ name: 'by-user', text: 'SELECT caption FROM photos WHERE user_id = $1', values: [user] });
      assert.deepEqual(found.rows, [{ caption: 'ünïcode' }]);
      const set = await client.query({ name: 'rename', text: 'UPDATE users SET name = $2 WHERE id = $1', values: [user, `turn ${turn}`] });
      assert.equal(set.rowCount, 1);
    }
  }
}

async function errors(client) {
  await assert.rejects(client.query(`SELECT nothing FROM photos WHERE user_id = ${own[1]}`), { code: '42703', position: '8' });
  await assert.rejects(client.query(`SELECT caption FROM photos WHERE user_id = ${own[1]} AND nothing = 1`), { code: '42703', position: String(49 + String(own[1]).length) });
  await assert.rejects(client.query('SELECT caption FROM photos WHERE user_id = $1 AND nothing = 1', [own[1]]), { code: '42703', position: '51' });
  const { rows } = await client.query('SELECT 1 AS one');
  assert.equal(rows[0].one, 1);
}

async function pool() {
  const pool = new Pool({ connectionString: url, max: 24 });
  const jobs = [];
  for (let n = 0; n < 400; n++) {
    const user = users[n % users.length];
    const text = n % 2 ? 'SELECT id FROM users WHERE id = $1' : 'SELECT user_id AS id FROM photos WHERE user_id = $1 LIMIT 1';
    jobs.push(pool.query({ name: n % 3 ? undefined : `q${n % 2}`, text, values: [user] }).then(({ rows }) => assert.deepEqual(rows, [{ id: String(user) }])));
  }
  await Promise.all(jobs);
  await pool.end();
}

const steps = {
  async connect(client) {
    console.log(`version ${require('pg/package.json').version}`);
    same(await value(client, 'SHOW client_encoding'), 'UTF8');
    for (const user of users) {
      await client.query('DELETE FROM things WHERE user_id = $1', [user]);
      await client.query('DELETE FROM photos WHERE user_id = $1', [user]);
      await client.query('DELETE FROM users WHERE id = $1', [user]);
    }
  },

  async create(client) {
    for (const user of users) {
      same(await rowCount(client, 'INSERT INTO users (id, name) VALUES ($1, $2)', user, `user ${user}`), 1);
      const [made] = await all(client, 'INSERT INTO photos (user_id, caption) VALUES ($1, $2) RETURNING id, caption', user, 'first');
      same([BigInt(made.id) > 0n, made.caption], [true, 'first']);
    }
  },

  async read(client) {
    for (const user of users) {
      same(await value(client, 'SELECT name FROM users WHERE id = $1', user), `user ${user}`);
      const photo = await value(client, 'SELECT id FROM photos WHERE user_id = $1', user);
      same(await value(client, 'SELECT user_id FROM photos WHERE id = $1', photo), String(user));
    }
    const two = await all(client, 'SELECT id::int FROM users WHERE id IN ($1, $2) ORDER BY id', users[0], users[5]);
    same(two, [{ id: users[0] }, { id: users[5] }]);
    const joined = 'SELECT u.name, p.caption FROM users u JOIN photos p ON p.user_id = u.id WHERE u.id = $1';
    same(await all(client, joined, users[3]), [{ name: `user ${users[3]}`, caption: 'first' }]);
    same(await all(client, 'SELECT name FROM users WHERE id = $1', first + 999), []);
  },

  async update(client) {
    for (const user of users) same(await rowCount(client, 'UPDATE photos SET caption = $2 WHERE user_id = $1', user, 'updated'), 1);
    same(await rowCount(client, "UPDATE photos SET caption = 'updated' WHERE user_id = ANY($1)", users.slice(0, 4)), 4);
  },

  async delete(client) {
    await client.query("INSERT INTO photos (user_id, caption) VALUES ($1, 'gone')", [users[2]]);
    same(await rowCount(client, "DELETE FROM photos WHERE user_id = $1 AND caption = 'gone'", users[2]), 1);
    same(await rowCount(client, "DELETE FROM photos WHERE user_id = $1 AND caption = 'gone'", users[2]), 0);
  },

  async scatter(client) {
    same(await value(client, 'SELECT count(*)::int FROM photos WHERE user_id BETWEEN $1 AND $2', users[0], users[15]), 16);
    const found = await all(client, 'SELECT id::int FROM users WHERE id BETWEEN $1 AND $2 ORDER BY users.id DESC LIMIT 10', users[0], users[15]);
    same(found.map((row) => row.id), users.slice(-10).reverse());
  },

  async prepared(client) {
    for (let turn = 0; turn < 3; turn++) {
      for (const user of users) {
        const text = 'SELECT name, (SELECT count(*)::int FROM photos WHERE user_id = $1) AS photos FROM users WHERE id = $1';
        same((await client.query({ name: 'by user', text, values: [user] })).rows, [{ name: `user ${user}`, photos: 1 }]);
        const rename = { name: 'rename', text: 'UPDATE users SET name = $2 WHERE id = $1', values: [user, `user ${user}`] };
        same((await client.query(rename)).rowCount, 1);
      }
    }
  },

  async commit(client) {
    await client.query('BEGIN');
    for (const user of [users[0], users[4], users[1]]) await client.query("UPDATE users SET name = 'committed' WHERE id = $1", [user]);
    same((await client.query('COMMIT')).command, 'COMMIT');
    same(await value(client, "SELECT count(*)::int FROM users WHERE name = 'committed' AND id = ANY($1)", users), 3);
    await client.query('BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY');
    same(await value(client, 'SELECT name FROM users WHERE id = $1', users[4]), 'committed');
    await client.query('END');
  },

  async rollback(client) {
    await client.query('BEGIN');
    for (const user of [users[0], users[4]]) await client.query("UPDATE users SET name = 'never' WHERE id = $1", [user]);
    same((await client.query('ROLLBACK')).command, 'ROLLBACK');
    same(await value(client, "SELECT count(*)::int FROM users WHERE name = 'never' AND id = ANY($1)", users), 0);
  },

  async savepoint(client) {
    await client.query('BEGIN');
    for (const user of users.slice(4, 6)) {
      await client.query("INSERT INTO photos (user_id, caption) VALUES ($1, 'before')", [user]);
      await client.query('SAVEPOINT one');
      await client.query("INSERT INTO photos (user_id, caption) VALUES ($1, 'undone')", [user]);
      await fails('23505', client.query("INSERT INTO users (id, name) VALUES ($1, 'twice')", [user]));
      await client.query('ROLLBACK TO SAVEPOINT one');
      await client.query({ name: 'rename', text: 'UPDATE users SET name = $2 WHERE id = $1', values: [user, 'inside'] });
      await client.query('RELEASE SAVEPOINT one');
    }
    await client.query('COMMIT');
    const found = await all(client, 'SELECT caption FROM photos WHERE user_id = $1 ORDER BY id', users[4]);
    same(found.map((row) => row.caption), ['updated', 'before']);
  },

  async batch(client) {
    // It sends the next when the one before is answered; several statements in one text go together.
    const one = (user, n) => client.query('INSERT INTO photos (user_id, caption) VALUES ($1, $2)', [user, `batch ${n}`]);
    await Promise.all([0, 1].flatMap((n) => users.map((user) => one(user, n))));
    const rows = users.map((user) => `(${user}, 'batch 2')`).join(', ');
    const made = await client.query(`INSERT INTO photos (user_id, caption) VALUES ${rows} RETURNING user_id::int AS user`);
    same(made.rows.map((row) => row.user), users);
    const many = users.map((user) => `UPDATE photos SET caption = 'many' WHERE user_id = ${user} AND caption = 'batch 2'`);
    same((await client.query(many.join(';'))).map((result) => result.rowCount), users.map(() => 1));
    same(await count(client, 'many'), 16);
  },

  async batch_error(client) {
    const insert = (user) => `INSERT INTO things (user_id, id) VALUES (${user}, 5)`;
    await fails('23505', client.query([users[0], users[4], users[0]].map(insert).join(';')));
    same(await value(client, 'SELECT count(*)::int FROM things WHERE id = 5 AND user_id = ANY($1)', users), 0);
  },

  async copy_in(client) {
    const into = (text, lines) => pipeline(Readable.from(lines), client.query(copyFrom(text)));
    await into('COPY photos (user_id, caption) FROM STDIN', users.map((user) => `${user}\tcopied \\t\\\\ ü🚀\n`));
    await into('COPY things (user_id, id, note) FROM STDIN (FORMAT csv)', users.map((user) => `${user},30,\n`));
    same(await count(client, 'copied \t\\ ü🚀'), 16);
    same(await got(client, users[9], 30, 'note'), null);
    const breaks = async function* () {
      yield `${users[0]}\tlost\n`;
      throw new TypeError('the client breaks off');
    };
    await assert.rejects(into('COPY photos (user_id, caption) FROM STDIN', breaks()));
    same(await count(client, 'lost'), 0);
  },

  async copy_out(client) {
    const read = async (text) => Buffer.concat(await client.query(copyTo(text)).toArray()).toString();
    same(await read(`COPY (SELECT name, NULL FROM users WHERE id = ${users[9]}) TO STDOUT`), `user ${users[9]}\t\\N\n`);
    const ids = await read(`COPY (SELECT id FROM users WHERE id BETWEEN ${users[0]} AND ${users[15]}) TO STDOUT`);
    same(ids.trim().split('\n').sort(), users.map(String));
  },

  async cursor(client) {
    const mine = client.query(new Cursor('SELECT caption FROM photos WHERE user_id = $1 ORDER BY id', [users[0]]));
    const parts = [];
    for (let rows = await mine.read(2); rows.length; rows = await mine.read(2)) parts.push(rows.length);
    same(parts, [2, 2, 1]);
    await mine.close();
    const everyone = client.query(new Cursor('SELECT id::int FROM users WHERE id BETWEEN $1 AND $2 ORDER BY users.id', [users[0], users[15]]));
    same((await everyone.read(5)).map((row) => row.id), users.slice(0, 5));
    same((await everyone.read(100)).map((row) => row.id), users.slice(5));
    await everyone.close();
    const early = client.query(new Cursor('SELECT id FROM photos WHERE user_id = $1', [users[0]]));
    same((await early.read(1)).length, 1);
    await early.close();
  },

  async unique_violation(client) {
    const e = await fails('23505', client.query("INSERT INTO users (id, name) VALUES ($1, 'twice')", [users[6]]));
    same([e.table, e.constraint], ['users', 'users_pkey']);
    same(await value(client, 'SELECT name FROM users WHERE id = $1', users[6]), `user ${users[6]}`);
  },

  async syntax_error(client) {
    await fails('42601', client.query('SELEC 1'));
    await fails('42601', client.query({ name: 'bad', text: 'SELEC $1', values: [1] }));
    await fails('42601', client.query('SELECT name FRM users WHERE id = $1', [users[0]]));
    await fails('42703', client.query('SELECT nothing FROM users WHERE id = $1', [users[0]]));
    same(await value(client, 'SELECT 1'), 1);
  },

  async failed_transaction(client) {
    await client.query('BEGIN');
    await client.query("INSERT INTO photos (user_id, caption) VALUES ($1, 'lost')", [users[0]]);
    await fails('22012', client.query('SELECT 1 / (id - id) FROM users WHERE id = $1', [users[0]]));
    await fails('25P02', client.query('SELECT 1'));
    same((await client.query('COMMIT')).command, 'ROLLBACK');
    same(await count(client, 'lost'), 0);
  },

  async cancel(client) {
    for (const text of ['SELECT pg_sleep(60)', `SELECT pg_sleep(60) FROM users WHERE id = ${users[0]}`]) {
      let done = false;
      const failing = fails('57014', client.query(text)).finally(() => (done = true));
      failing.catch(() => {});
      while (!done) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        if (!done) cancelled(client);
      }
      await failing;
    }
    await client.query('SELECT 1').catch(() => {});
    same(await value(client, 'SELECT 1'), 1);
    const impatient = new Client({ connectionString: url, statement_timeout: 200 });
    await impatient.connect();
    await fails('57014', impatient.query('SELECT pg_sleep(60) FROM users WHERE id = $1', [users[1]]));
    same(await value(impatient, 'SHOW statement_timeout'), '200ms');
    await impatient.end();
  },

  async arrays(client) {
    await put(client, 100, 'numbers', numbers, []);
    await put(client, 110, 'words', words, []);
    for (const user of users.slice(0, 8)) {
      same(await got(client, user, 100, 'numbers'), numbers);
      same(await got(client, user, 101, 'numbers'), []);
      same(await got(client, user, 110, 'words'), words);
    }
    const found = await all(client, 'SELECT id::int FROM users WHERE id = ANY($1) ORDER BY users.id', users.slice(3, 9));
    same(found.map((row) => row.id), users.slice(3, 9));
    same(await value(client, 'SELECT id FROM things WHERE user_id = $1 AND $2 = ANY(words)', users[1], 'b c'), 110);
  },

  async json(client) {
    await put(client, 200, 'data', data);
    await put(client, 201, 'doc', JSON.stringify(data));
    for (const user of users.slice(0, 8)) {
      same(await got(client, user, 200, 'data'), data);
      same(await got(client, user, 201, 'doc'), data);
      const found = "SELECT id, data -> 'b' AS b FROM things WHERE user_id = $1 AND data ->> 'a' = $2 AND data ? 'c'";
      same(await all(client, found, user, '1'), [{ id: 200, b: data.b }]);
    }
  },

  async timestamps(client) {
    const at = new Date('2024-02-29T12:34:56.789Z');
    await put(client, 300, 'at', at, '2024-02-29 12:34:56.789012+00');
    await put(client, 310, 'local', '2024-12-31 23:59:59.999999');
    await put(client, 320, 'day', '1999-12-31');
    await client.query("SET TIME ZONE 'Asia/Kathmandu'");
    for (const user of users.slice(0, 8)) {
      same(await got(client, user, 300, 'at'), at);
      same(await got(client, user, 301, 'at::text'), '2024-02-29 18:19:56.789012+05:45');
      same(await got(client, user, 310, 'local::text'), '2024-12-31 23:59:59.999999');
      same(await got(client, user, 320, 'day::text'), '1999-12-31');
    }
    await client.query('RESET TIME ZONE');
  },

  async numerics(client) {
    await put(client, 400, 'price', price, `-${price}`);
    await put(client, 410, 'big', big);
    await put(client, 420, 'ratio', Infinity, NaN, 0.1);
    for (const user of users.slice(0, 8)) {
      same(await got(client, user, 401, 'price'), `-${price}`);
      same(await got(client, user, 410, 'big'), big);
      same(await got(client, user, 420, 'ratio'), Infinity);
      same(await got(client, user, 421, 'ratio'), NaN);
      same(await got(client, user, 422, 'ratio'), 0.1);
    }
    const total = 'SELECT sum(price) FROM things WHERE user_id BETWEEN $1 AND $2 AND id = 400';
    same(await value(client, total, users[0], users[15]), '98765431209876.543128');
  },

  async null(client) {
    const places = columns.split(', ').map((_, n) => `$${n + 2}`);
    for (const user of users.slice(0, 8)) {
      const nothing = places.map(() => null);
      await client.query(`INSERT INTO things (user_id, id, ${columns}) VALUES ($1, 500, ${places})`, [user, ...nothing]);
      const text = `SELECT ${columns} FROM things WHERE user_id = $1 AND id = 500`;
      same((await client.query({ text, values: [user], rowMode: 'array' })).rows, [nothing]);
      same(await value(client, 'SELECT id FROM things WHERE user_id = $1 AND id >= 500 AND note IS NULL', user), 500);
    }
  },

  async bytea(client) {
    const long = Buffer.concat(Array(400).fill(bytes));
    await put(client, 600, 'bytes', bytes, Buffer.alloc(0), long);
    for (const user of users.slice(0, 8)) {
      same(await got(client, user, 600, 'bytes'), bytes);
      same(await got(client, user, 601, 'bytes'), Buffer.alloc(0));
      same(long.equals(await got(client, user, 602, 'bytes')), true);
    }
  },

  async unicode(client) {
    await put(client, 700, 'note', text);
    for (const user of users.slice(0, 8)) {
      const found = await all(client, 'SELECT note, length(note) FROM things WHERE user_id = $1 AND note = $2', user, text);
      same(found, [{ note: text, length: [...text].length }]);
    }
    const literal = `SELECT '東🚀''' FROM things WHERE user_id = ${users[0]} AND note LIKE '%🚀%'`;
    same(await value(client, literal), "東🚀'");
  },

  pool,

  async 'also notifications'(client) {
    const heard = [];
    client.on('notification', (message) => heard.push(message.payload));
    await client.query(`LISTEN of_node_${first}`);
    const other = await open();
    for (const n of [0, 1, 2]) await other.query('SELECT pg_notify($1, $2)', [`of_node_${first}`, `é${n}`]);
    await other.end();
    for (let turn = 0; heard.length < 3 && turn < 400; turn++) await new Promise((resolve) => setTimeout(resolve, 50));
    same(heard, ['é0', 'é1', 'é2']);
    same(await value(client, 'SELECT id FROM users WHERE id = $1', users[4]), String(users[4]));
    await client.query('UNLISTEN *');
  },
  async 'also simple queries'(client) {
    await simple(client);
  },
  async 'also parameters of several types'(client) {
    await parameters(client);
  },
  async 'also named statements'(client) {
    await named(client);
  },
  async 'also positions of errors'(client) {
    await errors(client);
  },
};

const open = async () => {
  const client = new Client({ connectionString: url });
  await client.connect();
  return client;
};
run(steps, open, (client) => client.end());
