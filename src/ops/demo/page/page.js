// The demo's page. Feeds come from the feed service's own API; where people and posts live comes from /demo, which asks the map in
// force. Text of users goes into the page as text alone (textContent).

const $ = (id) => document.getElementById(id);
const EVERY_MS = 1000;
// Rows at first and with each "Older posts": on a phone what comes below is not to be far.
const STEP = matchMedia('(min-width: 44rem)').matches ? 20 : 6, MOST = 200;
const LINES = [
  'Fog until noon, then suddenly summer.', 'Found the other glove.', 'Rehearsal went well. Second act is still too long.',
  'Does anybody have a ladder I could borrow?', 'The kettle sings a fourth, not a fifth.', 'Forty pages left and I slow down on purpose.',
  'New shoes, old hills.', 'The comet is visible above the church, to the left.', 'Soup for anyone who is cold.', 'It snowed on the blossoms.',
];

const here = new URLSearchParams(location.search);
let me = here.get('as'), watched = here.get('watch'), chosen = null;
let place = null;               // what /demo/people says: people, hosts, how to connect
const relations = new Map();    // of me to each of the people
const parts = new Map();        // what an id says, by id

// ---- calls -----------------------------------------------------------------------------------------------------------

class Problem extends Error {
  constructor(detail, hint) { super(detail); this.hint = hint; }
}

async function call(method, path, body, headers = {}) {
  if (body !== undefined) headers = { 'Content-Type': 'application/json', ...headers };
  let answer, json = null;
  try {
    answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: 'no-store', signal: AbortSignal.timeout(25000) });
    if (answer.status !== 204) json = await answer.json();
  } catch {
    if (answer && !answer.ok) throw new Problem(`The answer was ${answer.status}.`, '');
    throw new Problem('The demo does not answer.', 'Is it still running in its terminal? This page goes on by itself once it is.');
  }
  if (!answer.ok) throw new Problem(json.detail ?? json.title ?? `The answer was ${answer.status}.`, json.hint ?? '');
  return json;
}

let shown = null; // what the problem at the top is about: an action, or the polling
function showProblem(what, problem) {
  shown = what;
  if ($('problem-detail').textContent !== problem.message) $('problem-detail').textContent = problem.message;
  if ($('problem-hint').textContent !== (problem.hint ?? '')) $('problem-hint').textContent = problem.hint ?? '';
  $('problem').hidden = false;
}
function clearProblem(what) {
  if (shown === what) { $('problem').hidden = true; shown = null; }
}

/** Something that a person has asked for. */
async function act(button, work) {
  if (button.disabled) return;
  button.disabled = true;
  const focused = document.activeElement === button;
  try {
    clearProblem('action');
    await work();
  } catch (problem) {
    showProblem('action', problem);
  } finally {
    button.disabled = false;
    if (focused && document.activeElement === document.body) button.focus();
  }
}

// ---- people ----------------------------------------------------------------------------------------------------------

const person = (id) => place.people.find((p) => p.user_id === id);
const name = (id) => person(id)?.name ?? `user ${id}`;
const hostClass = (host) => `h${Math.max(0, place.hosts.indexOf(host)) % 3}`;
const others = () => place.people.filter((p) => p.user_id !== me);

function chip(element, where) {
  element.textContent = `shard ${where.shard} · host ${where.host}`;
  element.className = `chip ${hostClass(where.host)}`;
}

function options(select, people, value) {
  const wanted = people.map((p) => p.user_id).join();
  if (select.dataset.people !== wanted) {
    select.dataset.people = wanted;
    select.replaceChildren(...people.map((p) => new Option(p.name, p.user_id)));
  }
  select.value = value;
}

async function loadPlace() {
  const now = await call('GET', '/demo/people');
  if (JSON.stringify(now) === JSON.stringify(place)) return;
  place = now;
  parts.clear(); // hosts may be others now
  if (!person(me)) me = place.people[0].user_id;
  if (!person(watched) || watched === me) watched = others()[0].user_id;
  const hosts = place.hosts.length;
  $('tagline').textContent = `One Postgres to the app; ${place.shards} shards on ${hosts} host${hosts === 1 ? '' : 's'} behind it.`;
  const links = [['Metrics of the proxy', place.proxy_metrics]].filter(([, to]) => to).map(([text, to]) => {
    const item = document.createElement('li'), link = document.createElement('a');
    link.textContent = text;
    link.href = to;
    item.append(link);
    return item;
  });
  const list = $('links');
  while (list.children.length > 2) list.lastChild.remove();
  list.append(...links);
  showPeople();
  showChosen();
}

