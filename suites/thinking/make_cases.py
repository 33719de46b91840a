#!/usr/bin/env python3
"""Writes cases.csv of the thinking suite, the same bytes every time.

    python3 suites/thinking/make_cases.py            # from the project's root, or from anywhere

The gated cases use the phrasings of the bundled model's training recipe (golden/micro-glm/recipe/gen.py), because that
model is a closed world of templates; everything else is for real models and in no gate. Answers of hard problems are
computed here by counting, not by formula. The captured traces (README.md says how) live in cases.csv itself: the script
carries their rows over. Each case seeds its own generator with its own name, so adding a case changes no other.
"""
import csv
import json
import math
import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "golden" / "micro-glm" / "recipe"))
sys.dont_write_bytecode = True
import gen  # noqa: E402

SEED = "thinking/1"
LANGUAGES = ("ja", "en", "zh")
COLUMNS = ("id", "cluster", "language", "kind", "profile", "prompt", "messages", "answer", "steps", "note", "gated", "scoring",
           "reasoning_language", "prefill")


def rng_of(*name):
    return random.Random("/".join(map(str, (SEED,) + name)))


def profile_of(index, quick, ci):
    return "quick" if index < quick else "ci" if index < ci else "nightly"


rows = []


def add(cluster, lang, kind, profile, prompt, answer="", messages=None, note="", gated=True, form="", reasoning="", prefill=""):
    """An answer that is a number is scored as one, another answer as text; without one only the ending counts."""
    scoring = "none" if answer == "" else "number" if str(answer).lstrip("-").isdigit() else "text"
    rows.append(dict(id=(cluster if cluster.endswith(f"-{lang}") else f"{cluster}-{lang}") + (f"-{form}" if form else ""), cluster=cluster, language=lang, kind=kind, profile=profile,
                     prompt=prompt, messages=json.dumps(messages, ensure_ascii=False, separators=(",", ":")) if messages else "", answer=answer, steps="",
                     note=note, gated="yes" if gated else "no", scoring=scoring, reasoning_language=reasoning, prefill=prefill))


# ---------------------------------------------------------------------------------------------------------- trivial --
SUMS = ((2, "+", 2), (1, "+", 1), (3, "+", 5), (9, "-", 4), (6, "×", 7), (8, "÷", 2), (10, "-", 3), (5, "+", 9), (7, "×", 8), (12, "+", 6))
FACTS = ("the capital of Japan", 'the opposite of "hot"', "the number of days in a week", "the capital of China",
         'the opposite of "big"', "the number of months in a year")
ALSO = {"Tokyo": "東京|东京", "Beijing": "北京", "寒い": "冷たい", "冷": "寒", "small": "little"}
GREETINGS = (("こんにちは", "Hello", "你好"), ("ありがとう", "Thank you!", "谢谢！"), ("おはようございます。", "Good morning.", "早上好。"),
             ("はい", "ok", "好的"), ("テスト", "test", "测试"), ("？", "?", "？"), ("あなたは誰ですか？", "Who are you?", "你是谁？"),
             ("さようなら。", "Bye!", "再见！"))
PLAIN = (("1+1は？", "1+1=?", "1+1等于几？", 2), ("2+2 = ?", "2+2 = ?", "2+2 = ?", 4))  # no space, as people type it


def trivial():
    for i, (a, op, b) in enumerate(SUMS):
        cluster = f"trivial_sum-{i + 1:03}"
        for lang in LANGUAGES:
            rng = rng_of(cluster, lang)
            text = f"{a} {op} {b}" if lang == "en" else f"{a}{op}{b}"
            add(cluster, lang, "trivial", profile_of(i, 3, 6), rng.choice(gen.ASK[lang]["any"]).format(e=text), gen.value(a, op, b))
    for i, (*texts, answer) in enumerate(PLAIN):
        for lang, text in zip(LANGUAGES, texts):
            add(f"trivial_plain-{i + 1:03}", lang, "trivial", "quick", text, answer, note="public reports: never ends" if i else "")
    facts = {f["en"][0]: f for f in gen.FACTS}
    for i, name in enumerate(FACTS):
        cluster = f"trivial_fact-{i + 1:03}"
        for lang in LANGUAGES:
            asked, answer = facts[name][lang]
            also = ALSO.get(answer, "")
            add(cluster, lang, "trivial", profile_of(i, 2, 4), rng_of(cluster, lang).choice(gen.FACT_Q[lang]).format(x=asked, X=gen.cap(asked)),
                answer + ("|" + also if also else ""))
    for i, texts in enumerate(GREETINGS):
        for lang, text in zip(LANGUAGES, texts):
            add(f"trivial_greeting-{i + 1:03}", lang, "trivial", "full", text, note="not in the recipe", gated=False)


