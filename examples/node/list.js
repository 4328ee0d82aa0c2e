// list.js [FILTER] prints all notebooks that match, for example
// list.js 'state = RUNNING AND resources.accelerator.count >= 1'
import { connect, unary, reason } from './notebookd.js';

// notebooks yields all that match, a page at a time.
async function* notebooks(client, filter) {
  let pageToken = '';
  do {
    // The token of the next page goes with the same filter.
    const page = await unary(client, 'List', { filter, page_token: pageToken }, 20);
    // Clouds that are down fail nothing: their notebooks are shown as last known.
    if (!pageToken) for (const location of page.unreachable) console.error('cannot be reached now:', location);
    yield* page.notebooks;
    pageToken = page.next_page_token;
  } while (pageToken);
}

let client;
try {
  client = await connect();
  let count = 0;
  for await (const n of notebooks(client, process.argv[2] ?? '')) {
    // A field that is not set is not in the object.
    console.log(n.name, (n.state ?? 'STATE_?').replace('STATE_', ''), n.image?.uri ?? '-');
    count++;
  }
  console.log(count, 'notebooks');
} catch (error) {
  console.error(`${reason(error)}: ${error.details ?? error}`);
  process.exitCode = 1;
} finally {
  client?.close();
}