function showPeople() {
  options($('me'), place.people, me);
  options($('watch'), others(), watched);
  const lives = document.createElement('span');
  chip(lives, person(me));
  $('me-lives').replaceChildren(`user ${me} lives in `, lives);
  const list = $('people');
  for (const p of place.people) {
    let item = list.querySelector(`[data-user="${p.user_id}"]`);
    if (!item) {
      item = $('person').content.firstElementChild.cloneNode(true);
      item.dataset.user = p.user_id;
      item.querySelector('button').addEventListener('click', (e) => act(e.currentTarget, () => follow(p.user_id)));
      list.append(item);
    }
    const [face, strong, small, where, button] = ['.face', 'strong', 'small', '.chip', 'button'].map((s) => item.querySelector(s));
    face.textContent = p.name[0];
    face.className = `face ${hostClass(p.host)}`;
    strong.textContent = p.name;
    chip(where, p);
    const relation = relations.get(p.user_id);
    small.textContent = p.user_id === me ? 'you' : relation?.from_other === 'following' ? 'follows you' : '';
    button.hidden = p.user_id === me;
    const follows = relation?.to_other === 'following';
    button.textContent = follows ? 'Following' : 'Follow';
    button.setAttribute('aria-pressed', String(follows));
    button.setAttribute('aria-label', `${button.textContent} ${p.name}`);
    button.title = follows ? `Stop following ${p.name}` : `Follow ${p.name}`;
  }
}

async function loadRelations() {
  const asked = me;
  const said = await call('POST', `/v1/users/${me}/relations`, { others: others().map((p) => p.user_id) });
  if (asked !== me) return;
  relations.clear();
  for (const relation of said.relations) relations.set(relation.other, relation);
  showPeople();
}

async function follow(target) {
  const follows = relations.get(target)?.to_other === 'following';
  await call(follows ? 'DELETE' : 'PUT', `/v1/users/${me}/following/${target}`);
  await Promise.all([loadRelations(), mine.refresh(), other.refresh()]);
}

// ---- feeds -----------------------------------------------------------------------------------------------------------

/** Fetches what the ids say that are not known yet. */
async function loadParts(ids) {
  const missing = ids.filter((id) => !parts.has(id));
  if (missing.length === 0) return;
  const said = await call('GET', `/demo/media?ids=${missing.join()}`);
  for (const part of said.media) parts.set(part.id, part);
}

const words = (body) => (typeof body?.text === 'string' ? body.text : JSON.stringify(body));

function ago(time) {
  const seconds = Math.max(0, (Date.now() - time) / 1000);
  if (seconds < 5) return 'now';
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return new Date(time).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' });
}

class Feed {
  constructor(section, user, removable) {
    this.user = user; // a function: whose feed it is at the moment
    this.removable = removable;
    this.section = section;
    for (const part of ['news', 'rows', 'none', 'older']) this[part] = section.querySelector(`[data-part=${part}]`);
    this.turn = 0;
    this.begin();
    this.older.addEventListener('click', (e) => act(e.currentTarget, async () => {
      this.limit = Math.min(MOST, this.limit + STEP);
      await this.refresh();
    }));
  }

  /** Of another user from now on. */
  begin() {
    this.limit = STEP;
    this.loaded = null;
    this.newest = 0n;
    this.turn++;
    this.rows.replaceChildren();
    this.none.hidden = false;
    this.none.textContent = 'Loading';
    this.older.hidden = true;
  }

  /** Shows the newest page as the service has it now. What is asked later wins. */
  async refresh() {
    const turn = ++this.turn, user = this.user();
    const page = await call('GET', `/v1/users/${user}/home?limit=${this.limit}`);
    await loadParts(page.media.map((m) => m.id));
    if (turn === this.turn) this.show(user, page);
  }

