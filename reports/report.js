'use strict';
// Draws the page from the JSON that it carries. Text that a model wrote reaches the page through textContent only.
const {run, samples, command_again: again} = JSON.parse(document.getElementById('data').textContent);

// ---- small helpers
const at = id => document.getElementById(id);
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null) continue;
    if (name === 'onclick') node.addEventListener('click', value);
    else node.setAttribute(name, value);
  }
  node.append(...children.filter(child => child !== null && child !== undefined));
  return node;
}
const tight = text => text.replaceAll(' %', '\u00a0%');  // no line ends between a number and its sign
const percent = share => tight((100 * share).toFixed(1) + ' %');
const number = value => Number(value).toLocaleString('en-US');
const counted = (n, one, many = one + 's') => number(n) + ' ' + (n === 1 ? one : many);
const words = name => name.replaceAll('_', ' ');
const languageName = {ja: 'Japanese', en: 'English', zh: 'Chinese'};
const tone = name => name === 'correct' ? 'good' : name === 'answered' ? 'plain' : ['truncated_answer', 'unextractable', 'error', 'timeout'].includes(name) ? 'meh' : 'bad';
const badge = (text, kind) => el('span', {class: 'badge ' + kind}, text);
function interval(rate) {
  return el('span', {class: 'interval', title: tight('95 % interval over ') + counted(rate.n_clusters, 'cluster')},
    '[' + (100 * rate.lo).toFixed(1) + ', ' + (100 * rate.hi).toFixed(1) + ']');
}
function rateCell(rate) {
  if (rate.n === 0) return el('td', {class: 'soft'}, '–');
  const fill = el('i'), whisker = el('b');
  fill.style.width = 100 * rate.estimate + '%';
  whisker.style.left = 100 * rate.lo + '%';
  whisker.style.width = 100 * (rate.hi - rate.lo) + '%';
  return el('td', {}, el('span', {class: 'bar', 'aria-hidden': 'true'}, fill, whisker), percent(rate.estimate), interval(rate));
}
// On a narrow page a row of many cells becomes a block in which each cell says its column's name (report.css).
function table(heads, rows) {
  const isWide = heads.length > 5;
  if (isWide) for (const row of rows) [...row.children].forEach((cell, i) => { cell.dataset.head = heads[i].text ?? heads[i]; });
  const head = el('tr', {}, ...heads.map(h => el('th', {scope: 'col', class: h.num ? 'num' : null, title: h.title}, h.text ?? h)));
  return el('div', {class: rows.length > 20 ? 'scroll many' : 'scroll'}, el('table', {class: isWide ? 'wide' : null}, el('thead', {}, head), el('tbody', {}, ...rows)));
}
const num = value => el('td', {class: 'num'}, value);
// Not every answer is judged: an accuracy is of those that are.
const judged = g => g.accuracy.n === g.n ? number(g.n) : number(g.accuracy.n) + ' of ' + number(g.n);
const judgedHead = {text: 'Judged', num: true, title: 'Samples whose answer is judged, of all that were asked: what the accuracy is of'};
const link = (text, filter) => el('a', {class: 'cell', href: '#' + new URLSearchParams(filter)}, text);
const manySuites = run.plan.suites.length > 1;
const armTitle = (suite, arm) => (manySuites ? suite + ' · ' : '') + arm;

