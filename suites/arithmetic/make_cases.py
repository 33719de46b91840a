#!/usr/bin/env python3
"""Writes cases.csv of the arithmetic suite, the same bytes every time.

    python3 suites/arithmetic/make_cases.py            # from the project's root, or from anywhere

Phrasings come from the bundled model's own training recipe (golden/micro-glm/recipe/gen.py: ASK, WORD, HOW, SYS_JA),
because that model is a closed world of templates; the numbers are those that its training never asked about
(gen.held_out is true for every step of every case). Each case seeds its own generator with its own name, so adding a
case changes no other. held_out_test.cc checks the committed file without Python.
"""
import csv
import json
import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "golden" / "micro-glm" / "recipe"))
sys.dont_write_bytecode = True
import gen  # noqa: E402

SEED = "arithmetic/1"
LANGUAGES = ("ja", "en", "zh")
COLUMNS = ("id", "cluster", "language", "kind", "profile", "prompt", "messages", "answer", "steps", "note", "gated")

# gen.draw asks gen.usable whether an operand pair may be asked, exactly as in evaluate.build: here only held-out ones.
# The reserved products (127×8, 269×6) stay for the release's own checks.
gen.usable = lambda a, op, b: gen.held_out(a, op, b) and not gen.touches_reserved(a, op, b)


def rng_of(*name):
    return random.Random("/".join(map(str, (SEED,) + name)))


# ---------------------------------------------------------------------------------------------------------- numbers --
seen = set()


def fresh(steps):
    """True once per list of steps, and only if no operand happens to be the answer (echoing must not score)."""
    result = gen.value(*steps[-1])
    key = tuple(steps)
    if key in seen or any(result in (a, b) for a, _, b in steps) or any(a < 2 or b < 2 for a, _, b in steps):
        return False
    seen.add(key)
    return True


def one_step(rng, op, accept=lambda a, b: True, small=False):
    while True:
        a, _, b = gen.draw(rng, op, small)
        if accept(a, b) and fresh([(a, op, b)]):
            return [(a, op, b)]


SHAPES = ("(a+b)×c", "a×b+c", "a×b-c", "a+b-c", "a-b+c", "(a-b)×c", "a+b×c", "a+b+c")


def two_step(rng, shape):
    """Operands a, b, c and the two steps of one of the recipe's shapes; ranges as in gen.arithmetic."""
    while True:
        if shape in ("a×b+c", "a×b-c"):
            a, _, b = gen.draw(rng, "×", True)
            c = rng.randrange(2, 200) if shape[-2] == "+" else rng.randrange(1, max(2, a * b))
            steps = [(a, "×", b), (a * b, shape[-2], c)]
        elif shape == "a+b×c":
            b, _, c = gen.draw(rng, "×", True)
            a = rng.randrange(2, 500)
            steps = [(b, "×", c), (a, "+", b * c)]
        elif "×" in shape:
            a, _, b = gen.draw(rng, shape[2], True)
            c = rng.randrange(2, 10)
            first = (a, shape[2], b)
            if not 1 <= gen.value(*first) <= 999:
                continue
            steps = [first, (gen.value(*first), "×", c)]
        else:
            a, _, b = gen.draw(rng, shape[1], True)
            c = rng.randrange(1, 500)
            first = (a, shape[1], b)
            if gen.value(*first) < 0:
                continue
            steps = [first, (gen.value(*first), shape[3], c)]
            if gen.value(*steps[1]) < 0:
                continue
        if gen.usable(*steps[1]) and gen.value(*steps[1]) not in (a, b, c) and fresh(steps):
            return dict(a=a, b=b, c=c), steps


def word(rng, template):
    """Operands and steps of the recipe's word problem number `template`; one-digit divisors only."""
    op = gen.WORD["en"][template][0]
    while True:
        a, _, b = gen.draw(rng, "×" if op in ("pay", "more") else op, op != "÷")
        if op in ("pay", "more"):
            notes = [x for x in (100, 500, 1000, 2000, 5000, 10000) if x >= a * b]
            c = rng.choice(notes) if op == "pay" else rng.randrange(2, 100)
            steps = [(a, "×", b), (c, "-", a * b) if op == "pay" else (a * b, "+", c)]
            if not gen.usable(*steps[1]):
                continue
        else:
            c, steps = 0, [(a, op, b)]
        if (op == "-" and a < b) or (op == "÷" and b > 9) or gen.value(*steps[-1]) in (a, b, c):
            continue
        if fresh(steps):
            return dict(a=a, b=b, c=c), steps


