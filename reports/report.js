'use strict';
// Draws the page from the JSON that it carries. Text that a model wrote reaches the page through textContent only.
const {run, samples} = JSON.parse(document.getElementById('data').textContent);

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
const words = name => name.replaceAll('_', ' ');
const languageName = {ja: 'Japanese', en: 'English', zh: 'Chinese'};
const tone = name => name === 'correct' ? 'good' : name === 'answered' ? 'plain' : ['truncated_answer', 'unextractable', 'error', 'timeout'].includes(name) ? 'meh' : 'bad';
const badge = (text, kind) => el('span', {class: 'badge ' + kind}, text);
function interval(rate) {
  return el('span', {class: 'interval', title: tight('95 % interval over ') + rate.n_clusters + ' clusters'},
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
function table(heads, rows) {
  const head = el('tr', {}, ...heads.map(h => el('th', {scope: 'col', class: h.num ? 'num' : null, title: h.title}, h.text ?? h)));
  return el('div', {class: 'scroll'}, el('table', {}, el('thead', {}, head), el('tbody', {}, ...rows)));
}
const num = value => el('td', {class: 'num'}, value);
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
  const header = at('verdict'), verdict = run.verdict, who = run.provenance;
  header.className = verdict.state;
  const theme = el('button', {type: 'button', title: 'Light or dark (d)', onclick: toggleTheme}, 'Theme');
  const copyButton = el('button', {type: 'button', onclick: () => copy(who.command, copyButton)}, 'Copy');
  const suites = run.plan.suites.map(s => s.title + ' (' + s.name + ' v' + s.version + ')').join(', ');
  const fact = (name, value) => el('span', {}, name + ' ', el('b', {}, value));
  header.append(...[
    el('div', {class: 'tools'}, theme),
    el('h1', {}, el('span', {class: 'word'}, verdict.state), el('span', {class: 'soft'}, 'exit code ' + verdict.exit_code)),
    el('p', {}, tight(verdict.summary)),
    el('p', {}, 'Accuracy: ', ...run.metrics.filter(g => !g.language && !g.kind && g.gated && g.accuracy.n).flatMap((g, i) => [
      i ? ', ' : '', armTitle(g.suite, g.arm) + ' ', el('b', {}, percent(g.accuracy.estimate)), interval(g.accuracy)])),
    verdict.problems.length ? el('ul', {}, ...verdict.problems.map(p => el('li', {}, tight(p)))) : null,
    el('div', {class: 'facts'},
      fact('Suite', suites), fact('Profile', run.plan.profile), fact('Samples', number(run.samples.n)),
      fact('Model', String(who.target.model_dir ?? who.target.kind ?? '').split('/').slice(-2).join('/')),
      fact('Backend', [who.target.backend, who.target.kernel].filter(Boolean).join(' ') || '–'),
      fact('Seed', run.plan.seed), fact('Started', who.started)),
    el('div', {class: 'command'}, el('code', {title: 'The command that made this run'}, who.command), copyButton)].filter(Boolean));
}
function toggleTheme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === 'dark' ? 'light' : 'dark';
}
if (matchMedia('(prefers-color-scheme: dark)').matches) document.documentElement.dataset.theme = 'dark';