// ---- verdict
function copy(text, button) {
  const done = () => { button.textContent = 'Copied'; setTimeout(() => { button.textContent = 'Copy'; }, 1500); };
  // The clipboard API is missing on file:// in some browsers; a selection works everywhere.
  const fallback = () => {
    const area = el('textarea'); area.value = text; document.body.append(area); area.select();
    document.execCommand('copy'); area.remove(); done();
  };
  if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, fallback); else fallback();
}
function drawVerdict() {
  const header = at('verdict'), verdict = run.verdict, who = run.provenance, steps = run.timings.steps;
  header.className = verdict.state;
  const theme = el('button', {type: 'button', title: 'Light or dark (d)', onclick: toggleTheme}, 'Theme');
  const copyButton = el('button', {type: 'button', onclick: () => copy(again, copyButton)}, 'Copy');
  const suites = run.plan.suites.map(s => s.title + ' (' + s.name + ' v' + s.version + ')').join(', ');
  // What whoever loads the model is warned of.
  const notes = [...(who.target.synthetic ? ['Not a model: ' + who.target.synthetic] : []), ...(who.target.misspelt ?? [])];
  const fact = (name, value) => el('span', {}, name + ' ', el('b', {}, value));
  header.append(...[
    el('div', {class: 'tools'}, theme),
    el('h1', {}, el('span', {class: 'word'}, verdict.state), el('span', {class: 'soft'}, 'exit code ' + verdict.exit_code)),
    el('p', {class: 'headline'}, tight(verdict.summary)),
    run.metrics.filter(g => !g.language && !g.kind && g.gated && g.accuracy.n).length > 4 ? null : el('p', {}, 'Accuracy: ', ...run.metrics.filter(g => !g.language && !g.kind && g.gated && g.accuracy.n).flatMap((g, i) => [
      i ? ', ' : '', armTitle(g.suite, g.arm) + ' ', el('b', {}, percent(g.accuracy.estimate)), interval(g.accuracy)])),
    verdict.problems.length ? el('ul', {}, ...verdict.problems.map(p => el('li', {}, tight(p)))) : null,
    verdict.warnings?.length ? el('ul', {class: 'soft'}, ...verdict.warnings.map(w => el('li', {}, tight(w)))) : null,
    el('div', {class: 'facts'},
      fact('Suite', suites), fact('Profile', run.plan.profile), fact('Samples', number(run.samples.n)),
      fact('Model', String(who.target.model_dir ?? who.target.kind ?? '').split('/').slice(-2).join('/')),
      fact('Backend', [who.target.backend, who.target.kernel].filter(Boolean).join(' ') || '–'),
      steps ? fact('Steps', number(steps.replayed) + ' replayed as graphs, ' + number(steps.recorded) + ' recorded, ' + number(steps.direct) + ' launch by launch' + (steps.beyond_graphs ? ', ' + number(steps.beyond_graphs) + ' of them because the memory for graphs is used up' : '')) : null,
      fact('Seed', run.plan.seed), fact('Started', who.started)),
    notes.length ? el('ul', {class: 'soft'}, ...notes.map(note => el('li', {}, note))) : null,
    el('div', {class: 'command'}, el('code', {title: 'Runs this again, into a new folder'}, again), copyButton)].filter(Boolean));
}
function toggleTheme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === 'dark' ? 'light' : 'dark';
}
if (matchMedia('(prefers-color-scheme: dark)').matches) document.documentElement.dataset.theme = 'dark';