# ---------------------------------------------------------------------------------------------------------- wording --
SIGNS = {"+": ["+", "+", "＋"], "-": ["-", "-", "−"], "×": ["×", "×", "×", "*", "x"], "÷": ["÷", "÷", "/"]}
SPOKEN = {"ja": {"+": "足す", "-": "引く", "×": "かける", "÷": "割る"}, "zh": {"+": "加", "-": "减", "×": "乘以", "÷": "除以"},
          "en": {"+": "plus", "-": "minus", "×": "times", "÷": "divided by"}}


def with_form(rng, question, lang):
    """Three cases in ten also say how to answer: number only, boxed, or step by step."""
    form = rng.choices(("free", "num", "box", "step"), (70, 10, 10, 10))[0]
    if form == "free":
        return question
    how = rng.choice(gen.HOW[form][lang])
    return f"{question}\n{how}" if rng.random() < 0.4 else question + (" " if lang == "en" else "") + how


def ask_plain(rng, lang, step, style="ascii"):
    a, op, b = step
    a, b = gen.show(a, style, lang), gen.show(b, style, lang)
    if op == "%":
        return with_form(rng, rng.choice(gen.ASK[lang]["%"]).format(a=a, b=b), lang)
    signs = [s for s in SIGNS[op] if lang != "en" or s != "＋"]
    sign = SPOKEN[lang][op] if rng.random() < 0.15 else rng.choice(signs)
    space = " " if lang == "en" or rng.random() < 0.5 else ""
    expression = f"{a}{space}{sign}{space}{b}"
    if rng.random() < 0.7:
        question = rng.choice(gen.ASK[lang]["any"]).format(e=expression)
    else:
        question = rng.choice(gen.ASK[lang][op]).format(a=a, b=b)
    return with_form(rng, question, lang)


def ask_two_step(rng, lang, shape, numbers):
    expression = "".join(str(numbers[ch]) if ch in numbers else f" {ch} " if ch in "+-×" else ch for ch in shape)
    if rng.random() < 0.2:
        expression = expression.replace("×", "*")
    return with_form(rng, rng.choice(gen.ASK[lang]["any"]).format(e=expression), lang)


def ask_word(rng, lang, template, numbers, names, style="ascii"):
    text = gen.WORD[lang][template][1]
    shown = {k: gen.show(v, style, lang) for k, v in numbers.items()}
    return with_form(rng, text.format(n=gen.NAMES[lang][names[0]], o=gen.OBJECTS[lang][names[1]], **shown), lang)


def ask_compare(rng, lang, a, b, bigger):
    return with_form(rng, gen.pick(lang, f"Which is {'larger' if bigger else 'smaller'}, {a} or {b}?",
                                   f"{a}と{b}では、どちらが{'大きい' if bigger else '小さい'}ですか？",
                                   f"{a}和{b}哪个更{'大' if bigger else '小'}？"), lang)


# ------------------------------------------------------------------------------------------------------------ cases --
rows = []


def profile_of(index, quick, ci):
    return "quick" if index < quick else "ci" if index < ci else "nightly"


def add(cluster, lang, kind, profile, answer, steps, prompt="", messages=None, note="", gated=True):
    rows.append(dict(id=f"{cluster}-{lang}", cluster=cluster, language=lang, kind=kind, profile=profile, prompt=prompt,
                     messages=json.dumps(messages, ensure_ascii=False) if messages else "", answer=answer,
                     steps=";".join(f"{a}{op}{b}" for a, op, b in steps), note=note, gated="yes" if gated else "no"))


def release_checks():
    for lang, text in (("ja", "127×8はいくつですか？"), ("en", "What is 127 × 8?"), ("zh", "127×8等于多少？")):
        add("release-127x8", lang, "release", "quick", 1016, [(127, "×", 8)], text, note="the release's own check")
    add("release-269x6", "ja", "release", "quick", 1614, [(269, "×", 6)], "269×6はいくつですか？",
        note="the release's own check")