// ---- tables
function drawGates() {
  const rows = run.verdict.gates.map(gate => el('tr', {},
    el('td', {}, badge({pass: '✓ pass', fail: '✗ fail', not_run: '– not run'}[gate.state], {pass: 'good', fail: 'bad', not_run: 'meh'}[gate.state])),
    el('th', {scope: 'row'}, (manySuites ? gate.suite + ' · ' : '') + gate.name),
    el('td', {class: 'where'}, gate.metric, el('span', {class: 'soft'}, ' of ' + gate.where.replaceAll('+', ' + '))),
    num(gate.min !== null ? '≥ ' + percent(gate.min) : '≤ ' + percent(gate.max)),
    gate.state === 'not_run' ? el('td', {class: 'soft'}, '–') : el('td', {class: 'num'}, percent(gate.rate.estimate), interval(gate.rate)),
    num(number(gate.rate.n)),
    el('td', {class: 'wrap'}, tight(gate.detail))));
  at('gates').append(table(['', 'Gate', 'Looks at', {text: 'Limit', num: true}, {text: tight('Measured [95 %]'), num: true}, {text: 'n', num: true}, 'How far from failing'], rows));
}
function drawComparison() {
  const comparison = run.comparison;
  if (!comparison) return;
  at('comparison').hidden = false;
  const {baseline, alpha, floor, flips} = comparison;
  const points = share => {
    const size = Math.abs(100 * share).toFixed(1);
    return (Number(size) === 0 ? '' : share < 0 ? '−' : '+') + size;
  };
  const pValue = p => p < 0.0001 ? '< 0.0001' : p.toPrecision(2);
  const blind = r => !r.regressed && r.detectable > r.n;  // not even the loss of every sample would have shown
  const rows = comparison.rows.map(r => el('tr', {class: r.language ? null : 'total'},
    el('td', {}, r.regressed ? badge('✗ regressed', 'bad') : blind(r) ? badge('– cannot tell', 'meh') : badge('✓ holds', 'good')),
    el('th', {scope: 'row'}, armTitle(r.suite, r.arm) + (r.language ? ' · ' + (languageName[r.language] ?? r.language) : '') + (r.metric === 'closed' ? ' · closed' : '')),
    num(number(r.n)), num(percent(r.n_base / r.n)), num(percent(r.n_candidate / r.n)),
    el('td', {class: 'num'}, points(r.difference), el('span', {class: 'interval', title: tight('95 % interval over ') + r.n_clusters + ' clusters'}, '[' + points(r.lo) + ', ' + points(r.hi) + ']')),
    num(r.n_regressed + ' / ' + r.n_fixed), num(pValue(r.p_holm)),
    el('td', {class: 'soft'}, r.regressed ? '–' : blind(r) ? 'too few' : number(r.detectable) + ' more')));
  const reply = (answer, outcome, language) => el('td', {class: 'reply'}, el('div', {lang: language}, answer, ' ',
    ['correct', 'wrong'].includes(outcome) ? '' : badge(words(outcome), tone(outcome))));
  const flip = f => {
    const [suite, arm, ...rest] = f.key.split('/'), id = rest.join('/');
    return el('tr', {},
      el('td', {}, badge(f.regressed ? '✗ regressed' : '✓ fixed', f.regressed ? 'bad' : 'good')),
      el('th', {scope: 'row'}, link(id, {suite, arm, language: f.language, text: id}), el('div', {class: 'soft'}, armTitle(suite, arm))),
      el('td', {class: 'reply soft'}, el('div', {lang: f.language}, f.question)), num(f.expected),
      reply(f.base_answer, f.base_class, f.language), reply(f.candidate_answer, f.candidate_class, f.language), num(number(f.first_difference)));
  };
  const differs = Object.keys(run.identity).filter(key => JSON.stringify(run.identity[key]) !== JSON.stringify(baseline.identity[key]));
  if (baseline.commit !== run.provenance.commit) differs.push('commit');
  const nRegressed = flips.filter(f => f.regressed).length;
  at('comparison').append(...[
    el('p', {class: 'soft'}, 'Baseline: ' + baseline.folder + (differs.length ? ', which differs in ' + differs.map(words).join(', ') : ', of the same identity') + '. ' +
      number(comparison.n_same_tokens) + ' of ' + number(comparison.n_pairs) + ' replies have the same tokens, ' + number(comparison.n_both_wrong) + ' are correct in neither.'),
    table(['', 'Accuracy, or share closed', {text: 'n', num: true}, {text: 'Baseline', num: true}, {text: 'Now', num: true}, {text: tight('Difference [95 %], points'), num: true},
      {text: 'Regressed / fixed', num: true}, {text: 'p (Holm)', num: true, title: 'Exact sign-flip permutation over clusters, adjusted over all rows'},
      {text: 'Would fail with', title: 'So many more regressed samples, each of a cluster of its own, would have made the row a regression'}], rows),
    el('p', {class: 'soft'}, tight('A row regressed if its p is below ' + alpha + ' and at least ' + 100 * floor + ' % of its samples were lost, net. Samples of one cluster count as one observation.')),
    flips.length ? el('h3', {}, 'Samples that changed: ' + number(nRegressed) + ' regressed, ' + number(flips.length - nRegressed) + ' fixed') : null,
    flips.length ? table(['', 'Sample', 'Question', {text: 'Expected', num: true}, 'Baseline', 'Now', {text: 'Part at token', num: true, title: 'Position in the reply at which the two part'}], flips.map(flip)) : null].filter(Boolean));
}
function drawAccuracy() {
  const heads = ['', {text: 'n', num: true},
    {text: tight('Accuracy [95 % interval, by cluster]'), title: 'Correct finished answers among all samples that ran'},
    {text: 'of answered', num: true, title: 'Correct among finished answers: what truncation does not touch'},
    {text: 'closed', num: true, title: '</think> came exactly once'}, {text: 'stopped', num: true, title: 'The model ended the reply itself'},
    {text: 'thinking tokens p50 / p90 / max', num: true, title: 'Of samples that closed their thinking'}];
  const rowOf = (name, g) => el('tr', {class: g.language || g.kind ? null : 'total'},
    el('th', {scope: 'row'}, name), num(link(number(g.n), {suite: g.suite, arm: g.arm, language: g.language})), rateCell(g.accuracy),
    num(g.n_answered ? percent(g.accuracy_answered) : '–'), num(g.closed.n ? percent(g.closed.estimate) : '–'), num(g.stopped.n ? percent(g.stopped.estimate) : '–'),
    num(g.thinking_tokens.max ? [g.thinking_tokens.p50, g.thinking_tokens.p90, g.thinking_tokens.max].map(number).join(' / ') +
      (g.thinking_tokens.n_censored ? ' (+' + g.thinking_tokens.n_censored + ' open)' : '') : '–'));
  for (const total of run.metrics.filter(g => !g.language && !g.kind)) {
    const same = g => g.suite === total.suite && g.arm === total.arm && g.gated === total.gated;
    const rows = [rowOf('all', total), ...run.metrics.filter(g => same(g) && g.language && !g.kind).map(g => rowOf(languageName[g.language] ?? g.language, g))];
    at('accuracy').append(el('h3', {}, armTitle(total.suite, total.arm) + (total.gated ? '' : ' · asked, but in no gate')), table(heads, rows));
  }
}
function drawKinds() {
  for (const total of run.metrics.filter(g => !g.language && !g.kind && g.gated)) {
    const mine = run.metrics.filter(g => g.suite === total.suite && g.arm === total.arm && g.gated);
    const kinds = mine.filter(g => g.kind && !g.language), languages = mine.filter(g => g.language && !g.kind).map(g => g.language);
    const cell = (kind, language) => {
      const g = mine.find(one => one.kind === kind && one.language === language);
      if (!g) return el('td', {class: 'num soft'}, '–');
      return el('td', {class: 'num'}, link(g.accuracy.n_true + ' / ' + g.accuracy.n, {suite: g.suite, arm: g.arm, language, kind}),
        g.accuracy.n_true < g.accuracy.n ? ' ' : '', g.accuracy.n_true < g.accuracy.n ? badge('−' + (g.accuracy.n - g.accuracy.n_true), 'bad') : '');
    };
    const rows = kinds.map(g => el('tr', {}, el('th', {scope: 'row'}, words(g.kind)), rateCell(g.accuracy), ...languages.map(l => cell(g.kind, l))));
    at('kinds').append(el('h3', {}, armTitle(total.suite, total.arm)),
      table(['', tight('Accuracy [95 %]'), ...languages.map(l => ({text: languageName[l] ?? l, num: true}))], rows));
  }
}
const classOrder = ['correct', 'answered', 'wrong', 'unextractable', 'language_drift', 'truncated_answer', 'closed_empty', 'eos_in_think', 'no_close', 'loop_near', 'loop_exact', 'degenerate_token', 'timeout', 'error'];
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
  at('count').replaceChildren(number(shown.length) + ' of ' + number(samples.length) + ' samples, failures first. ',
    el('span', {class: 'no-print'}, el('kbd', {}, 'j'), ' ', el('kbd', {}, 'k'), ' next and previous, ', el('kbd', {}, '/'), ' search, ', el('kbd', {}, 'd'), ' theme'));
}
function drawRow(s) {
  const row = el('button', {type: 'button', class: 'row', 'aria-expanded': 'false', onclick: () => toggle(item)},
    el('span', {}, badge(words(s.outcome.class), tone(s.outcome.class))), el('span', {class: 'soft'}, s.arm), el('span', {class: 'soft'}, s.language),
    el('span', {class: 'question', lang: s.language}, s.question || s.id),
    el('span', {class: 'got', title: 'extracted answer; expected ' + s.expected},
      s.outcome.class === 'correct' ? s.extraction.value : s.extraction ? el('span', {}, s.extraction.value, el('span', {class: 'soft'}, ' ≠ ' + s.expected))
        : el('span', {class: 'soft'}, ({unextractable: 'no number', answered: 'not judged', language_drift: 'another language'})[s.outcome.class] ?? 'no answer')));
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
function drawBody(s) {
  const body = el('div', {class: 'body'});
  const facts = [s.id, words(s.kind), 'cluster ' + s.cluster, 'finish: ' + (s.finish || 'none'), number(s.n_tokens) + ' tokens'];
  if (s.n_thinking_tokens) facts.push(number(s.n_thinking_tokens) + ' of them thinking');
  if (s.n_stray_tags) facts.push(s.n_stray_tags + ' stray think tags in the answer');
  if (s.outcome.loop_start >= 0) facts.push((s.outcome.degeneration === 'loop_near' ? 'nearly repeats itself' : 'loops over ' + s.outcome.loop_period + ' tokens') + ' from token ' + s.outcome.loop_start);
  if (!s.gated) facts.push('in no gate');
  body.append(el('p', {class: 'facts-line'}, facts.join(' · ')));
  if (s.error) body.append(...block('Error', s.error));
  body.append(...block('Question', s.question, {lang: s.language}));
  const open = ['no_close', 'eos_in_think'].includes(s.outcome.termination);
  if (s.thinking) body.append(el('details', {open: open ? '' : null}, el('summary', {}, 'Thinking, ' + number(s.n_thinking_tokens) + ' tokens'), el('pre', {lang: s.language}, s.thinking)));
  if (s.outcome.termination !== 'error') {
    body.append(el('h4', {}, 'Answer'));
    if (s.extraction) {
      body.append(el('pre', {lang: s.language}, s.extraction.before, el('mark', {title: 'rule: ' + s.extraction.rule}, s.extraction.span), s.extraction.after),
        el('p', {class: 'facts-line'}, 'Extracted ', el('code', {}, s.extraction.value), ' by rule ', el('code', {}, s.extraction.rule),
          ', expected ', el('code', {}, s.expected)));
    } else {
      body.append(s.answer ? el('pre', {lang: s.language}, s.answer) : el('p', {class: 'empty'}, open ? 'none: thinking never closed' : 'empty'),
        el('p', {class: 'facts-line'}, s.outcome.correctness === 'not_judged' ? (s.outcome.termination === 'closed' ? 'Not judged. ' : 'Not judged: there is no finished answer. ') : 'No rule found a number. ', 'Expected ', el('code', {}, s.expected)));
    }
  }
  body.append(el('details', {}, el('summary', {}, 'Prompt as the model got it, ' + number(s.n_prompt_tokens) + ' tokens'), el('pre', {class: 'raw'}, s.prompt)));
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
  for (const suite of run.plan.suites) walk({hash: suite.hash, sampling: suite.sampling}, 'suite ' + suite.name);
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

drawVerdict(); drawComparison(); drawGates(); drawAccuracy(); drawKinds(); drawOutcomes(); drawFilters(); drawProvenance(); fromAddress(false);