// ---- tables
function drawGates() {
  const rowOf = gate => el('tr', {},
    el('td', {class: 'says'}, badge({pass: '✓ pass', fail: '✗ fail', not_run: '– no case'}[gate.state], {pass: 'good', fail: 'bad', not_run: 'meh'}[gate.state])),
    el('th', {scope: 'row'}, (manySuites ? gate.suite + ' · ' : '') + gate.name),
    el('td', {class: 'where'}, gate.metric, el('span', {class: 'soft'}, ' of ' + gate.where.replaceAll('+', ' + '))),
    num(gate.min !== null ? '≥ ' + percent(gate.min) : '≤ ' + percent(gate.max)),
    gate.state === 'not_run' ? el('td', {class: 'soft'}, '–') : el('td', {class: 'num'}, percent(gate.rate.estimate), interval(gate.rate)),
    num(number(gate.rate.n)),
    el('td', {class: 'wrap'}, tight(gate.detail)));
  const tableOf = gates => table(['', 'Gate', 'Looks at', {text: 'Limit', num: true}, {text: tight('Measured [95 %]'), num: true}, {text: 'n', num: true}, 'How far from failing'], gates.map(rowOf));
  const gates = run.verdict.gates, failed = gates.filter(g => g.state === 'fail');
  if (gates.length <= 12) return void at('gates').append(tableOf(gates));
  // Many suites: what failed is shown, the rest folded, a suite a line.
  if (failed.length) at('gates').append(tableOf(failed));
  for (const suite of [...new Set(gates.map(g => g.suite))]) {
    const mine = gates.filter(g => g.suite === suite), count = state => mine.filter(g => g.state === state).length;
    const nJudged = count('pass') + count('fail'), sign = !nJudged ? badge('–', 'meh') : count('fail') ? badge('✗', 'bad') : badge('✓', 'good');
    const held = !nJudged ? 'no case for its ' + counted(mine.length, 'gate') : count('pass') + ' of ' + nJudged + ' gates hold' + (count('not_run') ? ', ' + count('not_run') + ' had no case' : '');  // as the console says it
    at('gates').append(el('details', {class: 'fold'}, el('summary', {}, sign, ' ', el('b', {}, suite), ' ', held), tableOf(mine)));
  }
}
function drawAccuracy() {
  const heads = ['', judgedHead,
    {text: tight('Accuracy [95 % interval, by cluster]'), title: 'Correct finished answers among all judged samples that ran'},
    {text: 'of answered', num: true, title: 'Correct among finished answers: what truncation does not touch'},
    {text: 'closed', num: true, title: '</think> came exactly once'}, {text: 'stopped', num: true, title: 'The model ended the reply itself'},
    {text: 'thinking tokens p50 / p90 / max', num: true, title: 'Of samples that closed their thinking'}];
  const rowOf = (name, g) => el('tr', {class: g.language || g.kind ? null : 'total'},
    el('th', {scope: 'row'}, name), num(link(judged(g), {suite: g.suite, arm: g.arm, language: g.language})), rateCell(g.accuracy),
    num(g.n_answered ? percent(g.accuracy_answered) : '–'), num(g.closed.n ? percent(g.closed.estimate) : '–'), num(g.stopped.n ? percent(g.stopped.estimate) : '–'),
    num(g.thinking_tokens.max ? [g.thinking_tokens.p50, g.thinking_tokens.p90, g.thinking_tokens.max].map(number).join(' / ') +
      (g.thinking_tokens.n_censored ? ' (+' + g.thinking_tokens.n_censored + ' open)' : '') : '–'));
  const totals = run.metrics.filter(g => !g.language && !g.kind);
  let into = at('accuracy');
  if (totals.length > 4) {  // many suites: one table of all, and the rest folded
    const languages = [...new Set(run.metrics.filter(g => g.language && !g.kind).map(g => g.language))];
    const cell = (total, language) => {
      const g = run.metrics.find(one => one.suite === total.suite && one.arm === total.arm && one.gated === total.gated && one.language === language && !one.kind);
      return g && g.accuracy.n ? el('td', {class: 'num', title: tight('95 %: ' + percent(g.accuracy.lo) + ' to ' + percent(g.accuracy.hi)) + ', n = ' + g.accuracy.n}, percent(g.accuracy.estimate)) : num('–');
    };
    into.append(table(['', judgedHead, {text: tight('Accuracy [95 %]')}, ...languages.map(l => ({text: languageName[l] ?? l, num: true})), {text: 'closed', num: true}, {text: 'stopped', num: true}],
      totals.map(g => el('tr', {}, el('th', {scope: 'row'}, armTitle(g.suite, g.arm) + (g.gated ? '' : ' (in no gate)')), num(link(judged(g), {suite: g.suite, arm: g.arm})), rateCell(g.accuracy),
        ...languages.map(l => cell(g, l)), num(g.closed.n ? percent(g.closed.estimate) : '–'), num(g.stopped.n ? percent(g.stopped.estimate) : '–')))));
    const fold = el('details', {class: 'fold'}, el('summary', {}, 'Each arm by language, with intervals'));
    into.append(fold);
    into = fold;
  }
  for (const total of totals) {
    const same = g => g.suite === total.suite && g.arm === total.arm && g.gated === total.gated;
    const rows = [rowOf('all', total), ...run.metrics.filter(g => same(g) && g.language && !g.kind).map(g => rowOf(languageName[g.language] ?? g.language, g))];
    into.append(el('h3', {}, armTitle(total.suite, total.arm) + (total.gated ? '' : ' · asked, but in no gate')), table(heads, rows));
  }
}
function drawKinds() {
  for (const total of run.metrics.filter(g => !g.language && !g.kind && g.gated)) {
    const mine = run.metrics.filter(g => g.suite === total.suite && g.arm === total.arm && g.gated);
    if (!mine.some(g => g.accuracy.n)) continue;  // nobody judges these answers
    const kinds = mine.filter(g => g.kind && !g.language), languages = mine.filter(g => g.language && !g.kind).map(g => g.language);
    const cell = (kind, language) => {
      const g = mine.find(one => one.kind === kind && one.language === language);
      if (!g) return el('td', {class: 'num soft'}, '–');
      return el('td', {class: 'num'}, link(g.accuracy.n_true + ' / ' + g.accuracy.n, {suite: g.suite, arm: g.arm, language, kind}),
        g.accuracy.n_true < g.accuracy.n ? ' ' : '', g.accuracy.n_true < g.accuracy.n ? badge('−' + (g.accuracy.n - g.accuracy.n_true), 'bad') : '');
    };
    const rows = kinds.map(g => el('tr', {}, el('th', {scope: 'row'}, words(g.kind)), rateCell(g.accuracy), ...languages.map(l => cell(g.kind, l))));
    const many = run.plan.suites.length > 1;
    const into = many ? el('details', {class: 'fold'}, el('summary', {}, armTitle(total.suite, total.arm))) : at('kinds');
    if (many) at('kinds').append(into); else into.append(el('h3', {}, armTitle(total.suite, total.arm)));
    into.append(table(['', tight('Accuracy [95 %]'), ...languages.map(l => ({text: languageName[l] ?? l, num: true}))], rows));
  }
}
const classOrder = ['correct', 'answered', 'wrong', 'unextractable', 'language_drift', 'truncated_answer', 'closed_empty', 'eos_in_think', 'no_close', 'loop_near', 'loop_exact', 'degenerate_token', 'timeout', 'error'];
// ---- thinking: how long, and whether it ends
const isTotal = g => !g.language && !g.kind;
function stillThinking(tokens, n) {  // the curve ends where nobody is left to look at
  const point = tokens.survival.find(p => p.n_tokens === n), last = tokens.survival[tokens.survival.length - 1];
  if (point) return el('td', {class: 'num', title: tight('95 %: ' + percent(point.lo) + ' to ' + percent(point.hi)) + '; ' + number(point.n_at_risk) + ' had thought longer'}, percent(point.share));
  return num(n > last.n_tokens && last.share === 0 ? '0' : '?');
}
function drawThinking() {
  const arms = run.metrics.filter(g => isTotal(g) && g.thinking_tokens.survival.length);
  if (!arms.length) return;
  at('thinking').hidden = false;
  const budgets = [64, 256, 1024, 4096];
  const share = rate => num(rate.n ? percent(rate.estimate) : '–');
  at('thinking').append(table(['', {text: 'n', num: true}, {text: tight('Closed [95 %]'), title: 'The model wrote </think> exactly once itself'},
    {text: 'Answered', num: true, title: 'A finished answer followed'}, {text: 'By force', num: true, title: 'Closed at the thinking budget'},
    ...budgets.map(b => ({text: 'Still at ' + number(b), num: true, title: 'Kaplan–Meier: share that still thinks after so many tokens; limits are censored'})),
    {text: 'Languages right', num: true}, {text: 'No loop', num: true}, {text: 'Hesitations / 1K', num: true, title: 'wait, 待って, 等等 … per 1,000 thinking tokens'},
    {text: 'Reached, not said', num: true, title: 'The right answer stands in the thinking, and not in the answer'}],
    arms.map(g => el('tr', {}, el('th', {scope: 'row'}, armTitle(g.suite, g.arm) + (g.gated ? '' : ' (in no gate)')), num(link(number(g.n), {suite: g.suite, arm: g.arm})),
      rateCell(g.closed), share(g.answered), num(number(g.thinking_tokens.n_forced)), ...budgets.map(b => stillThinking(g.thinking_tokens, b)),
      share(g.language_right), share(g.no_loop), num(g.hesitations_per_1k.toFixed(1)), num(number(g.n_reached))))));
}