  show(user, page) {
    const wanted = new Set(page.media.map((m) => m.id));
    for (const row of [...this.rows.children]) if (!wanted.has(row.dataset.id)) row.remove();
    const first = this.loaded !== user, arrived = [];
    let next = this.rows.firstElementChild;
    for (const media of page.media) {
      if (next?.dataset.id === media.id) {
        this.update(next);
        next = next.nextElementSibling;
        continue;
      }
      const row = this.row(media);
      this.rows.insertBefore(row, next);
      // Older ones that come back or were asked for have not just arrived.
      if (!first && BigInt(media.id) > this.newest) arrived.push([row, media]);
    }
    this.loaded = user;
    const said = arrived.filter(([, m]) => m.user_id !== me).map(([, m]) => `${name(m.user_id)}: ${words(m.body)}`);
    for (const [row] of arrived) row.classList.add('fresh');
    if (said.length > 0) this.news.textContent = `In the feed of ${name(user)}: ${said.join('; ')}`;
    const newest = page.media.length ? BigInt(page.media[0].id) : 0n;
    if (first || newest > this.newest) this.newest = newest;
    this.none.hidden = page.media.length > 0;
    this.none.textContent = user === me ? 'Nothing yet. Follow somebody, or post.' : `Nothing yet: ${name(user)} follows nobody who has posted.`;
    this.older.hidden = !page.older || this.limit >= MOST;
    if (chosen === null && page.media.length) choose(page.media[0].id);
  }

  row(media) {
    const row = $('row').content.firstElementChild.cloneNode(true);
    row.dataset.id = media.id;
    row.querySelector('strong').textContent = name(media.user_id);
    const time = row.querySelector('time');
    time.dateTime = media.created_at;
    row.querySelector('.text').textContent = words(media.body);
    row.querySelector('.face').textContent = name(media.user_id)[0];
    const id = row.querySelector('.id');
    id.textContent = media.id;
    id.title = 'Take this id apart';
    id.setAttribute('aria-label', `Take the id ${media.id} apart`);
    id.addEventListener('click', () => {
      choose(media.id);
      $('id-title').scrollIntoView({ block: 'nearest', behavior: 'smooth' });
    });
    const remove = row.querySelector('.delete');
    remove.hidden = !this.removable || media.user_id !== me;
    remove.setAttribute('aria-label', `Delete the post: ${words(media.body).slice(0, 40)}`);
    remove.addEventListener('click', () => act(remove, async () => {
      await call('DELETE', `/v1/media/${media.id}?user_id=${media.user_id}`);
      await Promise.all([mine.refresh(), other.refresh()]);
      $('mine').focus();
    }));
    this.update(row);
    return row;
  }

  /** What may be different a second later. */
  update(row) {
    const time = row.querySelector('time');
    const said = ago(Date.parse(time.dateTime));
    if (time.textContent !== said) time.textContent = said;
    const part = parts.get(row.dataset.id);
    if (part && row.dataset.host !== part.host) {
      row.dataset.host = part.host;
      chip(row.querySelector('.chip'), part);
      row.querySelector('.face').className = `face ${hostClass(part.host)}`;
    }
    row.querySelector('.id').setAttribute('aria-pressed', String(row.dataset.id === chosen));
  }
}

// ---- what an id says -------------------------------------------------------------------------------------------------

function choose(id) {
  chosen = id;
  for (const feed of [mine, other]) for (const row of feed.rows.children) feed.update(row);
  showChosen();
}

function showChosen() {
  const part = chosen && parts.get(chosen);
  if (!part) {
    if (chosen) loadParts([chosen]).then(() => parts.has(chosen) && showChosen(), () => {});
    return;
  }
  $('id-shown').textContent = part.id;
  const at = new Date(part.unix_ms).toLocaleString(undefined, {
    year: 'numeric', month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3,
  });
  const lines = [
    ['time', '41 bits, milliseconds since 2015', at],
    [`shard ${hostClass(part.host)}`, '13 bits, the logical shard', `${part.shard}: schema ${part.schema}, now on host\u00a0${part.host}`],
    ['sequence', '10 bits, counts within the shard', String(part.sequence)],
  ];
  $('bits').replaceChildren(...lines.map(([kind, term, value], n) => {
    const line = document.createElement('div'), dt = document.createElement('dt'), dd = document.createElement('dd'), bits = document.createElement('dd');
    line.className = kind;
    dt.textContent = term;
    dd.textContent = value;
    bits.textContent = part.bits[n];
    line.append(dt, dd, bits);
    return line;
  }));
  const tries = [
    ['Connect to the proxy', `psql ${place.proxy}`],
    ['The row, by its id alone', `SELECT user_id, body FROM media WHERE id = ${part.id};`],
    ['Where that goes, and why', `EXPLAIN (ROUTE) SELECT body FROM media WHERE id = ${part.id};`],
    ['Posts of everybody, from all shards', 'SELECT user_id, count(*) FROM media GROUP BY user_id ORDER BY 2 DESC;'],
    ['Past the proxy, on the host itself', `psql ${part.url} -c 'SELECT body FROM ${part.schema}.media WHERE id = ${part.id}'`],
  ];
  $('tries').replaceChildren(...tries.map(([what, text]) => {
    const block = document.createElement('div'), line = document.createElement('div'), said = document.createElement('span'), copy = document.createElement('button'), pre = document.createElement('pre');
    block.className = 'try';
    line.className = 'line between';
    said.textContent = what;
    copy.type = 'button';
    copy.className = 'plain';
    copy.textContent = 'Copy';
    copy.setAttribute('aria-label', `Copy: ${what}`);
    copy.addEventListener('click', () => act(copy, async () => {
      try {
        await navigator.clipboard.writeText(text);
        copy.textContent = 'Copied';
      } catch {
        getSelection().selectAllChildren(pre);
        copy.textContent = 'Selected';
      }
      setTimeout(() => { copy.textContent = 'Copy'; }, 1500);
    }));
    pre.textContent = text;
    line.append(said, copy);
    block.append(line, pre);
    return block;
  }));
}

