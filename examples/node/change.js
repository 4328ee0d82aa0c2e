// change.js [-n] [-t TYPE] [-r UUID] [-a WARNING]... NOTEBOOK IMAGE gives a
// notebook another image.
//   -n  only show the plan: nothing is changed
//   -t  kind of image: official, user or custom on CoresHub, none elsewhere
//   -r  id of the request: the same again is the same change, not another one
//   -a  code of a warning of the plan that is accepted
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { connect, details, reason, status, unary } from './notebookd.js';

const { values, positionals: [name, image] } = parseArgs({
  allowPositionals: true,
  options: {
    plan: { type: 'boolean', short: 'n', default: false },
    type: { type: 'string', short: 't', default: '' },
    request: { type: 'string', short: 'r' },
    acknowledge: { type: 'string', short: 'a', multiple: true, default: [] },
  },
});
if (!image) {
  console.error('change.js [-n] [-t TYPE] [-r UUID] [-a WARNING]... NOTEBOOK IMAGE');
  process.exit(2);
}
const requestId = values.request ?? randomUUID();
if (!values.request && !values.plan) console.log('request id:', requestId);
const request = {
  name, image, image_type: values.type, request_id: requestId, validate_only: values.plan, acknowledge: values.acknowledge, wait: { seconds: 30 },
};

// It may have begun, or begin at the next attempt.
const passing = [status.UNKNOWN, status.DEADLINE_EXCEEDED, status.UNAVAILABLE];

// show prints how the change stands, and returns the exit code when it has ended.
function show({ change, notebook }) {
  const phase = change.phase.replace('PHASE_', '');
  switch (phase) {
    case 'PLANNED':
      console.log(`${change.from_image}\n-> ${change.to_image}`);
      for (const step of change.steps) console.log(`  ${step}`);
      for (const { code, message } of change.warnings) console.log(`warning ${code}: ${message}`);
      return 0;
    case 'SUCCEEDED':
    case 'UNCHANGED':
      console.log(change.name, phase);
      console.log(notebook.name, 'has', notebook.image.uri);
      return 0;
    case 'FAILED':
      console.error(`${change.name} FAILED: ${change.failure.message}`);
      return 1;
    default:
      console.log(`${phase}: still under way`); // ask again, at once: the server waits
      return undefined;
  }
}

// It may be sent as often as one likes: the id makes it the same change.
for (let attempt = 1; attempt <= 10; attempt++) {
  let client;
  try {
    client = await connect();
    const code = show(await unary(client, 'ChangeImage', request, 40));
    if (code !== undefined) process.exit(code);
  } catch (error) {
    console.error(`${reason(error)}: ${error.details ?? error}`);
    for (const { type, description } of details(error).PreconditionFailure?.violations ?? []) console.error(`  ${type}: ${description}`);
    if (!passing.includes(error.code)) process.exit(1);
    await sleep(attempt * 1000);
  } finally {
    client?.close();
  }
}
console.error(`it has not ended yet; to ask again: -r ${requestId}, with the same arguments`);
process.exitCode = 1;