// ---- needles: a heat map per arm and kind, each cell with its n
function drawNeedles() {
  const grid = run.needle_grid ?? [];
  if (!grid.length) return;
  at('needles').hidden = false;
  const unique = values => [...new Set(values)];
  for (const suite of unique(grid.map(c => c.suite))) for (const arm of unique(grid.map(c => c.arm))) {
    for (const kind of unique(grid.filter(c => c.suite === suite && c.arm === arm).map(c => c.kind))) {
      const mine = grid.filter(c => c.suite === suite && c.arm === arm && c.kind === kind);
      const depths = unique(mine.map(c => c.depth)).sort((a, b) => a - b), lengths = unique(mine.map(c => c.n_tokens)).sort((a, b) => a - b);
      const rows = lengths.map(length => el('tr', {}, el('th', {scope: 'row'}, number(length)), ...depths.map(depth => {
        const cells = mine.filter(c => c.n_tokens === length && c.depth === depth);
        if (!cells.length) return el('td', {class: 'heat soft'}, '–');
        const sum = key => cells.reduce((total, c) => total + c[key], 0);
        const n = sum('n'), right = sum('n_correct'), again = sum('n_reask_correct');
        const title = cells.map(c => (languageName[c.language] ?? c.language) + ' ' + c.n_correct + '/' + c.n + tight(' [' + percent(c.lo) + ', ' + percent(c.hi) + ']')).join('; ') +
          (sum('n_reasked') ? '; ' + again + ' of ' + sum('n_reasked') + ' missed were found when asked again in other words' : '');
        const td = el('td', {class: 'heat', title}, link(right + '/' + n, {suite, arm, kind, text: '-' + length + '-d' + Math.round(100 * depth) + '-r'}), again ? el('span', {class: 'soft'}, ' +' + again) : '');
        td.style.background = 'color-mix(in srgb, var(--pass-bg) ' + 100 * right / n + '%, var(--fail-bg))';
        return td;
      })));
      const section = el('details', {open: kind ? null : ''}, el('summary', {}, armTitle(suite, arm) + ' · ' + (kind ? words(kind) : 'all gated kinds')),
        table([{text: 'Tokens'}, ...depths.map(d => ({text: tight(Math.round(100 * d) + ' % deep'), num: true}))], rows));
      at('needles').append(section);
    }
  }
}

