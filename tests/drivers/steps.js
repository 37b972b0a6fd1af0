// Runs the steps of a program and says how each went: see steps.txt.
'use strict';

const assert = require('node:assert/strict');

const first = Number(process.env.FIRST);
exports.url = process.env.DATABASE_URL;
exports.first = first;
exports.users = Array.from({ length: 16 }, (_, n) => first + n);
exports.text = 'Grüße 東京 🚀 \\ \' " $1 %s -- /* {} \\N \t.';
exports.numbers = [1, null, -3, 2147483647];
exports.words = ['a', 'b c', 'quo"te', '', null, 'NULL', 'ünï,{}\\'];
exports.data = { a: 1, b: [true, null, 'ü\'"\\'], c: { x: 1.5 } };
exports.price = '12345678901234.567891';
exports.big = '1234567890123456789012345678901234567890.0123456789';
exports.bytes = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
exports.columns = 'numbers, words, data, doc, at, local, day, price, big, ratio, bytes, flag, note';

/** What a step throws if the driver has no such thing. */
class Missing extends Error {}
exports.Missing = Missing;

/** Runs what must fail with this SQLSTATE, and gives the error. */
exports.fails = async (code, promise) => {
  const error = await Promise.resolve(promise).then(() => null, (e) => e);
  assert.notEqual(error, null, `no error, where ${code} was expected`);
  if (error.code !== code) throw error;
  return error;
};

/** Each step in turn with what `open` gives; after one that failed it is opened anew. */
exports.run = async (steps, open, close) => {
  let failed = false;
  let connection = null;
  for (const [name, step] of Object.entries(steps)) {
    try {
      connection ??= await open();
      await step(connection);
      console.log(`ok ${name}`);
    } catch (e) {
      const why = String(e.message).split(/\s+/).join(' ').slice(0, 400);
      if (e instanceof Missing) {
        console.log(`none ${name}: ${why}`);
        continue;
      }
      failed = true;
      console.log(`fail ${name}: ${e.code ?? ''} ${why}`);
      console.error(e);
      if (connection) await close(connection).catch(() => {});
      connection = null;
    }
  }
  if (connection) await close(connection);
  process.exit(failed ? 1 : 0);
};
