// Talks to notebookd from a page, with what every browser has. Nothing here knows
// the page.

// Refused is an error of notebookd: programs go by its reason.
export class Refused extends Error {
  constructor(status) {
    super(status.message);
    this.code = status.code;
    const details = status.details ?? [];
    this.reason = details.find(d => d.reason)?.reason ?? `error ${status.code}`;
    this.violations = details.flatMap(d => d.violations ?? []); // warnings that are not acknowledged: {type, description}
  }
}

// Errors that come again however often one tries: INVALID_ARGUMENT, NOT_FOUND,
// PERMISSION_DENIED, UNIMPLEMENTED, UNAUTHENTICATED.
const permanent = error => error instanceof Refused && [3, 5, 7, 12, 16].includes(error.code);
// UNKNOWN, DEADLINE_EXCEEDED, UNAVAILABLE, no answer at all: what was asked for
// may have begun.
const passing = error => !(error instanceof Refused) || [2, 4, 14].includes(error.code);

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

async function answered(response) {
  if (response.ok) return response;
  throw new Refused(await response.json().catch(() => ({ code: 14, message: `HTTP ${response.status}` })));
}

// list yields all notebooks that match a filter, a page at a time. Clouds that
// are down fail nothing: their notebooks come as last known, and their locations
// are told to unreachable.
export async function* list(server, filter, unreachable = () => {}) {
  let pageToken = '';
  do {
    // The token of the next page goes with the same filter.
    const query = new URLSearchParams({ filter, pageToken });
    const page = await (await answered(await fetch(`${server}/v1/notebooks?${query}`))).json();
    if (!pageToken && page.unreachable) unreachable(page.unreachable);
    yield* page.notebooks ?? []; // a field that is not set is not in the JSON
    pageToken = page.nextPageToken;
  } while (pageToken);
}

// Watch keeps the notebooks that match a filter, as a map by name, and calls
// changed whenever something came, and note when there is something to be told.
// What it knows and its token are kept in storage (localStorage): open the page
// again, or stop and start the server, and it goes on with what it missed.
export class Watch {
  constructor(server, filter, { bookmark = 20, storage = localStorage, changed, note }) {
    Object.assign(this, { server, filter, bookmark, storage, changed, note });
    this.notebooks = new Map();
    this.token = ''; // continues after exactly the notebooks
    this.key = `notebookd ${server} ${filter}`;
    const stored = JSON.parse(storage.getItem(this.key) ?? 'null');
    if (stored) {
      this.notebooks = new Map(stored.notebooks.map(n => [n.name, n]));
      this.token = stored.token;
      note(`going on with ${this.notebooks.size} notebooks`);
    }
    this.open();
  }

  close() {
    this.source?.close();
    clearTimeout(this.timer);
  }

  open() {
    this.close();
    const query = new URLSearchParams({ filter: this.filter, resumeToken: this.token, bookmarkInterval: `${this.bookmark}s` });
    this.url = `${this.server}/v1/notebooks:watch?${query}`;
    // The browser comes again by itself with the last id, also after a restart of
    // the server. What it does not do: notice silence, and try again after an error.
    const source = this.source = new EventSource(this.url);
    for (const name of ['notebook', 'location', 'bookmark', 'image_change', 'reset']) {
      source.addEventListener(name, event => this.apply(JSON.parse(event.data)));
    }
    source.onerror = () => {
      this.note('the connection is lost; the browser tries again');
      if (source.readyState === EventSource.CLOSED) this.ask(source);
    };
    this.listen();
  }

  // listen waits for the next frame. Three bookmarks that are missed mean that the
  // connection is dead.
  listen() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.note(`silent for ${3 * this.bookmark} s; connecting anew`);
      this.open();
    }, 3 * this.bookmark * 1000);
  }

  // ask finds out why an EventSource gave up, which it does not tell.
  async ask(source) {
    clearTimeout(this.timer);
    try {
      const response = await answered(await fetch(this.url));
      await response.body.cancel();
    } catch (error) {
      if (error.reason === 'RESUME_TOKEN_INVALID' && this.token) {
        this.notebooks.clear();
        this.token = '';
      } else if (permanent(error)) {
        this.note(`${error.reason}: ${error.message}`);
        return;
      }
    }
    await sleep(2000 + 3000 * Math.random()); // not all at the same time
    if (this.source === source) this.open(); // nobody has opened another one meanwhile
  }

  // apply takes one frame over. What is not known here is news of a newer server.
  apply(frame) {
    this.listen();
    if (frame.notebook) {
      const { type, notebook } = frame.notebook;
      if (type === 'TYPE_ADDED' || type === 'TYPE_MODIFIED') this.notebooks.set(notebook.name, notebook);
      // Only TYPE_DELETED says that it is gone from its cloud.
      if (type === 'TYPE_DELETED' || type === 'TYPE_LEFT_FILTER') this.notebooks.delete(notebook.name);
    } else if (frame.reset) { // it cannot go on from there: a full snapshot follows
      this.notebooks.clear();
      this.note(`reset (${frame.reset.reason}): everything is told anew`);
    } else if (frame.bookmark?.kind === 'KIND_SNAPSHOT_END') {
      this.note(`up to date: ${this.notebooks.size} notebooks`);
    } else if (frame.bookmark?.kind === 'KIND_CLOSING') {
      this.note('the server closes'); // and its last token is this one
    }
    this.changed(frame, this.notebooks);
    if (frame.resumeToken) { // the rows of a snapshot have none
      this.token = frame.resumeToken;
      this.storage.setItem(this.key, JSON.stringify({ token: this.token, notebooks: [...this.notebooks.values()] }));
    }
  }
}

// changeImage asks for {image, imageType, validateOnly, acknowledge, requestId}
// and waits until the change has ended. It may be sent as often as one likes: the
// request id makes it the same change.
export async function changeImage(server, name, request, progress = () => {}) {
  for (let attempt = 1; ; attempt++) {
    try {
      const response = await fetch(`${server}/v1/${name}:changeImage`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ ...request, wait: '30s' }),
        signal: AbortSignal.timeout(40_000),
      });
      const answer = await (await answered(response)).json();
      if (['PHASE_PLANNED', 'PHASE_SUCCEEDED', 'PHASE_UNCHANGED', 'PHASE_FAILED'].includes(answer.change.phase) || attempt === 10) return answer;
      progress(`${answer.change.phase.replace('PHASE_', '')}: still under way`); // ask again, at once: the server waits
    } catch (error) {
      if (!passing(error) || attempt === 10) throw error;
      progress(error.message);
      await sleep(attempt * 1000);
    }
  }
}
