#!/usr/bin/env python3
"""Writes cases.csv of the arithmetic suite, the same bytes every time.

    python3 suites/arithmetic/make_cases.py            # from the project's root, or from anywhere

Phrasings come from the bundled model's own training recipe (golden/micro-glm/recipe/gen.py: ASK, WORD, HOW, SYS_JA),
because that model is a closed world of templates; the numbers are those that its training never asked about
(gen.held_out is true for every step of every case). Each case seeds its own generator with its own name, so adding a
case behind the others changes none of them. held_out_test.cc checks the committed file without Python.
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
from exact_problems import EXACT  # noqa: E402

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


def plain(kind, op, count, quick, ci, accept=lambda i, a, b: True, first=0, **more):
    for i in range(first, count):
        cluster = f"{kind}-{i + 1:03}"
        steps = one_step(rng_of(cluster), op, lambda a, b: accept(i, a, b))
        for lang in LANGUAGES:
            add(cluster, lang, kind, profile_of(i, quick, ci), gen.value(*steps[0]), steps,
                ask_plain(rng_of(cluster, lang), lang, steps[0]), **more)


def two_steps(count, quick, ci, first=0):
    for i in range(first, count):
        cluster, shape = f"two_step-{i + 1:03}", SHAPES[i % len(SHAPES)]
        numbers, steps = two_step(rng_of(cluster), shape)
        for lang in LANGUAGES:
            add(cluster, lang, "two_step", profile_of(i, quick, ci), gen.value(*steps[-1]), steps,
                ask_two_step(rng_of(cluster, lang), lang, shape, numbers), note=shape)


def words(count, quick, ci, first=0):
    for i in range(first, count):
        cluster, template = f"word-{i + 1:03}", i % len(gen.WORD["en"])
        rng = rng_of(cluster)
        numbers, steps = word(rng, template)
        names = rng.randrange(24), rng.randrange(len(gen.OBJECTS["en"]))
        for lang in LANGUAGES:
            add(cluster, lang, "word", profile_of(i, quick, ci), gen.value(*steps[-1]), steps,
                ask_word(rng_of(cluster, lang), lang, template, numbers, names))


def comparisons(count, quick, ci, first=0):
    """Same number of digits every second time; as often the larger as the smaller, the first as the second."""
    for i in range(first, count):
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


STYLES = (("fullwidth", "full", 12, 4, 8), ("kanji", "kanji", 12, 4, 8), ("comma", "comma", 4, 2, 3))


def number_styles(styles=STYLES, first=None):
    """Full-width digits and kanji numerals (Japanese and Chinese), thousands commas (all three languages)."""
    ops = "+-×÷%"
    for kind, style, count, quick, ci in styles:
        for i in range(first[kind] if first else 0, count):
            cluster = f"{kind}-{i + 1:03}"
            if kind == "fullwidth" and i in (10, 11):  # two word problems
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
    chat_history(0, 4)


def chat_history(first, count):
    for i in range(first, count):
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


# ------------------------------------------------------------------------------------- other words, harder problems --
def mixed(n, lang):
    """350000000 as 3億5000万 or 3亿5000万, in English 350,000,000."""
    if lang == "en":
        return f"{n:,}"
    upper, rest = divmod(n, 10 ** 8)
    return (f"{upper}{'億' if lang == 'ja' else '亿'}" if upper else "") + f"{rest // 10 ** 4}万" + (str(rest % 10 ** 4) if rest % 10 ** 4 else "")


def numerals(n, lang):
    """The same in kanji: 三億五千万. Only for a ten-thousands part from 2000 on, so that no 零 and no bare 千 is needed."""
    if lang == "en":
        return f"{n:,}"
    upper, rest = divmod(n, 10 ** 8)
    group = gen.kanji if lang == "ja" else gen.hanzi
    return f"{group(upper)}{'億' if lang == 'ja' else '亿'}{group(rest // 10 ** 4)}万"


def beyond(kind, problems):
    """(name, draw, note, ja, en, zh): draw(rng) gives numbers by letter and the steps, or None to draw again."""
    for i, (draw, note, *texts) in enumerate(problems):
        cluster = f"{kind}-{i + 1:03}"
        rng = rng_of(cluster)
        while True:
            drawn = draw(rng)
            if drawn and all(gen.usable(*s) for s in drawn[1]) and fresh(drawn[1]):
                break
        numbers, steps = drawn
        for lang, text in zip(LANGUAGES, texts):
            shown = {k: v(lang) if callable(v) else v for k, v in numbers.items()}
            add(cluster, lang, kind, "full", gen.value(*steps[-1]), steps, text.format(**shown), note=note, gated=False)


def pair(op, low_a, high_a, low_b, high_b):
    """One step in other words; no negative result, no remainder in a division."""
    def draw(rng):
        a, b = rng.randrange(low_a, high_a), rng.randrange(low_b, high_b)
        if op == "÷":
            a *= b
        return None if op == "-" and a <= b else (dict(a=a, b=b), [(a, op, b)])
    return draw


REWORDED = (
    (pair("+", 20, 500, 20, 500), "sum", "{a}個のおはじきに{b}個のおはじきを混ぜました。数え直すと何個あるはずですか。", "A jar holding {a} beads receives another {b}. Count the beads in it.",
     "罐子里有{a}颗珠子，再倒进去{b}颗，数一数应有几颗？"),
    (pair("-", 300, 900, 20, 300), "difference", "標高{a}mの峠から{b}mだけ下った地点の標高を答えよ。", "From a pass {a} m high we descend by {b} m. At what height do we arrive?", "从海拔{a}米的山口往下走{b}米，到达处海拔多少米？"),
    (pair("×", 12, 99, 3, 10), "product", "1列に{a}席ある劇場で、{b}列が満席です。観客は何人いますか。", "A theatre row seats {a}. With {b} rows full, how large is the audience?", "剧场每排{a}座，坐满了{b}排，观众共几人？"),
    (pair("÷", 12, 90, 3, 10), "quotient", "{a}枚の写真を、1ページに{b}枚ずつアルバムに貼ると、ちょうど何ページ要りますか。", "An album takes {b} photos a page. How many pages do {a} photos fill exactly?", "相册每页贴{b}张，{a}张照片正好贴满几页？"),
    (pair("%", 100, 900, 6, 10), "remainder", "{a}本のばらを{b}本ずつ束ねると、束にならずに余るのは何本ですか。", "{a} roses are tied in bunches of {b}. How many stay loose?", "{a}枝玫瑰每{b}枝扎一束，扎到不能再扎时剩几枝？"),
    (pair("-", 1200, 2000, 300, 900), "years", "西暦{a}年の{b}年前は西暦何年ですか。", "Which year was {b} years before {a}?", "公元{a}年的{b}年前是公元几年？"))


def large(op, kanji, unit=10 ** 6):
    """Two amounts in hundreds of millions."""
    def draw(rng):
        a, b = unit * rng.randrange(220, 990), unit * rng.randrange(120, 480)
        style = numerals if kanji else mixed
        if (a - b < 0 and op == "-") or any(n % 10 ** 8 < 2 * 10 ** 7 for n in (a, b)):
            return None
        return dict(a=lambda lang: style(a, lang), b=lambda lang: style(b, lang)), [(a, op, b)]
    return draw


def large_times(rng):
    a, b = 10 ** 6 * rng.randrange(120, 900), rng.randrange(3, 10)
    return None if a % 10 ** 8 < 2 * 10 ** 7 else (dict(a=lambda lang: mixed(a, lang), b=b), [(a, "×", b)])


LARGE = (
    (large("+", False), "3億5000万", "ある会社の売上は上半期が{a}円、下半期が{b}円でした。一年では何円ですか。数字で答えてください。", "A company sold for {a} yen in the first half and {b} yen in the second. What is the total in digits?",
     "某公司上半年销售额{a}元，下半年{b}元，全年是多少元？请用数字回答。"),
    (large("-", False), "3億5000万", "人口が{a}人の国と{b}人の国では、人口の差は何人ですか。", "One country has {a} inhabitants, another {b}. How large is the difference?", "一个国家有{a}人，另一个有{b}人，相差多少人？"),
    (large("+", True), "三億五千万", "{a}と{b}を足した数を、算用数字で書いてください。", "Write the sum of {a} and {b} in digits.", "请用阿拉伯数字写出{a}与{b}的和。"),
    (large("-", True), "三億五千万", "予算{a}円のうち{b}円を使いました。残額を算用数字で書いてください。", "Of a budget of {a} yen, {b} yen are spent. What remains, in digits?", "预算{a}元，用去{b}元，余额是多少？请用阿拉伯数字写。"),
    (large_times, "3億5000万 × n", "毎年{a}円ずつ積み立てると、{b}年で何円になりますか。", "A fund grows by {a} yen a year. How much is added in {b} years?", "每年存入{a}元，{b}年一共多少元？"))


def chain(*shape):
    """Steps one after another: (low, high, op, low, high) and then (op, low, high), each on the result before."""
    def draw(rng):
        (low, high, op, low_b, high_b), *more = shape
        numbers = [rng.randrange(low, high), rng.randrange(low_b, high_b)]
        steps = [(numbers[0], op, numbers[1])]
        for op, low, high in more:
            result = gen.value(*steps[-1])
            number = rng.randrange(low, high)
            if (op == "-" and number >= result) or (op == "÷" and result % number):
                return None
            numbers.append(number)
            steps.append((result, op, number))
        return dict(zip("abcd", numbers)), steps
    return draw


MULTI_STEP = (
    (chain((6, 30, "×", 8, 30), ("-", 5, 60), ("÷", 3, 10)), "× - ÷", "パン屋は{b}個入りの天板を{a}枚焼き、{c}個を店で売り、残りを{d}個ずつ箱に詰めました。箱はいくつできましたか。",
     "A baker bakes {a} trays of {b} rolls, sells {c} of them and packs the rest in boxes of {d}. How many boxes are there?", "面包师烤了{a}盘，每盘{b}个，卖掉{c}个，其余每{d}个装一盒，一共装了几盒？"),
    (chain((10, 60, "+", 10, 60), ("×", 3, 9), ("-", 5, 80)), "+ × -", "男子{a}人と女子{b}人が、1人{c}本ずつ苗を植えましたが、{d}本は枯れました。育った苗は何本ですか。",
     "{a} boys and {b} girls plant {c} seedlings each, but {d} seedlings die. How many grow?", "{a}名男生和{b}名女生每人种{c}棵树苗，其中{d}棵枯死，成活多少棵？"),
    (chain((200, 900, "-", 20, 180), ("÷", 3, 9), ("+", 10, 90)), "- ÷ +", "{a}円から{b}円の本を買った残りを{c}人の兄弟で等しく分け、その後、私は父から{d}円もらいました。私は今何円持っていますか。",
     "Of {a} yen, {b} yen go into a book; {c} brothers share the rest equally, and I, one of them, then get {d} yen from father. How much do I have?", "有{a}元，买书用去{b}元，余下由{c}兄弟平分，之后父亲又给了我{d}元，我现在有多少元？"),
    (chain((30, 120, "×", 3, 9), ("+", 20, 200), ("-", 50, 300)), "× + -", "時速{a}kmで{b}時間走り、さらに{c}km進みました。全行程のうち{d}kmは高速道路です。一般道は何kmですか。",
     "A car drives {b} hours at {a} km/h and then {c} km more. Of all that, {d} km are motorway. How many km are other roads?", "汽车以每小时{a}千米行驶{b}小时，又走了{c}千米。全程中{d}千米是高速公路，其余道路多少千米？"),
    (chain((40, 99, "+", 40, 99), ("+", 40, 99), ("÷", 3, 4)), "average", "国語は{a}点、数学は{b}点、英語は{c}点でした。{d}教科の平均点は何点ですか。", "Marks are {a}, {b} and {c}. What is the average of the {d}?",
     "语文{a}分，数学{b}分，英语{c}分，{d}科的平均分是多少？"),
    (chain((800, 1500, "×", 4, 9), ("-", 300, 2000), ("-", 100, 900)), "× - -", "時給{a}円で{b}時間働き、税金{c}円と食費{d}円を払いました。手元に残るのはいくらですか。",
     "At {a} yen an hour someone works {b} hours, then pays {c} yen of tax and {d} yen for food. What is left?", "时薪{a}元，工作{b}小时，交税{c}元，吃饭{d}元，还剩多少元？"),
    (chain((12, 60, "×", 12, 40), ("%", 6, 10)), "× %", "{a}人の班が{b}班あります。全員を{c}人乗りの車に分けて乗せると、最後の車に乗る人は何人ですか。", "There are {b} groups of {a} people. All get into cars for {c}. How many sit in the last, not full car?",
     "有{b}个组，每组{a}人，全部坐进每辆{c}座的车，最后一辆没坐满的车里有几人？"),
    (chain((100, 400, "-", 10, 90), ("×", 3, 10), ("+", 50, 300)), "- × +", "定価{a}円の品を{b}円引きで{c}個買い、送料{d}円を払いました。支払いは全部でいくらですか。", "An article of {a} yen is reduced by {b} yen. Someone orders {c} of them and pays {d} yen for shipping. What is the bill?",
     "原价{a}元的商品便宜{b}元，买{c}件，另付运费{d}元，一共付多少元？"))


def exact():
    for kind, table in EXACT.items():
        for i, (note, answer, steps, *texts) in enumerate(table):
            for lang, text in zip(LANGUAGES, texts):
                add(f"{kind}-{i + 1:03}", lang, kind, "full", answer, [], text, note=note, gated=False)
                rows[-1]["steps"] = steps


def version_2():
    """What the second version added, behind everything of the first, so that no row of it changes."""
    plain("add", "+", 30, 0, 0, first=13)
    plain("sub", "-", 30, 0, 0, lambda i, a, b: (a < b) == (i % 8 == 0), first=13)
    plain("mul", "×", 36, 0, 0, first=16)
    plain("div", "÷", 24, 0, 0, lambda i, a, b: b < 10 and a != b, first=10)
    plain("div_long", "÷", 10, 0, 0, lambda i, a, b: b > 10, first=5, note="two-digit divisor", gated=False)
    plain("rem", "%", 20, 0, 0, first=9)
    two_steps(32, 0, 0, first=16)
    comparisons(20, 0, 0, first=10)
    words(40, 0, 0, first=20)
    number_styles((("fullwidth", "full", 20, 0, 0), ("kanji", "kanji", 20, 0, 0), ("comma", "comma", 10, 0, 0)), dict(fullwidth=12, kanji=12, comma=4))
    chat_history(4, 10)
    beyond("reworded", REWORDED)
    beyond("large", LARGE)
    beyond("multi_step", MULTI_STEP)
    exact()


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
    version_2()
    with open(HERE / "cases.csv", "w", encoding="utf-8", newline="") as f:
        out = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        out.writeheader()
        out.writerows(rows)


if __name__ == "__main__":
    main()