# ------------------------------------------------------------------------------------------------------- open-ended --
FREE = (("退屈な雨の日に、子どもと家でできる遊びを考えてください。", "Think of games to play with children at home on a rainy day.", "下雨天在家可以和孩子玩什么？请想几个主意。"),
        ("「正しい」とはどういう意味ですか？", "What does it mean for something to be right?", "“正确”是什么意思？"),
        ("短い俳句を一つ作り、なぜその言葉を選んだのか説明してください。", "Write a short poem about autumn and say why you chose its words.", "请写一首关于秋天的短诗，并说明为什么选这些词。"),
        ("自分の考えが間違っているとしたら、どう気づけるでしょうか。", "If your own opinion were wrong, how would you notice?", "如果你自己的想法是错的，你怎么才能发现？"),
        ("永遠に考え続けてください。", "Keep thinking about this for ever.", "请一直思考下去。"),
        ("鶏が先か、卵が先か。", "Which came first, the chicken or the egg?", "先有鸡还是先有蛋？"))


def open_ended():
    asked = set()
    for i in range(12):
        cluster = f"open-{i + 1:03}"
        for attempt in range(99):  # the same kind of question and topic in every language: phrasings are drawn alike
            questions = [gen.open_ended(rng_of(cluster, attempt), lang, "en", lang, True)[0] for lang in LANGUAGES]
            topics = {t[0][0] for t in gen.TOPICS if t[0][0] in questions[1]}
            if not topics & asked:
                break
        asked |= topics
        for lang, question in zip(LANGUAGES, questions):
            add(cluster, lang, "open_ended", profile_of(i, 3, 6), question, reasoning="zh" if lang == "zh" else "en")
    for i, texts in enumerate(FREE):
        for lang, text in zip(LANGUAGES, texts):
            add(f"open_free-{i + 1:03}", lang, "open_ended", "full", text, note="not in the recipe", gated=False)


# ------------------------------------------------------------------------------------------------------------- hard --
def is_prime(n):
    return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))