// ---- goldens: this build of assay against what an earlier one computed for the same model
function drawGoldens() {
  const goldens = run.goldens ?? [];
  at('goldens').hidden = goldens.length === 0 && !run.golden_note;
  if (run.golden_note) at('goldens').append(el('p', {}, badge('– not held', 'meh'), ' ', run.golden_note));
  const nats = v => v === 0 ? '0' : v.toPrecision(2);
  for (const g of goldens) {
    const n = g.divergences.length;
    const state = g.state === 'pass' ? badge('✓ holds', 'good') : g.state === 'diverged' ? badge('✗ diverges', 'bad') : badge('– not comparable', 'meh');
    const text = g.state === 'not_comparable' ? g.reason
      : (n ? number(n) + ' of ' + number(g.n_replies) + ' replies are computed otherwise' : g.n_replies === 1 ? 'its one reply is computed as before' : 'all ' + number(g.n_replies) + ' replies are computed as before')
        + ' (' + counted(g.n_positions, 'token') + ', ' + counted(g.n_ties, 'tie') + '; log p moved by ' + nats(g.max_logprob_change) + ' nats at most, noise floor ' + nats(g.noise_floor.logprob) + ')';
    at('goldens').append(el('p', {}, state, ' ', el('b', {}, g.name), ' ', text));
    if (!n) continue;
    const rows = g.divergences.slice(0, 50).map(d => el('tr', {}, el('td', {}, d.key), num(number(d.position)),
      el('td', {}, d.was_text), el('td', {}, d.other_token ? d.is_text : 'the same token'), num(nats(d.margin)), num(nats(d.logprob_change)), num(number(d.n_positions))));
    at('goldens').append(table(['Reply', {text: 'At token', num: true}, 'Then', 'Now', {text: 'Led by, nats', num: true}, {text: 'log p moved', num: true}, {text: 'Tokens that diverge', num: true}], rows));
    if (n > 50) at('goldens').append(el('p', {class: 'soft'}, number(n - 50) + ' more are in run.json.'));
  }
}

