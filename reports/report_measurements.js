// The section "Measurements": what was clocked, and how far the distributions are from the base's. Function declarations
// alone: report.js, which comes before, calls them. Raw repetitions and the KLD of each text stay in run.json.
function drawMeasurements() {
  const all = run.measurements ?? [], skipped = run.skipped ?? [];
  if (!all.length && !skipped.length) return;
  at('measurements').hidden = false;
  for (const m of all) {
    at('measurements').append(el('h3', {}, m.title + ' (' + m.suite + ')'),
      ...(m.state !== 'measured' ? [el('p', {class: 'soft'}, 'Not run: ' + m.reason)] : m.measure === 'throughput' ? throughputTables(m.result) : divergenceTables(m.result)));
  }
  for (const s of skipped) at('measurements').append(el('p', {class: 'soft'}, 'Suite ' + s.suite + ' was left out: it ' + s.reason + '.'));
}
// Three digits that say something: 9.87, 98.7, 987, 9,870.
function digits(v) {
  return v >= 1000 ? number(Math.round(v)) : v.toFixed(v >= 100 ? 0 : v >= 10 ? 1 : 2);
}
// A ratio, with so many decimals where that is not too much: 1.0012, 30,106.
function factor(v, decimals) {
  return v < 10 ? v.toFixed(decimals) : digits(v);
}
function throughputTables({engine, decode, prefill, useful}) {
  const measured = row => row.tokens_per_s !== null, rate = r => el('td', {class: 'num'}, el('b', {}, digits(r.median)), r.n === 1 ? '' : el('span', {class: 'interval'}, '[' + digits(r.lo) + ', ' + digits(r.hi) + ']')), spread = r => num(r.n === 1 ? '–' : digits(r.mad));
  const times = ms => ['p50', 'p90', 'p99', 'max'].map(key => num(digits(ms[key])));
  const timeHeads = (what, title) => [{text: what + ', ms: p50', num: true, title}, {text: 'p90', num: true}, {text: 'p99', num: true}, {text: 'max', num: true}];
  const speed = {text: 'Tokens/s [median in]', num: true, title: 'Of all sequences of the batch together; higher is better'};
  const counts = rows => rows.filter(measured).map(row => row.tokens_per_s)[0];
  const out = [el('p', {class: 'soft'}, engine.backend + ' ' + engine.kernel + ', ' + counted(engine.n_threads, 'thread') + ', ' + engine.attention + ' attention. Tokens/s: higher is better. Milliseconds: lower is better.')];
  if (decode.some(measured)) out.push(el('h4', {}, 'Decode: tokens one after the other'),
    table([{text: 'Depth, tokens', num: true, title: 'In the cache before the first decoded token'}, {text: 'Batch, sequences', num: true}, speed, {text: '± MAD', num: true}, {text: 'Each sequence, tokens/s', num: true}, ...timeHeads('Between tokens', 'Inter-token latency')],
      decode.filter(measured).map(r => el('tr', {}, num(number(r.depth)), num(number(r.batch)), rate(r.tokens_per_s), spread(r.tokens_per_s), num(digits(r.tokens_per_s.median / r.batch)), ...times(r.itl_ms)))));
  if (prefill.some(measured)) out.push(el('h4', {}, 'Prefill: reading a prompt'),
    table([{text: 'Prompt, tokens', num: true}, speed, {text: '± MAD', num: true}, ...timeHeads('To the first token', 'Time to first token')],
      prefill.filter(measured).map(r => el('tr', {}, num(number(r.n_prompt)), rate(r.tokens_per_s), spread(r.tokens_per_s), ...times(r.ttft_ms)))));
  const sample = counts([...decode, ...prefill]);
  for (const reason of new Set([...decode, ...prefill].map(r => r.reason).filter(Boolean))) out.push(el('p', {class: 'soft'}, 'Not measured: ' + reason));
  if (sample) out.push(el('p', {class: 'soft'}, sample.n === 1 ? '1 repetition of each row, which has no spread' : tight(counted(sample.n, 'repetition') + ' of each row in turns; [ ] holds the median with ' + percent(sample.coverage))));
  if (useful && useful.share !== null) out.push(el('p', {}, tight('Useful: ' + percent(useful.share) + ' of ' + number(useful.n_tokens) + ' tokens, in the ' + number(useful.n_answered) + ' of ' + number(useful.n_replies) + ' replies that ended in an answer'
    + (useful.useful_tokens_per_s === null ? '' : '; one reply’s own rate, of which several may run at once: ' + digits(useful.useful_tokens_per_s) + ' useful tokens/s of ' + digits(useful.tokens_per_s)))));
  return out;
}
function divergenceTables({base, candidate, noise_floor: noise, decode_against_prefill: decode, calibration, groups, worst}) {
  const figure = (e, scale = 1, shown = v => v.toPrecision(3)) => el('td', {class: 'num'}, shown(scale * e.value), el('span', {class: 'interval', title: 'One standard error over texts; ?: of one text, unknown'}, '± ' + (e.error === null ? '?' : scale * e.error < 100 ? (scale * e.error).toPrecision(2) : digits(scale * e.error))));
  const language = lang => lang === 'all' ? 'All languages' : languageName[lang] ?? lang;
  const out = [el('p', {class: 'soft'}, 'KL(base ‖ candidate) over the tokens of replies that were given to both. KLD and Δp: lower is better, 0 is the base itself. Same top-1: higher is better. Perplexity ratio: 1 is the base’s.'),
    el('p', {class: 'soft wrap'}, 'Base ' + (base.dir ?? base.fingerprint) + ', candidate ' + (candidate.dir ?? candidate.fingerprint) + '.')];
  if (calibration) out.push(el('p', {}, badge('! flattering', 'meh'), ' ' + number(calibration.n_calibrated) + ' of the ' + number(calibration.n_judged) + ' texts are of the set that the candidate was calibrated with (' + calibration.set + ').'));
  out.push(table(['Language', 'Part of the reply', {text: 'Mean KLD, nats', num: true}, {text: tight('KLD 99 %, nats'), num: true, title: 'One position in a hundred is further apart'}, {text: tight('Same top-1, %'), num: true, title: 'Positions at which both find the same token the most likely'},
    {text: tight('RMS Δp, %'), num: true, title: 'Of the probability of the token that follows'}, {text: 'Perplexity ratio', num: true, title: 'Candidate over base'}, {text: 'Texts', num: true}, {text: 'Positions', num: true}],
    groups.map(g => el('tr', {class: g.part === 'all' ? 'total' : null}, el('th', {scope: 'row'}, language(g.lang)), el('td', {}, g.part === 'all' ? 'all of it' : g.part), figure(g.kld.mean), figure(g.kld.p99),
      figure(g.top1_agreement, 100, v => v.toFixed(2)), figure(g.delta_p.rms, 100), figure(g.perplexity.ratio, 1, v => factor(v, 4)), num(number(g.n_texts)), num(number(g.n_positions))))));
  if (noise) out.push(el('p', {class: 'soft'}, 'Noise floor, the base against itself (' + noise.between.join(' against ') + '): mean KLD ' + noise.kld.mean.value.toPrecision(2) + ' nats. What is below is no news.'));
  if (decode && !decode.same_bits) out.push(el('p', {class: 'soft'}, 'Decode against prefill of the candidate: ' + (decode.figures ? 'mean KLD ' + decode.figures.kld.mean.value.toPrecision(2) + ' nats.' : 'not the same bits with this kernel, and not measured.')));
  const all = groups[0];
  if (all && all.kld_coarsening === null) out.push(el('p', {class: 'soft'}, 'The base is captured, so KLD is a lower bound: its mean is at most ' + all.kld_mean_at_most.toPrecision(3) + ' nats.'));
  if (worst.length) out.push(el('details', {class: 'fold'}, el('summary', {}, 'The ' + worst.length + ' positions furthest apart'),
    table([{text: 'KLD, nats', num: true}, 'Text', 'Language', 'Part', 'Text before', 'Token that follows'], worst.map(w => el('tr', {}, num(w.kld.toPrecision(3)), el('td', {}, w.text), el('td', {}, language(w.lang)), el('td', {}, w.part),
      el('td', {class: 'reply', lang: w.lang}, w.before), el('td', {class: 'reply', lang: w.lang}, JSON.stringify(w.next)))))));
  return out;
}
