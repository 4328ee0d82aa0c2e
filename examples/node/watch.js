// watch.js [FILTER] prints the notebooks that match, and then every change. What
// it knows and its token are kept in a file: stop it, stop the server, start both
// again, and it goes on with what it missed.
//
//   NOTEBOOKD_STATE     the file, default notebookd-watch.json
//   NOTEBOOKD_BOOKMARK  how often a quiet server has to say that it is there, in
//                       seconds, default 20
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, metadata, permanent, reason } from './notebookd.js';

const filter = process.argv[2] ?? '';
const file = process.env.NOTEBOOKD_STATE ?? 'notebookd-watch.json';
const bookmark = Number(process.env.NOTEBOOKD_BOOKMARK ?? 20);
const silence = 3 * bookmark; // three that are missed: the connection is dead
const note = text => console.error('--', text);

let notebooks = new Map(); // what is known, by name
let token = ''; // continues after exactly that
if (existsSync(file)) {
  const stored = JSON.parse(readFileSync(file));
  notebooks = new Map(stored.notebooks.map(n => [n.name, n]));
  token = stored.token;
  note(`going on with ${notebooks.size} notebooks from ${file}`);
}

// store keeps notebooks and token together: one of them alone would be wrong
// after a crash. (With very many notebooks, a database would do that better.)
function store() {
  writeFileSync(`${file}.new`, JSON.stringify({ token, notebooks: [...notebooks.values()] }));
  renameSync(`${file}.new`, file);
}

// apply takes one frame over. What is not known here is news of a newer server.
function apply(frame) {
  switch (frame.event) {
    case 'notebook': {
      const { type, notebook: n } = frame.notebook;
      const what = type.replace('TYPE_', '');
      if (what === 'ADDED' || what === 'MODIFIED') {
        notebooks.set(n.name, n);
        console.log(what, n.name, (n.state ?? 'STATE_?').replace('STATE_', ''), n.image?.uri ?? '-');
      } else if (what === 'DELETED' || what === 'LEFT_FILTER') { // only DELETED says that it is gone from its cloud
        notebooks.delete(n.name); // after a resume it may be one that was never told
        console.log(what, n.name);
      }
      break;
    }
    case 'location':
      console.log('LOCATION', frame.location.name, frame.location.state.replace('STATE_', ''));
      break;
    case 'reset': // it cannot go on from there: a full snapshot follows
      notebooks.clear();
      note(`reset (${frame.reset.reason}): everything is told anew`);
      break;
    case 'bookmark':
      if (frame.bookmark.kind === 'KIND_SNAPSHOT_END') note(`up to date: ${notebooks.size} notebooks`);
      if (frame.bookmark.kind === 'KIND_CLOSING') note('the server closes'); // and its last token is this one
  }
}

// follow reads one stream until it ends, and says why it did.
async function follow() {
  // A new connection for each stream: the one before may be dead without having
  // noticed.
  const client = await connect();
  const call = client.Watch({ filter, resume_token: token, bookmark_interval: { seconds: bookmark } }, metadata());
  let silent = false;
  const timer = setTimeout(() => { silent = true; call.cancel(); }, silence * 1000);
  try {
    for await (const frame of call) {
      timer.refresh();
      failed = 0;
      apply(frame);
      if (frame.resume_token) { // the rows of a snapshot have none
        // First use what came, then store: after a crash it comes again, and
        // nothing is lost.
        token = frame.resume_token;
        store();
      }
    }
    return 'the stream ended';
  } catch (error) {
    if (silent) return `silent for ${silence} s`;
    throw error;
  } finally {
    clearTimeout(timer);
    call.cancel();
    client.close();
  }
}

let failed = 0; // attempts in a row without a frame
for (;;) {
  let why;
  try {
    why = await follow();
  } catch (error) {
    if (error.code === undefined) throw error; // not of gRPC: a full disk, say
    why = `${reason(error)}: ${error.details}`;
    if (reason(error) === 'RESUME_TOKEN_INVALID' && token) { // made for another filter, say
      notebooks.clear();
      token = '';
    } else if (permanent(error)) {
      console.error(why);
      process.exit(1);
    }
  }
  const pause = Math.min(2 ** failed++, 30);
  note(`${why}; again in about ${pause} s`);
  await sleep(pause * (500 + 500 * Math.random())); // not all at the same time
}