function drawOutcomes() {
  const totals = run.metrics.filter(g => !g.language && !g.kind);
  const name = g => armTitle(g.suite, g.arm) + (g.gated ? '' : ' (in no gate)');
  const classes = classOrder.filter(c => totals.some(g => g.classes[c]));
  at('outcomes').append(table(['Outcome', ...classes.map(c => ({text: words(c), num: true}))],
    totals.map(g => el('tr', {}, el('th', {scope: 'row'}, name(g)), ...classes.map(c =>
      num(g.classes[c] ? link(number(g.classes[c]), {suite: g.suite, arm: g.arm, outcome: c}) : '0'))))));
  const reasons = [...new Set(totals.flatMap(g => Object.keys(g.finish)))].sort();
  at('outcomes').append(el('p'), table(['Finish reason', ...reasons.map(r => ({text: words(r), num: true}))],
    totals.map(g => el('tr', {}, el('th', {scope: 'row'}, name(g)), ...reasons.map(r => num(number(g.finish[r] ?? 0)))))));
}

// ---- samples: failures first, filtered, opened one by one
const severity = s => s.outcome.class === 'correct' ? 2 : s.outcome.class === 'answered' ? 1 : 0;
const ordered = samples.map((s, i) => ({...s, i})).sort((a, b) => severity(a) - severity(b) || a.i - b.i);
const facets = {suite: s => s.suite, arm: s => s.arm, language: s => s.language, kind: s => s.kind, outcome: s => s.outcome.class};
const state = {};
function drawFilters() {
  for (const [name, of] of Object.entries(facets)) {
    const values = [...new Set(samples.map(of))];
    if (name === 'outcome') values.sort((a, b) => classOrder.indexOf(a) - classOrder.indexOf(b));
    if (name === 'suite' && values.length < 2) continue;
    const select = el('select', {id: 'f-' + name, 'aria-label': name}, el('option', {value: ''}, 'every ' + name),
      name === 'outcome' ? el('option', {value: '!correct'}, 'not correct') : null,
      ...values.map(v => el('option', {value: v}, name === 'language' ? languageName[v] ?? v : words(v))));
    select.addEventListener('change', () => setFilter({...state, [name]: select.value}));
    at('filters').append(select);
  }
  const search = el('input', {id: 'f-text', type: 'search', placeholder: 'Search question, thinking, answer, id   ( / )', 'aria-label': 'Search'});
  search.addEventListener('input', () => setFilter({...state, text: search.value}));
  at('filters').append(search, el('button', {type: 'button', onclick: () => setFilter({})}, 'Clear'));
}
function setFilter(next) {  // the address keeps the filter, so a view can be sent to someone
  const set = Object.entries(next).filter(([, value]) => value);
  history.replaceState(null, '', set.length ? '#' + new URLSearchParams(set) : location.pathname + location.search);
  applyFilter(Object.fromEntries(set));
}
function applyFilter(next) {
  for (const key of Object.keys(state)) delete state[key];
  for (const key of [...Object.keys(facets), 'text']) if (next[key]) state[key] = next[key];
  for (const key of [...Object.keys(facets), 'text']) if (at('f-' + key)) at('f-' + key).value = state[key] ?? '';
  drawList();
}
function matches(s) {
  for (const [name, of] of Object.entries(facets)) {
    if (!state[name]) continue;
    if (state[name] === '!correct' ? of(s) === 'correct' : of(s) !== state[name]) return false;
  }
  const text = (state.text ?? '').toLowerCase();
  return !text || [s.id, s.question, s.thinking, s.answer, s.error].some(t => t.toLowerCase().includes(text));
}
function drawList() {
  const shown = ordered.filter(matches);
  at('list').replaceChildren(...shown.map(drawRow));
  at('count').replaceChildren(number(shown.length) + ' of ' + counted(samples.length, 'sample') + ', failures first. ',
    el('span', {class: 'no-print'}, el('kbd', {}, 'j'), ' ', el('kbd', {}, 'k'), ' next and previous, ', el('kbd', {}, '/'), ' search, ', el('kbd', {}, 'd'), ' theme'));
}
function drawRow(s) {
  const row = el('button', {type: 'button', class: 'row', 'aria-expanded': 'false', onclick: () => toggle(item)},
    el('span', {}, badge(words(s.outcome.class), tone(s.outcome.class))), el('span', {class: 'soft'}, s.arm), el('span', {class: 'soft'}, s.language),
    el('span', {class: 'question', lang: s.language}, s.question || s.id),
    el('span', {class: 'got', title: 'extracted answer; expected ' + s.expected},
      s.outcome.class === 'correct' ? s.extraction?.value ?? '' : s.extraction ? el('span', {}, s.extraction.value, el('span', {class: 'soft'}, ' ≠ ' + s.expected))
        : el('span', {class: 'soft'}, ({unextractable: s.scoring === 'number' ? 'no number' : 'cannot tell', answered: 'not judged', language_drift: 'another language', wrong: s.expected ? '≠ ' + s.expected : 'not as asked'})[s.outcome.class] ?? 'no answer')));
  const item = el('li', {}, row);
  item.sample = s;
  return item;
}
function toggle(item, open = !item.querySelector('.body')) {
  const body = item.querySelector('.body');
  item.querySelector('.row').setAttribute('aria-expanded', String(open));
  if (open && !body) item.append(drawBody(item.sample));
  if (!open && body) body.remove();
}
function block(title, text, attributes = {}) {
  return [el('h4', {}, title), text ? el('pre', attributes, text) : el('p', {class: 'empty'}, 'empty')];
}
// p(</think>) and p(eos) token by token, on a logarithmic scale: a reply that cannot end shows here before it loops.
function drawTrace(s) {
  const {floor, think_close: close, eos} = s.trace, width = 640, height = 72;  // as in the template
  const path = points => points.map((p, i) => (points.length > 1 ? i * width / (points.length - 1) : 0).toFixed(1) + ',' + (2 + (height - 4) * p / floor).toFixed(1)).join(' ');
  const svg = at('trace').content.firstElementChild.cloneNode(true), peak = points => '10^' + Math.max(...points).toFixed(1);
  for (const [name, points] of [['close', close], ['eos', eos]]) svg.querySelector('.' + name).setAttribute('points', path(points));
  svg.querySelector('title').textContent = 'Largest p(</think>) ' + peak(close) + ', largest p(eos) ' + peak(eos) + ', over ' + counted(s.n_tokens, 'token');
  return el('details', {}, el('summary', {}, 'p(</think>) and p(eos) by token'), svg,
    el('p', {class: 'facts-line'}, el('span', {class: 'key-close'}, 'p(</think>)'), ', ', el('span', {class: 'key-eos'}, 'p(eos)'), '; from 1 at the top to 10^' + floor + ' at the bottom, the largest of each stretch of tokens'));
}
function drawBody(s) {
  const body = el('div', {class: 'body'});
  const facts = [s.id, words(s.kind), 'cluster ' + s.cluster, 'finish: ' + (s.finish || 'none'), counted(s.n_tokens, 'token')];
  if (s.n_thinking_tokens) facts.push(number(s.n_thinking_tokens) + ' of them thinking');
  if (s.repeat) facts.push('asking ' + s.repeat);
  if (s.forced_close) facts.push('thinking closed by force at its budget');
  if (s.reached) facts.push('the right answer stands in the thinking');
  if (s.language_check.right === false) facts.push('another language than asked for');
  if (s.n_stray_tags) facts.push(counted(s.n_stray_tags, 'stray think tag') + ' in the answer');
  if (s.outcome.loop_start >= 0) facts.push((s.outcome.degeneration === 'loop_near' ? 'nearly repeats itself' : 'loops over ' + counted(s.outcome.loop_period, 'token')) + ' from token ' + s.outcome.loop_start);
  if (!s.gated) facts.push('in no gate');
  body.append(el('p', {class: 'facts-line'}, facts.join(' · ')));
  if (s.error) body.append(...block('Error', s.error));
  body.append(...block('Question', s.question, {lang: s.language}));
  const open = ['no_close', 'eos_in_think'].includes(s.outcome.termination);
  if (s.thinking) body.append(el('details', {open: open ? '' : null}, el('summary', {}, 'Thinking, ' + counted(s.n_thinking_tokens, 'token')), el('pre', {lang: s.language}, s.thinking)));
  if (s.outcome.termination !== 'error') {
    body.append(el('h4', {}, 'Answer'));
    if (s.extraction) {
      body.append(el('pre', {lang: s.language}, s.extraction.before, el('mark', {title: 'rule: ' + s.extraction.rule}, s.extraction.span), s.extraction.after),
        el('p', {class: 'facts-line'}, 'Extracted ', el('code', {}, s.extraction.value), ' by rule ', el('code', {}, s.extraction.rule),
          ', expected ', el('code', {}, s.expected)));
    } else {
      body.append(s.answer ? el('pre', {lang: s.language}, s.answer) : el('p', {class: 'empty'}, open ? 'none: thinking never closed' : 'empty'),
        el('p', {class: 'facts-line'}, s.outcome.correctness === 'not_judged' ? (s.outcome.termination === 'closed' ? 'Not judged. ' : 'Not judged: there is no finished answer. ') : ({number: 'No rule found a number. ', language: 'In ' + (languageName[s.language] ?? s.language) + '? '})[s.scoring] ?? '', ...(s.expected ? ['Expected ', el('code', {}, s.expected)] : [])));
    }
  }
  if (s.trace) body.append(drawTrace(s));
  if (s.reask) body.append(...block('Asked again in other words: ' + words(s.reask.correctness), s.reask.answer, {lang: s.language}));
  if (s.prompt) body.append(el('details', {}, el('summary', {}, 'Prompt as the model got it, ' + counted(s.n_prompt_tokens, 'token')), el('pre', {class: 'raw'}, s.prompt)));
  return body;
}