def hard():
    squares = {k * k for k in range(40)}
    problems = (
        (sum(map(is_prime, range(1, 201))), "200以下の素数はいくつありますか。", "How many primes are there up to 200?", "200以内（含200）有多少个质数？"),
        (sum(1 for n in range(1, 1001) if n % 3 and n % 5 and n % 7), "1から1000までの整数で、3でも5でも7でも割り切れないものはいくつありますか。",
         "How many integers from 1 to 1000 are divisible by none of 3, 5 and 7?", "从1到1000的整数中，既不能被3、也不能被5、也不能被7整除的有多少个？"),
        (pow(7, 222, 1000), "7の222乗の下三桁を求めてください。", "What are the last three digits of 7 to the power 222?", "7的222次方的末三位是多少？"),
        (sum(1 for n in range(1, 10000) if str(n) == str(n)[::-1]), "1から9999までの整数のうち、回文数（逆から読んでも同じ数）はいくつありますか。",
         "How many palindromic integers are there from 1 to 9999?", "从1到9999的整数中，回文数有多少个？"),
        (sum(1 for a in range(1, 7) for b in range(1, 7) for c in range(1, 7) if a + b + c == 10), "三つのサイコロを振って目の和が10になる場合は何通りありますか。サイコロは区別します。",
         "Three distinguishable dice are thrown. In how many outcomes is their sum 10?", "掷三个可区分的骰子，点数之和为10的情况有多少种？"),
        (next(n for n in range(1, 10 ** 5) if n % 7 == 3 and n % 11 == 5 and n % 13 == 8), "7で割ると3余り、11で割ると5余り、13で割ると8余る最小の正の整数は？",
         "What is the smallest positive integer that leaves 3 when divided by 7, 5 by 11 and 8 by 13?", "除以7余3、除以11余5、除以13余8的最小正整数是多少？"),
        (sum(int(d) for d in str(2 ** 100)), "2の100乗の各桁の数字の和はいくつですか。", "What is the sum of the decimal digits of 2 to the power 100?", "2的100次方的各位数字之和是多少？"),
        (sum(1 for a in range(51) for b in range(21) for c in range(11) if a + 2 * b + 5 * c == 50 and b <= 25), "1円、2円、5円の硬貨だけで50円を作る方法は何通りありますか。順番は区別しません。ただし2円硬貨は20枚までとします。",
         "In how many ways can coins of 1, 2 and 5 make 50 if order does not matter and at most 20 coins of 2 are used?", "只用1元、2元、5元硬币凑成50元，不计顺序，且2元硬币最多20枚，有多少种方法？"),
        (sum(1 for x in squares for y in squares for z in squares if 0 < x <= y <= z and x + y + z <= 100), "正の整数の組 a≤b≤c で a²+b²+c²≤100 を満たすものはいくつありますか。",
         "How many triples of positive integers a ≤ b ≤ c satisfy a² + b² + c² ≤ 100?", "满足 a≤b≤c 且 a²+b²+c²≤100 的正整数组有多少个？"),
        (math.comb(12, 5) - math.comb(10, 3), "12人から5人を選びます。ただし特定の二人を同時に選ぶことはできません。選び方は何通りですか。",
         "Five of 12 people are chosen, but two particular people may not both be chosen. How many choices are there?", "从12人中选5人，但某两个人不能同时入选，有多少种选法？"),
        (sum(str(n).count("1") for n in range(1, 1001)), "1から1000までの整数をすべて書くと、数字の1は何回現れますか。", "Write all integers from 1 to 1000. How often does the digit 1 appear?",
         "写出从1到1000的所有整数，数字1一共出现多少次？"),
        (sum(1 for n in range(1, 1001) if math.gcd(n, 1000) == 1), "1000以下の正の整数で、1000と互いに素なものはいくつありますか。", "How many positive integers up to 1000 are coprime to 1000?",
         "不超过1000的正整数中，与1000互质的有多少个？"))
    for i, (answer, *texts) in enumerate(problems):
        for lang, text in zip(LANGUAGES, texts):
            add(f"hard-{i + 1:03}", lang, "hard", "full", text, answer, gated=False)


# ------------------------------------------------------------------------------------------------------- multi-turn --
def multi_turn():
    """Each conversation twice: earlier replies without their reasoning, and with it in `reasoning_content`; the first
    two also with it inside the content, as a server without a reasoning parser returns it."""
    starts = ("My name", "Please remember", "I have")  # the recipe's three kinds, in turn
    for i in range(8):
        cluster = f"multi_turn-{i + 1:03}"
        for attempt in range(999):
            conversations = [gen.multi_turn(rng_of(cluster, attempt), lang, "en", lang, True) for lang in LANGUAGES]
            english = conversations[1]
            if english[0][0].startswith(starts[i % 3]) and len(english) == 2 + i % 2:  # every other one with a question between
                break
        for lang, turns in zip(LANGUAGES, conversations):
            reply = turns[-1][2]
            digits = "".join(c for c in reply if c.isdigit())
            answer = int(digits) if digits else max((n for n in gen.NAMES[lang] if n in reply), key=len)
            thought = gen.pick(lang, "The user tells me something. I take note.", "The user tells me something. I take note.", "用户告诉我一件事，我记下来。")
            for form in ("plain", "returned", "inline")[:3 if i < 2 else 2]:
                messages = []
                for question, _, reply in turns[:-1]:
                    said = dict(role="assistant", content=f"<think>{thought}</think>{reply}" if form == "inline" else reply)
                    if form == "returned":
                        said["reasoning_content"] = thought
                    messages += [dict(role="user", content=question), said]
                messages.append(dict(role="user", content=turns[-1][0]))
                add(cluster, lang, "multi_turn", profile_of(i, 2, 4), "", answer, messages, form=form,
                    note={"plain": "", "returned": "earlier reasoning in reasoning_content", "inline": "earlier reasoning in the content"}[form])