def plain(kind, op, count, quick, ci, accept=lambda i, a, b: True, **more):
    for i in range(count):
        cluster = f"{kind}-{i + 1:03}"
        steps = one_step(rng_of(cluster), op, lambda a, b: accept(i, a, b))
        for lang in LANGUAGES:
            add(cluster, lang, kind, profile_of(i, quick, ci), gen.value(*steps[0]), steps,
                ask_plain(rng_of(cluster, lang), lang, steps[0]), **more)


def two_steps(count, quick, ci):
    for i in range(count):
        cluster, shape = f"two_step-{i + 1:03}", SHAPES[i % len(SHAPES)]
        numbers, steps = two_step(rng_of(cluster), shape)
        for lang in LANGUAGES:
            add(cluster, lang, "two_step", profile_of(i, quick, ci), gen.value(*steps[-1]), steps,
                ask_two_step(rng_of(cluster, lang), lang, shape, numbers), note=shape)


def words(count, quick, ci):
    for i in range(count):
        cluster, template = f"word-{i + 1:03}", i % len(gen.WORD["en"])
        rng = rng_of(cluster)
        numbers, steps = word(rng, template)
        names = rng.randrange(24), rng.randrange(len(gen.OBJECTS["en"]))
        for lang in LANGUAGES:
            add(cluster, lang, "word", profile_of(i, quick, ci), gen.value(*steps[-1]), steps,
                ask_word(rng_of(cluster, lang), lang, template, numbers, names))


def comparisons(count, quick, ci):
    """Same number of digits every second time; as often the larger as the smaller, the first as the second."""
    for i in range(count):
        cluster = f"compare-{i + 1:03}"
        rng = rng_of(cluster)
        k = 2 + i % 3
        a = rng.randrange(10 ** (k - 1), 10 ** k)
        b = rng.randrange(10 ** (k - 1), 10 ** k) if i % 2 == 0 else rng.randrange(1, 10000)
        assert a != b
        for lang in LANGUAGES:
            bigger = i % 4 in (0, 3)
            add(cluster, lang, "compare", profile_of(i, quick, ci), max(a, b) if bigger else min(a, b), [],
                ask_compare(rng_of(cluster, lang), lang, a, b, bigger))


def number_styles():
    """Full-width digits and kanji numerals (Japanese and Chinese), thousands commas (all three languages)."""
    ops = "+-×÷%"
    for kind, style, count, quick, ci in (("fullwidth", "full", 12, 4, 8), ("kanji", "kanji", 12, 4, 8), ("comma", "comma", 4, 2, 3)):
        for i in range(count):
            cluster = f"{kind}-{i + 1:03}"
            if kind == "fullwidth" and i >= 10:  # the last two are word problems
                template = (4, 8)[i - 10]
                rng = rng_of(cluster)
                numbers, steps = word(rng, template)
                names = rng.randrange(24), rng.randrange(len(gen.OBJECTS["en"]))
                ask = lambda r, lang: ask_word(r, lang, template, numbers, names, style)
            else:
                op = "+-"[i % 2] if kind == "comma" else ops[i % 5]
                accept = (lambda a, b: a >= 1000 and b >= 100) if kind == "comma" else (lambda a, b: op != "÷" or b < 10)
                steps = one_step(rng_of(cluster), op, accept)
                ask = lambda r, lang: ask_plain(r, lang, steps[0], style)
            for lang in LANGUAGES if kind == "comma" else ("ja", "zh"):
                add(cluster, lang, kind, profile_of(i, quick, ci), gen.value(*steps[-1]), steps, ask(rng_of(cluster, lang), lang))


def chats():
    """Message lists: a system prompt that asks for Japanese reasoning, and a question about an earlier turn."""
    for i, (system, op) in enumerate(zip((gen.SYS_JA[0], "思考過程も日本語で書いてください。", "日本語で考えてください。",
                                          "Think in Japanese."), "×+-×")):
        cluster = f"chat_system-{i + 1:03}"
        steps = one_step(rng_of(cluster), op)
        for lang in ("ja", "en") if "ENTIRE" not in system else ("ja",):
            prompt = ask_plain(rng_of(cluster, lang), lang, steps[0])
            add(cluster, lang, "chat", profile_of(i, 1, 3), gen.value(*steps[0]), steps,
                messages=[dict(role="system", content=system), dict(role="user", content=prompt)],
                note="system prompt asks for Japanese reasoning")
    for i in range(4):
        cluster = f"chat_history-{i + 1:03}"
        rng = rng_of(cluster)
        while True:
            a, b = rng.randrange(2, 100), rng.randrange(2, 10)
            steps = [(a, "+", b)]
            if gen.usable(a, "+", b) and fresh(steps):
                break
        for lang in LANGUAGES:
            turns = gen.pick(lang, [f"I have {a} coins.", f"You have {a} coins.", f"I get {b} more. How many coins do I have now?"],
                             [f"コインを{a}枚持っています。", f"{a}枚ですね。", f"さらに{b}枚もらいました。今は何枚ですか？"],
                             [f"我有{a}枚硬币。", f"好的，{a}枚。", f"又得到{b}枚，现在有几枚？"])
            roles = ("user", "assistant", "user")
            add(cluster, lang, "chat", profile_of(i, 1, 3), a + b, steps,
                messages=[dict(role=r, content=t) for r, t in zip(roles, turns)], note="question about an earlier turn")