// ---- provenance
function drawProvenance() {
  const flat = [];
  const walk = (value, path) => {
    if (value !== null && typeof value === 'object' && !Array.isArray(value)) for (const [k, v] of Object.entries(value)) walk(v, path ? path + '.' + k : k);
    else flat.push([path, typeof value === 'string' ? value : JSON.stringify(value)]);
  };
  walk(run.provenance, ''); walk(run.identity, 'identity'); walk(run.timings, 'timings');
  walk({hash: run.samples.hash}, 'samples');
  for (const suite of run.plan.suites) walk({hash: suite.hash, arms: suite.arms}, 'suite ' + suite.name);
  at('provenance').append(el('dl', {class: 'provenance'}, ...flat.flatMap(([k, v]) => [el('dt', {}, k), el('dd', {}, v)])));
  const raw = el('pre', {id: 'raw', hidden: ''});
  at('provenance').append(el('p', {}, el('button', {type: 'button', onclick: () => { raw.hidden = !raw.hidden; raw.textContent ||= JSON.stringify(run, null, 1); }}, 'Raw run.json')), raw);
}

// ---- keyboard and address
let current = -1;
function move(step) {
  const items = [...at('list').children];
  if (!items.length) return;
  if (items[current]) toggle(items[current], false);
  current = Math.min(Math.max((items[current] ? current : -1) + step, 0), items.length - 1);
  toggle(items[current], true);
  items[current].querySelector('.row').focus({preventScroll: true});
  items[current].scrollIntoView({block: 'center'});
}
document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches('input, select, textarea')) { if (event.key === 'Escape') event.target.blur(); return; }
  if (event.key === 'j') move(1);
  else if (event.key === 'k') move(-1);
  else if (event.key === 'd') toggleTheme();
  else if (event.key === '/') { event.preventDefault(); at('f-text').focus(); }
});
function fromAddress(jump) {
  const hash = location.hash.slice(1);
  if (jump && hash === 'samples') return;
  applyFilter(Object.fromEntries(new URLSearchParams(hash)));
  current = -1;
  if (jump && hash) at('samples').scrollIntoView();
}
addEventListener('hashchange', () => fromAddress(true));
addEventListener('beforeprint', () => {  // on paper, what failed is shown in full
  for (const item of at('list').children) if (item.sample.outcome.class !== 'correct') toggle(item, true);
});

drawVerdict(); drawComparison(); drawGates(); drawGoldens(); drawAccuracy(); drawKinds(); drawThinking(); drawNeedles(); drawMeasurements(); drawOutcomes(); drawFilters(); drawProvenance(); fromAddress(false);
