// node-postgres against DATABASE_URL, which holds the demo's tables: one `ok` line for each thing tried, exit code 1 at the
// first difference from what one Postgres does. Users 3000-3015 are its own; it says what rows it leaves.
'use strict';

const assert = require('node:assert/strict');
const { Client, Pool } = require('pg');

const connectionString = process.env.DATABASE_URL;
const users = Array.from({ length: 16 }, (_, n) => 3000 + n);
const ok = (what) => console.log(`ok ${what}`);

async function simple(client) {
  for (const user of users) {
    await client.query(`DELETE FROM photos WHERE user_id = ${user}`);
    await client.query(`DELETE FROM users WHERE id = ${user}`);
    const made = await client.query(`INSERT INTO users (id, name) VALUES (${user}, 'it''s ${user}')`);
    assert.equal(made.command, 'INSERT');
    assert.equal(made.rowCount, 1);
    const { rows, fields } = await client.query(`SELECT id, name FROM users WHERE id = ${user} -- mine`);
    assert.deepEqual(rows, [{ id: String(user), name: `it's ${user}` }]);
    assert.deepEqual(fields.map((f) => f.dataTypeID), [20, 25]);
  }
  ok('simple queries');
}

async function parameters(client) {
  for (const user of users) {
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
  ok('parameters');
}

async function named(client) {
  for (let turn = 0; turn < 3; turn++) {
    for (const user of users) {
      const found = await client.query({ name: 'by-user', text: 'SELECT caption FROM photos WHERE user_id = $1', values: [user] });
      assert.deepEqual(found.rows, [{ caption: 'ünïcode' }]);
      const set = await client.query({ name: 'rename', text: 'UPDATE users SET name = $2 WHERE id = $1', values: [user, `turn ${turn}`] });
      assert.equal(set.rowCount, 1);
    }
  }
  ok('named statements');
}

async function transactions(client) {
  for (const user of users) {
    await client.query('BEGIN');
    await client.query('INSERT INTO photos (user_id, caption) VALUES ($1, $2)', [user, 'kept']);
    await client.query('SAVEPOINT s');
    await assert.rejects(client.query('INSERT INTO users (id, name) VALUES ($1, $2)', [user, 'twice']), { code: '23505', table: 'users' });
    await assert.rejects(client.query('SELECT 1'), { code: '25P02' });
    await client.query('ROLLBACK TO SAVEPOINT s');
    await client.query({ name: 'rename', text: 'UPDATE users SET name = $2 WHERE id = $1', values: [user, 'inside'] });
    await client.query('COMMIT');
    await client.query('BEGIN');
    await client.query('DELETE FROM photos WHERE user_id = $1', [user]);
    await client.query('ROLLBACK');
    const { rows } = await client.query('SELECT u.name, p.caption FROM users u JOIN photos p ON u.id = p.user_id WHERE p.user_id = $1 ORDER BY p.id', [user]);
    assert.deepEqual(rows, [{ name: 'inside', caption: 'ünïcode' }, { name: 'inside', caption: 'kept' }]);
  }
  ok('transactions');
}

async function errors(client) {
  await assert.rejects(client.query('SELECT nothing FROM photos WHERE user_id = 3001'), { code: '42703', position: '8' });
  await assert.rejects(client.query('SELECT caption FROM photos WHERE user_id = 3001 AND nothing = 1'), { code: '42703', position: '53' });
  await assert.rejects(client.query('SELECT caption FROM photos WHERE user_id = $1 AND nothing = 1', [3001]), { code: '42703', position: '51' });
  // What can't be read is refused by the proxy in words of its own.
  const unreadable = (e) => ['42601', 'SR001', 'SR006'].includes(e.code);
  await assert.rejects(client.query({ name: 'bad', text: 'SELEC $1', values: [1] }), unreadable);
  const { rows } = await client.query('SELECT 1 AS one');
  assert.equal(rows[0].one, 1);
  ok('errors keep code and position');
}

async function pool() {
  const pool = new Pool({ connectionString, max: 24 });
  const jobs = [];
  for (let n = 0; n < 400; n++) {
    const user = users[n % users.length];
    const text = n % 2 ? 'SELECT id FROM users WHERE id = $1' : 'SELECT user_id AS id FROM photos WHERE user_id = $1 LIMIT 1';
    jobs.push(pool.query({ name: n % 3 ? undefined : `q${n % 2}`, text, values: [user] }).then(({ rows }) => assert.deepEqual(rows, [{ id: String(user) }])));
  }
  await Promise.all(jobs);
  await pool.end();
  ok('a pool of 24');
}

async function main() {
  const client = new Client({ connectionString });
  await client.connect();
  await simple(client);
  await parameters(client);
  await named(client);
  await transactions(client);
  await errors(client);
  await client.end();
  await pool();
  console.log('left users=16 photos=32');
}

main().catch((e) => {
  console.error(e);
  process.exit(1);
});