// ---- what a person does ----------------------------------------------------------------------------------------------

const mine = new Feed($('mine'), () => me, true);
const other = new Feed($('other'), () => watched, false);

function keepAddress() {
  history.replaceState(null, '', `?as=${me}&watch=${watched}`);
}

$('me').addEventListener('change', async () => {
  me = $('me').value;
  if (watched === me) {
    watched = others()[0].user_id;
    other.begin();
  }
  relations.clear();
  mine.begin();
  $('posted').textContent = '';
  showPeople();
  keepAddress();
  await turn(true);
});

$('watch').addEventListener('change', async () => {
  watched = $('watch').value;
  other.begin();
  keepAddress();
  await turn(true);
});

// The same text under the same key is posted once, however often it had to be sent.
let attempt = null;
async function post(author, text) {
  if (attempt?.author !== author || attempt?.text !== text) attempt = { author, text, key: crypto.randomUUID() };
  const began = performance.now();
  const posted = await call('POST', '/v1/media', { user_id: author, body: { text } }, { 'Idempotency-Key': attempt.key });
  const took = Math.max(1, Math.round(performance.now() - began));
  attempt = null;
  const [counts] = await Promise.all([call('GET', `/v1/users/${author}/counts`), loadParts([posted.id])]);
  const { schema, host } = parts.get(posted.id);
  const who = author === me ? 'Posted' : `${name(author)} posted`;
  choose(posted.id);
  $('posted').textContent = `${who} to ${schema} on host ${host} in ${took} ms; for ${counts.followers} follower${counts.followers === 1 ? '' : 's'}.`;
  await Promise.all([mine.refresh(), other.refresh()]);
}

$('post').addEventListener('submit', (event) => {
  event.preventDefault();
  const text = $('text').value.trim();
  if (!text) return $('text').focus();
  act($('post').querySelector('button'), async () => {
    await post(me, text);
    $('text').value = '';
  });
});

$('text').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    $('post').requestSubmit();
  }
});

$('somebody').addEventListener('click', (event) => act(event.currentTarget, async () => {
  const followed = others().filter((p) => relations.get(p.user_id)?.to_other === 'following');
  const from = followed.length ? followed : others();
  const any = (list) => list[Math.floor(Math.random() * list.length)];
  await post(any(from).user_id, any(LINES));
}));

$('problem-close').addEventListener('click', () => {
  $('problem').hidden = true;
  shown = null;
  $('mine').focus();
});

// ---- once a second ---------------------------------------------------------------------------------------------------

let rounds = 0;
async function turn(all) {
  try {
    if (!place || all || rounds % 5 === 0) await loadPlace();
    const began = performance.now();
    const work = [mine.refresh(), other.refresh()];
    if (all || rounds % 5 === 0) work.push(loadRelations());
    await Promise.all(work);
    rounds++;
    clearProblem('polling');
    $('state').className = 'state live';
    say(`live, read in ${Math.max(1, Math.round(performance.now() - began))} ms`);
  } catch (problem) {
    if (shown !== 'action') showProblem('polling', problem);
    $('state').className = 'state down';
    say('not answering');
  }
}

// Said aloud only when the word changes, not with each number.
function say(text) {
  $('state').setAttribute('aria-live', $('state-text').textContent.slice(0, 4) === text.slice(0, 4) ? 'off' : 'polite');
  $('state-text').textContent = text;
}

async function run() {
  for (;;) {
    if (!document.hidden) await turn(false);
    await new Promise((next) => setTimeout(next, EVERY_MS));
  }
}
document.addEventListener('visibilitychange', () => { if (!document.hidden && place) turn(false); });
run();