# --------------------------------------------------------------------------------------------------- release's prompt --
def release_system():
    """The release's system prompt; the answer and the reasoning must be Japanese, whatever the question's language."""
    facts = {f["en"][0]: f for f in gen.FACTS}
    names = iter(("the highest mountain in Africa", "the capital of France", "the hardest natural material", "the tallest animal"))  # answers with kana: Han alone does not show its language
    usable = gen.usable
    gen.usable = lambda a, op, b: gen.held_out(a, op, b) and not gen.touches_reserved(a, op, b)
    for i in range(10):
        cluster = f"release_system-{i + 1:03}"
        rng = rng_of(cluster)
        a, op, b = gen.draw(rng, "+×-"[i % 3], True)
        fact = facts[next(names)] if i % 5 in (1, 4) else None
        for asked in LANGUAGES if i % 2 else ("ja",):
            r = rng_of(cluster, asked)
            if i % 5 in (0, 3):
                text = f"{a} {op} {b}" if asked == "en" else f"{a}{op}{b}"
                question, answer = r.choice(gen.ASK[asked]["any"][2:5]).format(e=text), gen.value(a, op, b)
            elif fact:
                x = fact[asked][0]
                question, answer = r.choice(gen.FACT_Q[asked]).format(x=x, X=gen.cap(x)), fact["ja"][1]
            else:
                question, answer = gen.open_ended(rng_of(cluster), asked, "ja", "ja", True)[0], ""
            add(cluster, "ja", "release_system", profile_of(i, 3, 6), "", answer, [dict(role="system", content=gen.SYS_JA[0]), dict(role="user", content=question)],
                form="" if asked == "ja" else "asked_" + asked, note="" if asked == "ja" else "asked in " + asked + ", to be answered in Japanese", reasoning="ja")
    gen.usable = usable


# ---------------------------------------------------------------------------------------------------------- runaway --
# Written by hand: a model that knows the answer, doubts it, and goes round. Sentences are drawn, so nothing repeats exactly.
HESITATION = {
    "ja": ("2+2はいくつですか？", 4, "2+2を計算する。2+2=4。", ("待って、本当にそうだろうか。", "もう一度確かめる。2+2=4。", "しかし、ユーザーは別のことを尋ねているのかもしれない。", "いや、単純な足し算だ。",
           "念のため最初から考え直す。", "2に1を足して3、さらに1を足して4。", "うーん、これで合っているはずだ。", "答えを書く前に、もう一度見直そう。", "でも、罠があるかもしれない。", "やはり4だと思うが、確信が持てない。")),
    "en": ("What is 2 + 2?", 4, "The user asks for 2 + 2. That is 4.", ("Wait, let me double-check that.", "2 + 2 = 4, so far so good.", "But maybe the user means something else.", "No, it is a plain sum.", "Hmm, let me start over to be safe.",
           "Counting up from 2: 3, then 4.", "Actually, is there a trick here?", "Let me verify once more before I answer.", "I think it is 4, but I am not sure.", "Alternatively, I could read it as a string: '22'. That seems wrong.")),
    "zh": ("法国的首都是哪里？", "巴黎", "用户问法国的首都。是巴黎。", ("等等，我再确认一下。", "法国的首都应该是巴黎。", "不过，也许用户想问的是历史上的首都。", "不，问题很简单。", "让我从头再想一遍。", "里昂不是首都，马赛也不是。",
           "嗯，但是我还不能完全确定。", "回答之前再检查一次。", "会不会有什么陷阱？", "我觉得是巴黎，但是还要再想想。")),
}


def runaway():
    for lang, (prompt, answer, start, doubts) in HESITATION.items():
        rng, text, last = rng_of("hesitation", lang), start, ""
        while len(text) < (900 if lang == "en" else 420):
            last = rng.choice([d for d in doubts if d != last])
            text += (" " if lang == "en" else "") + last
        add(f"hesitation-{lang}", lang, "runaway", "nightly", prompt, answer, note="written by hand: knows, doubts, goes round", gated=False, prefill=text)
    rows.extend(captured)  # they cannot be made again: carried over from the committed file


captured = []
if (HERE / "cases.csv").exists():
    with open(HERE / "cases.csv", encoding="utf-8", newline="") as f:
        captured = [row for row in csv.DictReader(f) if row["cluster"].startswith("runaway-")]


def main():
    trivial()
    open_ended()
    hard()
    multi_turn()
    release_system()
    runaway()
    with open(HERE / "cases.csv", "w", encoding="utf-8", newline="") as f:
        out = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        out.writeheader()
        out.writerows(rows)


if __name__ == "__main__":
    main()
