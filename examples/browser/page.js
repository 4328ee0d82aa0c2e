// The page: ?server=http://localhost:8080&filter=state=RUNNING
import { changeImage, list, Refused, Watch } from './notebookd.js';

const $ = id => document.getElementById(id);
const parameters = new URLSearchParams(location.search);
const server = parameters.get('server') ?? 'http://localhost:8080';
const filter = parameters.get('filter') ?? '';
$('ask').elements.filter.value = filter;
$('ask').onsubmit = event => {
  event.preventDefault();
  parameters.set('filter', $('ask').elements.filter.value);
  location.search = parameters;
};

// Texts are put in as text: what a cloud says is never taken for HTML.
function element(tag, text, ...children) {
  const e = document.createElement(tag);
  e.append(text, ...children);
  return e;
}
const row = n => element('tr', '', ...[n.name, (n.state ?? 'STATE_?').replace('STATE_', ''), n.image?.uri ?? '-'].map(text => element('td', text)));
const told = error => error instanceof Refused ? `${error.reason}: ${error.message}` : String(error);

// 1. A list.
try {
  for await (const n of list(server, filter, locations => { $('list-note').textContent = `cannot be reached now: ${locations.join(', ')}`; })) $('list').append(row(n));
  $('list-note').append(` ${$('list').rows.length} notebooks`);
} catch (error) {
  $('list-note').textContent = told(error);
}

// 2. A watch. The table is drawn once for all that came since the last frame of
// the screen, and not for each of ten thousand rows.
let drawing = false;
new Watch(server, filter, {
  bookmark: Number(parameters.get('bookmark') ?? 20),
  note: text => { $('watch-note').textContent = text; console.log('--', text); },
  changed: ({ notebook: event }, notebooks) => {
    if (event) console.log(event.type.replace('TYPE_', ''), event.notebook.name);
    if (drawing) return;
    drawing = true;
    setTimeout(() => {
      drawing = false;
      $('watch').replaceChildren(...[...notebooks.values()].sort((a, b) => (a.name < b.name ? -1 : 1)).map(row));
    }, 50);
  },
});

// 3. An image change: the plan, whose warnings become boxes to be ticked, and the
// change itself. The id is made once for what is in the form, so that a second
// press of the button is the same change.
const form = $('change');
let requestId = crypto.randomUUID();
form.oninput = () => { requestId = crypto.randomUUID(); };
form.onsubmit = async event => {
  event.preventDefault();
  const { notebook, image, type } = form.elements;
  const validateOnly = event.submitter?.name === 'plan';
  const acknowledge = [...document.querySelectorAll('#plan input:checked')].map(box => box.value);
  const note = text => { $('change-note').innerText = text; };
  note('…');
  try {
    const answer = await changeImage(server, notebook.value, { image: image.value, imageType: type.value, requestId, validateOnly, acknowledge }, note);
    const { change } = answer;
    if (validateOnly) {
      $('plan').replaceChildren(element('p', `${change.fromImage} → ${change.toImage}`), element('ol', '', ...(change.steps ?? []).map(step => element('li', step))),
        ...(change.warnings ?? []).map(({ code, message }) => {
          const box = element('input', '');
          box.type = 'checkbox';
          box.value = code;
          return element('p', '', element('label', box, ` ${code}: ${message}`));
        }));
      note('Nothing was changed. Tick what you accept.');
    } else {
      note(`${change.name} ${change.phase.replace('PHASE_', '')}${change.failure ? `: ${change.failure.message}` : ''}\n${answer.notebook?.name} has ${answer.notebook?.image?.uri}`);
    }
  } catch (error) {
    note([told(error), ...(error.violations ?? []).map(v => `${v.type}: ${v.description}`)].join('\n'));
  }
};
