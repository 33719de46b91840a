// The section "Against the baseline". Function declarations alone: report.js, which comes before, calls them.
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
  const lost = r => r.n_base - r.n_candidate > 0 && r.n_base - r.n_candidate >= (r.floor ?? floor) * r.n;  // as much as the floor, told from chance or not
  const says = r => r.verdict ?? (r.regressed ? 'regression' : 'pass');  // older records have no verdict per row
  // The smallest net drop that would have been called. A row that passed says no more than that there was none so large.
  const wouldShow = r => r.detectable_points != null ? r.detectable_points.toFixed(1) + ' points' : number(r.detectable) + ' more';
  // What a pass excludes is little where only a large drop would have shown: no green for that.
  const farFromSure = r => (r.detectable_points ?? 100 * (r.n_base - r.n_candidate + r.detectable) / r.n) > 20;
  const passed = r => farFromSure(r) ? badge('– no drop of ' + wouldShow(r) + ' or more', 'plain') : badge('✓ no drop of ' + wouldShow(r) + ' or more', 'good');
  const undecided = (r, badge) => el('span', {}, badge, el('div', {}, blind(r) ? 'too few samples for any drop' : 'a drop of ' + wouldShow(r) + ' would show'));
  const judged = r => ({regression: () => badge('✗ regressed', 'bad'), suspected: () => badge('? suspected', 'meh'), warn: () => undecided(r, badge('! warns', 'meh')),
    pass: () => blind(r) || lost(r) ? undecided(r, badge('– cannot tell', 'meh')) : passed(r)})[says(r)]();
  // How thinking ends has many rows: those of an arm as a whole, and those that say something.
  const shown = comparison.rows.filter(r => r.metric === 'accuracy' || says(r) !== 'pass' || (!r.language && r.n_regressed + r.n_fixed > 0));
  const rows = shown.map(r => el('tr', {class: r.language ? null : 'total'},
    el('td', {class: 'says'}, judged(r)),
    el('th', {scope: 'row'}, armTitle(r.suite, r.arm) + (r.language ? ' · ' + (languageName[r.language] ?? r.language) : '') + (r.metric === 'accuracy' ? '' : ' · ' + words(r.metric))),
    num(number(r.n)), num(percent(r.n_base / r.n)), num(percent(r.n_candidate / r.n)),
    el('td', {class: 'num'}, points(r.difference), el('span', {class: 'interval', title: tight('95 % interval over ') + counted(r.n_clusters, 'cluster')}, '[' + points(r.lo) + ', ' + points(r.hi) + ']')),
    num(r.n_regressed + ' / ' + r.n_fixed), num(pValue(r.p_holm))));
  const failed = (l, metric) => {
    const r = comparison.rows.find(one => one.suite === l.suite && one.arm === l.arm && one.language === l.language && one.metric === metric);
    return r ? number(r.n - r.n_base) + ' → ' + number(r.n - r.n_candidate) : '–';
  };
  // Longer by a tenth is what is called: only an interval below that says that it is not so.
  const few = l => 2 ** (1 - l.n_clusters) >= alpha;  // no test of so few clusters calls anything
  const asLong = l => few(l) ? el('span', {}, badge('– cannot tell', 'meh'), el('div', {}, 'too few samples for any length')) : l.hi === null ? (l.ratio === 1 ? badge('✓ as long', 'good') : badge('– cannot tell', 'meh')) : l.hi < 1.1 ? badge('✓ less than 1.10 × as long', 'good') : badge('– up to ' + l.hi.toFixed(2) + ' × as long', 'meh');
  const lengths = (comparison.lengths ?? []).filter(l => !l.language || l.verdict !== 'pass').map(l => el('tr', {},
    el('td', {class: 'says'}, {regression: badge('✗ longer', 'bad'), suspected: badge('? suspected', 'meh'), warn: badge('! warns', 'meh'), pass: asLong(l)}[l.verdict]),
    el('th', {scope: 'row'}, armTitle(l.suite, l.arm) + (l.language ? ' · ' + (languageName[l.language] ?? l.language) : '')),
    num(failed(l, 'closed')), num(failed(l, 'no_loop')), num(failed(l, 'stopped')),
    el('td', {class: 'num'}, l.ratio.toFixed(2), l.lo === null ? '' : el('span', {class: 'interval'}, '[' + l.lo.toFixed(2) + ', ' + l.hi.toFixed(2) + ']')),
    num(number(l.n)), num(pValue(l.p_holm))));
  const token = t => t.text == null ? '#' + t.id : JSON.stringify(t.text);  // a newline or a digit beside figures would not be seen
  const likely = t => t ? el('span', {}, el('code', {}, token(t)), t.top.length ? el('span', {class: 'soft'}, ' ' + t.top.map(one => token(one) + ' ' + percent(Math.exp(one.logprob))).join(', ')) : '') : el('span', {class: 'soft'}, 'had ended');
  const reply = (answer, outcome, language) => el('td', {class: 'reply'}, el('div', {lang: language}, answer, ' ',
    ['correct', 'wrong'].includes(outcome) ? '' : badge(words(outcome), tone(outcome))));
  const flip = f => {
    const [suite, arm, ...rest] = f.key.split('/'), id = rest.join('/');
    return el('tr', {},
      el('td', {class: 'says'}, badge(f.regressed ? '✗ regressed' : '✓ fixed', f.regressed ? 'bad' : 'good')),
      el('th', {scope: 'row'}, link(id, {suite, arm, language: f.language, text: id}), el('div', {class: 'soft'}, armTitle(suite, arm))),
      el('td', {class: 'reply soft'}, el('div', {lang: f.language}, f.question)), num(f.expected),
      reply(f.base_answer, f.base_class, f.language), reply(f.candidate_answer, f.candidate_class, f.language), el('td', {class: 'part'}, 'at ' + number(f.first_difference), ...(f.base_token === undefined ? [] : [el('div', {}, likely(f.base_token)), el('div', {}, likely(f.candidate_token))])));
  };
  const differs = Object.keys(run.identity).filter(key => JSON.stringify(run.identity[key]) !== JSON.stringify(baseline.identity[key]));
  if (baseline.commit !== run.provenance.commit) differs.push('commit');
  const nRegressed = flips.filter(f => f.regressed).length;
  at('comparison').append(...[
    el('p', {class: 'soft'}, 'Baseline: ' + baseline.folder + (differs.length ? ', which differs in ' + differs.map(words).join(', ') : ', of the same identity') + '. ' +
      number(comparison.n_same_tokens) + ' of ' + number(comparison.n_pairs) + ' replies have the same tokens, ' + number(comparison.n_both_wrong) + ' are correct in neither.'),
    table(['', 'Accuracy, or share closed', {text: 'n', num: true}, {text: 'Baseline', num: true}, {text: 'Now', num: true}, {text: tight('Difference [95 %], points'), num: true},
      {text: 'Regressed / fixed', num: true}, {text: 'p (Holm)', num: true, title: 'Exact sign-flip permutation over clusters, adjusted within the suite and across suites'}], rows),
    el('p', {class: 'soft'}, tight('A row regressed if its p is below ' + alpha + ' and at least ' + 100 * floor + ' % of its samples were lost, net, unless its suite sets another floor. Samples of one cluster count as one observation. Where tokens are drawn, a row is suspected at most, and assay compare --confirm decides.')
      + (comparison.n_not_run ? ' Left out: ' + counted(comparison.n_not_run, 'pair') + ' of which a side ended in error.' : '') + (comparison.n_non_finite ? ' NaN or Inf met: ' + counted(comparison.n_non_finite, 'reply', 'replies') + '.' : '')),
    lengths.length ? table(['', 'Thinking, baseline → now', {text: 'Never closed', num: true}, {text: 'Loops', num: true}, {text: 'Hit a limit', num: true}, {text: tight('Length × [95 %]'), num: true, title: 'Candidate over baseline, of pairs that closed on both sides'}, {text: 'Pairs', num: true}, {text: 'p (Holm)', num: true}], lengths) : null,
    ...(comparison.fidelity ? distanceTable(comparison.fidelity, pValue) : []),
    flips.length ? el('h3', {}, 'Samples that changed: ' + number(nRegressed) + ' regressed, ' + number(flips.length - nRegressed) + ' fixed') : null,
    flips.length ? table(['', 'Sample', 'Question', {text: 'Expected', num: true}, 'Baseline', 'Now', {text: 'Part at token', title: 'Position in the reply at which the two part, what each said there, and what each found likely'}], flips.map(flip)) : null].filter(Boolean));
}
// How far both are from the base. Where they are not judged against each other, no column of a judgement but the reason.
function distanceTable({rows, reason}, pValue) {
  const kld = e => num(e ? e.value.toFixed(4) : '–');
  const badgeOf = r => r.can_tell ? {regression: badge('✗ further', 'bad'), warn: badge('! warns', 'meh'), pass: badge('✓ not ' + factor(r.would_show, 2) + ' × as far or more', 'good')}[r.verdict] : badge('– cannot tell', 'meh');
  const measured = [{text: 'Mean KLD before, nats', num: true}, {text: 'Now', num: true}, {text: 'Noise floor', num: true}];
  const judged = [{text: tight('Typical text × [95 %]'), num: true, title: 'Candidate over baseline, geometric mean over texts'}, {text: 'p (Holm)', num: true}, {text: 'Would show', num: true, title: 'The smallest factor that would have been called'}];
  const judgement = r => [num(r.ratio ? factor(r.ratio.estimate, 2) + ' [' + factor(r.ratio.lo, 2) + ', ' + factor(r.ratio.hi, 2) + ']' : '–'), num(r.can_tell ? pValue(r.p_holm) : '–'), num(r.can_tell ? '× ' + factor(r.would_show, 2) : '–')];
  const rowOf = r => el('tr', {}, ...(reason ? [] : [el('td', {class: 'says'}, badgeOf(r))]),
    el('th', {scope: 'row'}, r.language === 'all' ? 'All languages' : languageName[r.language] ?? r.language), kld(r.base), kld(r.candidate), num(r.noise_floor === null ? '–' : r.noise_floor.toPrecision(2)), ...(reason ? [] : judgement(r)));
  return [table([...(reason ? [] : ['']), 'Distance to the base', ...measured, ...(reason ? [] : judged)], rows.map(rowOf)),
    reason ? el('p', {class: 'soft'}, 'The two are not judged against each other: ' + reason + '.') : null].filter(Boolean);
}