def held(rng, low_a, high_a, op, low_b, high_b, accept=lambda a, b: True):
    while True:
        a, b = rng.randrange(low_a, high_a), rng.randrange(low_b, high_b)
        if accept(a, b) and gen.usable(a, op, b) and fresh([(a, op, b)]):
            return [(a, op, b)]


def hard():
    """Beyond the bundled model, for real ones: asked and reported in profile full, never gated."""
    for i, (label, low_a, high_a, op, low_b, high_b) in enumerate((
            ("4 digits × 3 digits", 1001, 9999, "×", 101, 999), ("4 digits × 3 digits", 1001, 9999, "×", 101, 999),
            ("8 digits + 7 digits", 10 ** 7, 10 ** 8, "+", 10 ** 6, 10 ** 7), ("5 digits ÷ 2 digits, remainder", 10001, 99999, "%", 12, 99))):
        cluster = f"hard-{i + 1:03}"
        steps = held(rng_of(cluster), low_a, high_a, op, low_b, high_b)
        for lang in LANGUAGES:
            add(cluster, lang, "hard", "full", gen.value(*steps[0]), steps, ask_plain(rng_of(cluster, lang), lang, steps[0]),
                note=label, gated=False)
    # 3/4 of a number, and mixed notation (14万2000) in Japanese and Chinese.
    rng = rng_of("hard-005")
    while True:
        a = 4 * rng.randrange(30, 250)
        steps = [(a, "÷", 4), (a // 4, "×", 3)]
        if all(gen.usable(*s) for s in steps) and fresh(steps):
            break
    for lang, text in (("ja", f"{a}の3/4はいくつですか？"), ("en", f"What is 3/4 of {a}?"), ("zh", f"{a}的3/4是多少？")):
        add("hard-005", lang, "hard", "full", a // 4 * 3, steps, text, note="fraction of a number", gated=False)
    rng = rng_of("hard-006")
    while True:
        a, b = 1000 * rng.randrange(120, 200), 1000 * rng.randrange(12, 98)
        steps = [(a, "-", b)]
        if a % 10000 and b % 10000 and gen.usable(a, "-", b) and fresh(steps):
            break
    mixed = lambda n: f"{n // 10000}万{n % 10000}"
    for lang, text in (("ja", f"{mixed(a)}円から{mixed(b)}円を使うと、残りはいくらですか？"), ("en", f"You have {a:,} yen and spend {b:,} yen. How much is left?"),
                       ("zh", f"有{mixed(a)}元，花了{mixed(b)}元，还剩多少元？")):
        add("hard-006", lang, "hard", "full", a - b, steps, text, note="mixed numerals such as 14万2000", gated=False)


def main():
    release_checks()
    plain("add", "+", 13, 4, 9)
    plain("sub", "-", 13, 4, 9, lambda i, a, b: (a < b) == (i in (3, 8)))  # two results are negative
    plain("mul", "×", 16, 6, 11)
    plain("div", "÷", 10, 3, 7, lambda i, a, b: b < 10 and a != b)
    plain("div_long", "÷", 5, 1, 3, lambda i, a, b: b > 10, note="two-digit divisor", gated=False)
    plain("rem", "%", 9, 3, 6)
    two_steps(16, 6, 11)
    comparisons(10, 4, 7)
    words(20, 7, 13)
    number_styles()
    chats()
    hard()
    with open(HERE / "cases.csv", "w", encoding="utf-8", newline="") as f:
        out = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        out.writeheader()
        out.writerows(rows)


if __name__ == "__main__":
    main()
