// postgres.js: see steps.txt. It prepares what it runs, pipelines on its own, and asks for the types of arrays when it connects.
'use strict';

const assert = require('node:assert/strict');
const { readFileSync } = require('node:fs');
const { Readable } = require('node:stream');
const { pipeline } = require('node:stream/promises');
const postgres = require('postgres');
const { big, bytes, columns, data, fails, first, numbers, price, run, text, url, users, words } = require('./steps.js');

const same = assert.deepEqual;
const plain = (rows) => rows.map((row) => ({ ...row }));
const options = { max: 1, onnotice: () => {}, types: { bigint: { to: 20, from: [20], parse: Number, serialize: String } } };

const count = async (sql, caption) =>
  (await sql`SELECT count(*) AS n FROM photos WHERE user_id = ANY(${users}) AND caption = ${caption}`)[0].n;

const put = async (sql, number, column, ...values) => {
  for (const user of users.slice(0, 8)) {
    for (const [n, value] of values.entries()) {
      same((await sql`INSERT INTO things ${sql({ user_id: user, id: number + n, [column]: value })}`).count, 1);
    }
  }
};
const got = async (sql, user, number, column) =>
  (await sql`SELECT ${sql(column)} AS it FROM things WHERE user_id = ${user} AND id = ${number}`)[0].it;

const steps = {
  async connect(sql) {
    console.log(`version ${JSON.parse(readFileSync(`${process.env.NODE_PATH}/postgres/package.json`)).version}`);
    same(plain(await sql`SHOW client_encoding`), [{ client_encoding: 'UTF8' }]);
    same(sql.parameters.server_encoding, 'UTF8');
    for (const user of users) {
      await sql`DELETE FROM things WHERE user_id = ${user}`;
      await sql`DELETE FROM photos WHERE user_id = ${user}`;
      await sql`DELETE FROM users WHERE id = ${user}`;
    }
  },

  async create(sql) {
    for (const user of users) {
      same((await sql`INSERT INTO users ${sql({ id: user, name: `user ${user}` })}`).command, 'INSERT');
      const made = await sql`INSERT INTO photos (user_id, caption) VALUES (${user}, 'first') RETURNING id, caption`;
      same([made.length, made[0].caption, made[0].id > 0], [1, 'first', true]);
    }
  },

  async read(sql) {
    for (const user of users) {
      same(plain(await sql`SELECT name FROM users WHERE id = ${user}`), [{ name: `user ${user}` }]);
      const [photo] = await sql`SELECT id::text FROM photos WHERE user_id = ${user}`;
      same(plain(await sql`SELECT user_id FROM photos WHERE id = ${photo.id}`), [{ user_id: user }]);
    }
    same(plain(await sql`SELECT id FROM users WHERE id IN ${sql([users[0], users[5]])} ORDER BY id`), [{ id: users[0] }, { id: users[5] }]);
    const joined = await sql`SELECT u.name, p.caption FROM users u JOIN photos p ON p.user_id = u.id WHERE u.id = ${users[3]}`;
    same(plain(joined), [{ name: `user ${users[3]}`, caption: 'first' }]);
    same(plain(await sql`SELECT name FROM users WHERE id = ${first + 999}`), []);
  },

  async update(sql) {
    for (const user of users) {
      same((await sql`UPDATE photos SET ${sql({ caption: 'updated' })} WHERE user_id = ${user}`).count, 1);
    }
    same((await sql`UPDATE photos SET caption = 'updated' WHERE user_id IN ${sql(users.slice(0, 4))}`).count, 4);
  },

  async delete(sql) {
    await sql`INSERT INTO photos (user_id, caption) VALUES (${users[2]}, 'gone')`;
    same((await sql`DELETE FROM photos WHERE user_id = ${users[2]} AND caption = 'gone'`).count, 1);
    same((await sql`DELETE FROM photos WHERE user_id = ${users[2]} AND caption = 'gone'`).count, 0);
  },

  async scatter(sql) {
    const [first, last] = [users[0], users[15]];
    same((await sql`SELECT count(*) AS n FROM photos WHERE user_id BETWEEN ${first} AND ${last}`)[0].n, 16);
    const found = await sql`SELECT id FROM users WHERE id BETWEEN ${first} AND ${last} ORDER BY id DESC LIMIT 10`.values();
    same([...found].flat(), users.slice(-10).reverse());
  },

  async prepared(sql) {
    for (let turn = 0; turn < 3; turn++) {
      for (const user of users) {
        const found = await sql`SELECT name, (SELECT count(*) FROM photos WHERE user_id = ${user}) AS photos FROM users WHERE id = ${user}`;
        same(plain(found), [{ name: `user ${user}`, photos: 1 }]);
        same((await sql`UPDATE users SET name = ${`user ${user}`} WHERE id = ${user}`).count, 1);
      }
    }
    const { types, columns } = await sql`SELECT name FROM users WHERE id = ${users[0]} AND name = ${'x'}`.describe();
    same([types, columns.map((c) => c.name)], [[20, 25], ['name']]);
  },

  async commit(sql) {
    await sql.begin(async (sql) => {
      for (const user of [users[0], users[4], users[1]]) await sql`UPDATE users SET name = 'committed' WHERE id = ${user}`;
    });
    same((await sql`SELECT count(*) AS n FROM users WHERE name = 'committed' AND id = ANY(${users})`)[0].n, 3);
    await sql.begin('isolation level serializable read only', async (sql) => {
      same((await sql`SELECT name FROM users WHERE id = ${users[4]}`)[0].name, 'committed');
    });
  },

  async rollback(sql) {
    const broken = sql.begin(async (sql) => {
      for (const user of [users[0], users[4]]) await sql`UPDATE users SET name = 'never' WHERE id = ${user}`;
      throw new TypeError('rolled back');
    });
    await assert.rejects(broken, TypeError);
    same((await sql`SELECT count(*) AS n FROM users WHERE name = 'never' AND id = ANY(${users})`)[0].n, 0);
  },

  async savepoint(sql) {
    await sql.begin(async (sql) => {
      for (const user of users.slice(4, 6)) {
        await sql`INSERT INTO photos (user_id, caption) VALUES (${user}, 'before')`;
        await fails('23505', sql.savepoint(async (sql) => {
          await sql`INSERT INTO photos (user_id, caption) VALUES (${user}, 'undone')`;
          await sql`INSERT INTO users (id, name) VALUES (${user}, 'twice')`;
        }));
        await sql.savepoint('named', (sql) => sql`SELECT 1`);
      }
    });
    same((await sql`SELECT caption FROM photos WHERE user_id = ${users[4]} ORDER BY id`.values()).flat(), ['updated', 'before']);
  },

  async batch(sql) {
    // Sent without waiting for each other, and several rows in one statement.
    await Promise.all([0, 1].flatMap((n) => users.map((user) => sql`INSERT INTO photos (user_id, caption) VALUES (${user}, ${`batch ${n}`})`)));
    const rows = users.map((user) => ({ user_id: user, caption: 'batch 2' }));
    same(plain(await sql`INSERT INTO photos ${sql(rows)} RETURNING user_id, caption`), rows);
    const inside = await sql.begin((sql) => users.map((user) => sql`UPDATE photos SET caption = 'many' WHERE user_id = ${user} AND caption = 'batch 2'`));
    same(inside.map((result) => result.count), users.map(() => 1));
    same(await count(sql, 'many'), 16);
  },

  async batch_error(sql) {
    const put = (user) => sql`INSERT INTO things (user_id, id) VALUES (${user}, 5)`;
    // Each has a Sync of its own: the others stay.
    const results = await Promise.allSettled([put(users[0]), put(users[4]), put(users[0]), put(users[1])]);
    same(results.map((r) => r.reason?.code), [undefined, undefined, '23505', undefined]);
    const block = sql.begin((sql) => [users[2], users[5], users[2]].map((user) => sql`INSERT INTO things (user_id, id) VALUES (${user}, 5)`));
    await fails('23505', block);
    same((await sql`SELECT user_id FROM things WHERE id = 5 AND user_id = ANY(${users}) ORDER BY 1`.values()).flat(), [users[0], users[1], users[4]]);
  },

  async copy_in(sql) {
    const photos = await sql`COPY photos (user_id, caption) FROM STDIN`.writable();
    await pipeline(Readable.from(users.map((user) => `${user}\tcopied \\t\\\\ ü🚀\n`)), photos);
    const things = await sql`COPY things (user_id, id, note) FROM STDIN (FORMAT csv)`.writable();
    await pipeline(Readable.from(users.map((user) => `${user},30,\n`)), things);
    same(await count(sql, 'copied \t\\ ü🚀'), 16);
    same((await sql`SELECT note FROM things WHERE user_id = ${users[9]} AND id = 30`)[0].note, null);
    const broken = await sql`COPY photos (user_id, caption) FROM STDIN`.writable();
    const breaks = async function* () {
      yield `${users[0]}\tlost\n`;
      throw new TypeError('the client breaks off');
    };
    await pipeline(Readable.from(breaks()), broken).catch(() => {});
    same(await count(sql, 'lost'), 0);
  },

  async copy_out(sql) {
    const read = async (copy) => Buffer.concat(await (await copy.readable()).toArray()).toString();
    same(await read(sql`COPY (SELECT name, NULL FROM users WHERE id = ${sql.unsafe(String(users[9]))}) TO STDOUT`), `user ${users[9]}\t\\N\n`);
    const all = await read(sql.unsafe(`COPY (SELECT id FROM users WHERE id BETWEEN ${users[0]} AND ${users[15]}) TO STDOUT`));
    same(all.trim().split('\n').sort(), users.map(String));
  },

  async cursor(sql) {
    const parts = [];
    await sql`SELECT caption FROM photos WHERE user_id = ${users[0]} ORDER BY id`.cursor(2, (rows) => void parts.push(rows.length));
    same(parts, [2, 2, 1]);
    const found = [];
    for await (const rows of sql`SELECT id FROM users WHERE id BETWEEN ${users[0]} AND ${users[15]} ORDER BY id`.cursor(5)) {
      found.push(...rows.map((row) => row.id));
    }
    same(found, users);
    await sql`SELECT id FROM photos WHERE user_id = ${users[0]}`.cursor(1, () => sql.CLOSE);
    await sql`SELECT id FROM photos WHERE user_id = ${users[0]}`.forEach((row) => same(row.id > 0, true));
  },

  async unique_violation(sql) {
    const e = await fails('23505', sql`INSERT INTO users (id, name) VALUES (${users[6]}, 'twice')`);
    same([e.table_name, e.constraint_name], ['users', 'users_pkey']);
    same((await sql`SELECT name FROM users WHERE id = ${users[6]}`)[0].name, `user ${users[6]}`);
  },

  async syntax_error(sql) {
    await fails('42601', sql`SELEC 1`);
    await fails('42601', sql`SELECT name FRM users WHERE id = ${users[0]}`);
    await fails('42703', sql`SELECT nothing FROM users WHERE id = ${users[0]}`);
    await fails('42601', sql.unsafe('SELEC 1'));
    same(plain(await sql`SELECT 1 AS one`), [{ one: 1 }]);
  },

  async failed_transaction(sql) {
    const block = sql.begin(async (sql) => {
      await sql`INSERT INTO photos (user_id, caption) VALUES (${users[0]}, 'lost')`;
      await fails('22012', sql`SELECT 1 / (id - id) FROM users WHERE id = ${users[0]}`);
      await fails('25P02', sql`SELECT 1`);
      throw new TypeError('rolled back');
    });
    await block.catch(() => {});
    same(await count(sql, 'lost'), 0);
  },

  async cancel(sql) {
    for (const query of [sql`SELECT pg_sleep(60)`, sql`SELECT pg_sleep(60) FROM users WHERE id = ${users[0]}`]) {
      const failing = fails('57014', query.execute());
      let done = false;
      failing.finally(() => (done = true)).catch(() => {});
      while (!done) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        if (!done) query.cancel();
      }
      await failing;
    }
    await sql`SELECT 1`.catch(() => {});
    same(plain(await sql`SELECT 1 AS one`), [{ one: 1 }]);
  },

  async arrays(sql) {
    await put(sql, 100, 'numbers', numbers, []);
    await put(sql, 110, 'words', words, []);
    for (const user of users.slice(0, 8)) {
      // It reads NULL in an int[] as NaN and in a text[] as 'NULL'.
      same([...(await got(sql, user, 100, 'numbers'))], numbers.map((n) => n ?? NaN));
      same([...(await got(sql, user, 101, 'numbers'))], []);
      same([...(await got(sql, user, 110, 'words'))], words.map((word) => word ?? 'NULL'));
    }
    same((await sql`SELECT id FROM users WHERE id = ANY(${users.slice(3, 9)}) ORDER BY id`.values()).flat(), users.slice(3, 9));
    same(plain(await sql`SELECT id FROM things WHERE user_id = ${users[1]} AND ${'b c'} = ANY(words)`), [{ id: 110 }]);
  },

  async json(sql) {
    await put(sql, 200, 'data', sql.json(data));
    await put(sql, 201, 'doc', sql.json(data));
    for (const user of users.slice(0, 8)) {
      same(await got(sql, user, 200, 'data'), data);
      same(await got(sql, user, 201, 'doc'), data);
      const found = await sql`SELECT id, data -> 'b' AS b FROM things WHERE user_id = ${user} AND data ->> 'a' = ${'1'} AND data ? 'c'`;
      same(plain(found), [{ id: 200, b: data.b }]);
    }
  },

  async timestamps(sql) {
    const at = new Date('2024-02-29T12:34:56.789Z');
    await put(sql, 300, 'at', at);
    // What it knows as a time it cuts to milliseconds.
    for (const user of users.slice(0, 8)) {
      await sql`INSERT INTO things (user_id, id, at) VALUES (${user}, 301, ${'2024-02-29 12:34:56.789012+00'}::text::timestamptz)`;
      await sql`INSERT INTO things (user_id, id, local) VALUES (${user}, 310, ${'2024-12-31 23:59:59.999999'}::text::timestamp)`;
      await sql`INSERT INTO things (user_id, id, day) VALUES (${user}, 320, ${'1999-12-31'}::text::date)`;
    }
    await sql`SET TIME ZONE 'Asia/Kathmandu'`;
    for (const user of users.slice(0, 8)) {
      same(await got(sql, user, 300, 'at'), at);
      same((await sql`SELECT at::text AS it FROM things WHERE user_id = ${user} AND id = 301`)[0].it, '2024-02-29 18:19:56.789012+05:45');
      same((await sql`SELECT local::text AS it FROM things WHERE user_id = ${user} AND id = 310`)[0].it, '2024-12-31 23:59:59.999999');
      same((await sql`SELECT day::text AS it FROM things WHERE user_id = ${user} AND id = 320`)[0].it, '1999-12-31');
    }
    same(sql.parameters.TimeZone, 'Asia/Kathmandu');
    await sql`RESET TIME ZONE`;
  },

  async numerics(sql) {
    await put(sql, 400, 'price', price, `-${price}`);
    await put(sql, 410, 'big', big);
    await put(sql, 420, 'ratio', Infinity, NaN, 0.1);
    for (const user of users.slice(0, 8)) {
      same(await got(sql, user, 401, 'price'), `-${price}`);
      same(await got(sql, user, 410, 'big'), big);
      same(await got(sql, user, 420, 'ratio'), Infinity);
      same(await got(sql, user, 421, 'ratio'), NaN);
      same(await got(sql, user, 422, 'ratio'), 0.1);
    }
    const total = await sql`SELECT sum(price) FROM things WHERE user_id BETWEEN ${users[0]} AND ${users[15]} AND id = 400`;
    same(total[0].sum, '98765431209876.543128');
  },

  async null(sql) {
    for (const user of users.slice(0, 8)) {
      const row = Object.fromEntries(columns.split(', ').map((column) => [column, null]));
      await sql`INSERT INTO things ${sql({ user_id: user, id: 500, ...row })}`;
      same(plain(await sql`SELECT ${sql.unsafe(columns)} FROM things WHERE user_id = ${user} AND id = 500`), [row]);
      same(plain(await sql`SELECT id FROM things WHERE user_id = ${user} AND id >= 500 AND note IS NULL`), [{ id: 500 }]);
    }
  },

  async bytea(sql) {
    const long = Buffer.concat(Array(400).fill(bytes));
    await put(sql, 600, 'bytes', bytes, Buffer.alloc(0), long);
    for (const user of users.slice(0, 8)) {
      same(await got(sql, user, 600, 'bytes'), bytes);
      same(await got(sql, user, 601, 'bytes'), Buffer.alloc(0));
      same(long.equals(await got(sql, user, 602, 'bytes')), true);
    }
  },

  async unicode(sql) {
    await put(sql, 700, 'note', text);
    for (const user of users.slice(0, 8)) {
      const found = await sql`SELECT note, length(note) FROM things WHERE user_id = ${user} AND note = ${text}`;
      same(plain(found), [{ note: text, length: [...text].length }]);
    }
    const literal = await sql.unsafe(`SELECT '東🚀''' AS it FROM things WHERE user_id = ${users[0]} AND note LIKE '%🚀%'`);
    same(plain(literal), [{ it: "東🚀'" }]);
  },

  async pool() {
    const pool = postgres(url, { ...options, max: 16, connection: { application_name: 'a pool' } });
    const jobs = Array.from({ length: 320 }, async (_, n) => {
      const user = users[n % 16];
      same((await pool`SELECT id FROM users WHERE id = ${user}`)[0].id, user);
      if (n % 4 === 0) {
        const one = await pool.reserve();
        same((await one`SHOW application_name`)[0].application_name, 'a pool');
        one.release();
      }
    });
    await Promise.all(jobs);
    await pool.end();
  },

  async 'also notifications'(sql) {
    const heard = [];
    const { unlisten } = await sql.listen(`of postgres.js ${first}`, (payload) => heard.push(payload));
    for (const n of [0, 1, 2]) await sql.notify(`of postgres.js ${first}`, `é${n}`);
    for (let turn = 0; heard.length < 3 && turn < 400; turn++) await new Promise((resolve) => setTimeout(resolve, 50));
    same(heard, ['é0', 'é1', 'é2']);
    await unlisten();
  },
};

run(steps, () => postgres(url, options), (sql) => sql.end({ timeout: 1 }));
