#!/usr/bin/env python3
"""Writes cases.csv of the language suite, the same bytes every time.

    python3 suites/language/make_cases.py            # from the project's root, or from anywhere

The gated cases use questions and system prompts of the bundled model's training recipe (golden/micro-glm/recipe/gen.py),
because that model is a closed world of templates; the rest is for real models and in no gate. Only questions whose
answers show their language are asked: several words, no bare numbers, and in Japanese no answer in Han alone. Each
case seeds its own generator with its own name, so adding a case changes no other.
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

SEED = "language/1"
LANGUAGES = ("ja", "en", "zh")
COLUMNS = ("id", "cluster", "language", "kind", "profile", "prompt", "messages", "answer", "steps", "note", "gated", "scoring", "reasoning_language")
DEFAULT = {"ja": "en", "en": "en", "zh": "zh"}  # the recipe's reasoning language by question


def rng_of(*name):
    return random.Random("/".join(map(str, (SEED,) + name)))


def profile_of(index, quick, ci):
    return "quick" if index < quick else "ci" if index < ci else "nightly"


rows = []


def add(cluster, lang, kind, profile, question, reasoning, system="", asked="", answer="", note="", gated=True):
    """`lang`: what the answer must be in; `asked`: the question's language where it is another."""
    messages = [dict(role="system", content=system), dict(role="user", content=question)] if system else None
    rows.append(dict(id=f"{cluster}-{lang}" + (f"-asked_{asked}" if asked and asked != lang else ""), cluster=cluster, language=lang, kind=kind,
                     profile=profile, prompt="" if messages else question, answer=answer, steps="", gated="yes" if gated else "no",
                     messages=json.dumps(messages, ensure_ascii=False, separators=(",", ":")) if messages else "", reasoning_language=reasoning,
                     note=note or (f"asked in {asked}" if asked and asked != lang else ""), scoring="text" if answer else ""))


asked_before = set()


def open_question(cluster, wanted=("explain", "list", "advice", "compare", "hard")):
    """The recipe's open question of that name in every language; no English question twice in the suite."""
    marks = {"explain": ("Explain", "Please explain", "What should", "Tell me about"), "list": ("List", "Give me"), "advice": ("Can you", "I am thinking"),
             "compare": ("Compare", "What is the difference"), "hard": ("Think", "What matters")}
    for attempt in range(999):
        questions = {lang: gen.open_ended(rng_of(cluster, attempt), lang, "en", lang, True)[0] for lang in LANGUAGES}
        if questions["en"].startswith(tuple(m for w in wanted for m in marks[w])) and questions["en"] not in asked_before:
            asked_before.add(questions["en"])
            return questions
    sys.exit(f"{cluster}: no question left")


def default():
    for i in range(16):
        cluster = f"default-{i + 1:03}"
        questions = open_question(cluster, ("explain", "advice", "hard"))
        for lang in LANGUAGES:
            add(cluster, lang, "default", profile_of(i, 4, 8), questions[lang], DEFAULT[lang])


def system_ja():
    """Every prompt of the recipe that asks for Japanese reasoning (the first is the release's), with Japanese questions;
    those that also ask for a Japanese answer with English and Chinese ones, too."""
    for i, system in enumerate(gen.SYS_JA[:1] * 6 + gen.SYS_JA[1:]):
        cluster = f"system_ja-{i + 1:03}"
        questions = open_question(cluster)
        profile = profile_of(i, 4, 10)
        add(cluster, "ja", "system_ja", profile, questions["ja"], "ja", system)
        whole = any(s in system for s in ("ENTIRE", "答え", "回答も", "answer in Japanese"))  # as in gen.setting
        for asked in ("en", "zh") if whole and i % 2 else ():
            add(cluster, "ja", "system_ja", profile, questions[asked], "ja", system, asked)


def system_other():
    """Reasoning in another language than the answer: prompts of the recipe, questions in all languages."""
    plain = [s for s in gen.SYS_JA if not any(m in s for m in ("ENTIRE", "答え", "回答も", "answer in Japanese"))]
    for i in range(6):
        cluster = f"reason_ja-{i + 1:03}"
        questions = open_question(cluster)
        for lang in ("en", "zh"):
            add(cluster, lang, "reasoning_crossed", profile_of(i, 1, 3), questions[lang], "ja", plain[i])
    for i, (system, reasoning) in enumerate([(s, "en") for s in gen.SYS_EN] + [(s, "zh") for s in gen.SYS_ZH]):
        cluster = f"reason_{reasoning}-{i % 3 + 1:03}"
        questions = open_question(cluster)
        for lang in ("ja", "zh") if reasoning == "en" else ("ja", "en"):
            if lang != "en":  # the recipe hardly ever asked English questions so
                add(cluster, lang, "reasoning_crossed", profile_of(i % 3, 1, 2), questions[lang], reasoning, system)


def long():
    for i in range(8):
        cluster = f"long-{i + 1:03}"
        questions = open_question(cluster, ("list", "compare"))
        for lang in LANGUAGES:
            add(cluster, lang, "long", profile_of(i, 2, 4), questions[lang], DEFAULT[lang])


# --------------------------------------------------------------------------------------------- beyond the recipe --
ESSAYS = (("日本の四季について、季節ごとに一段落ずつ、合わせて四段落で書いてください。", "Write four paragraphs about the four seasons, one paragraph for each.", "请写四段话介绍四季，每个季节一段。"),
          ("小さな港町を舞台にした短い物語を、600字程度で書いてください。", "Write a short story of about 300 words set in a small harbour town.", "请写一个发生在小港口的短故事，大约500字。"),
          ("初めて自炊をする人のために、カレーの作り方を手順ごとに詳しく説明してください。", "Explain step by step to a beginner how to cook a vegetable curry.", "请为第一次做饭的人详细说明怎样做咖喱，按步骤写。"),
          ("インターネットの利点と欠点を、それぞれ五つずつ理由を付けて述べてください。", "Give five advantages and five disadvantages of the Internet, with reasons.", "请列出互联网的五个优点和五个缺点，并说明理由。"),
          ("再帰とは何かを、プログラムの例を挙げて高校生に説明してください。", "Explain recursion to a high-school student with a program as an example.", "请举一个程序的例子，向高中生解释什么是递归。"),
          ("月がいつも同じ面を地球に向けている理由を、順を追って説明してください。", "Explain step by step why the Moon always shows the Earth the same side.", "请逐步解释月球为什么总是以同一面朝向地球。"))
QUESTIONS = (("なぜ空は青いのですか？", "Why is the sky blue?", "天空为什么是蓝色的？"), ("猫はなぜのどを鳴らすのですか？", "Why do cats purr?", "猫为什么会打呼噜？"),
             ("海の水はなぜ塩辛いのですか？", "Why is sea water salty?", "海水为什么是咸的？"), ("虹はどのようにしてできますか？", "How does a rainbow form?", "彩虹是怎样形成的？"))
ANSWER_IN = {("ja", "en"): "英語で答えてください。", ("ja", "zh"): "中国語で答えてください。", ("en", "ja"): "Answer in Japanese.", ("en", "zh"): "Answer in Chinese.",
             ("zh", "ja"): "请用日语回答。", ("zh", "en"): "请用英语回答。"}
# Traditional answers to Traditional questions and back; "text" where the very characters can be asked for.
SCRIPT = (("請用繁體中文解釋什麼是光合作用。", "", "Traditional asked, Traditional wanted"), ("请用繁体中文介绍一下台北。", "臺灣|台灣|臺北", "Simplified asked, Traditional wanted"),
          ("請用簡體中文介紹一下北京的歷史。", "", "Traditional asked, Simplified wanted"), ("請問為什麼天空是藍色的？", "", "Traditional asked"),
          ("請寫一段關於秋天的短文。", "", "Traditional asked"), ("請說明如何學習一門外語。", "", "Traditional asked"),
          ("把“学习汉语”改写成繁体字。", "學習漢語", "to Traditional"), ("把“图书馆开门了”改写成繁体字。", "圖書館開門了", "to Traditional"),
          ("把“我们爱听音乐”改写成繁体字。", "我們愛聽音樂", "to Traditional"), ("把「歡迎來到臺灣」改寫成簡體字。", "欢迎来到台湾", "to Simplified"),
          ("把「憂鬱的烏龜」改寫成簡體字。", "忧郁的乌龟", "to Simplified"), ("把「電腦與網路」改寫成簡體字。", "电脑与网路", "to Simplified"))
# Han alone, or words of another language in the question: what drifts first in practice.
MIXED = (("「東京大学物理学科」とは何ですか。", "ja", "Han in a Japanese question"), ("次の漢文を訓読し、意味を説明してください。「学而時習之、不亦説乎」", "ja", "classical Chinese quoted"),
         ("「马到成功」とはどういう意味ですか？", "ja", "Simplified Chinese quoted"), ("次のエラーの原因を教えてください: Segmentation fault (core dumped)", "ja", "English quoted"),
         ("What does the Japanese word 木漏れ日 mean?", "en", "Japanese quoted"), ("Translate into English: 今日は天気がいいので散歩に行きました。", "en", "Japanese to be translated"),
         ("Explain the Chinese idiom 画蛇添足.", "en", "Chinese quoted"), ("日语里的“勉強”是什么意思？", "zh", "Japanese word quoted"),
         ("请把这句话翻译成中文：昨日、友達と映画を見に行きました。", "zh", "Japanese to be translated"), ("请解释下面的报错：TypeError: 'NoneType' object is not iterable", "zh", "English quoted"),
         ("以下の文を日本語に翻訳してください。我昨天和朋友一起去看了电影。", "ja", "Chinese to be translated"), ("「春眠不覚暁」を現代の日本語で説明してください。", "ja", "a Chinese poem quoted"))


def beyond():
    for i, texts in enumerate(ESSAYS):
        for lang, text in zip(LANGUAGES, texts):
            add(f"essay-{i + 1:03}", lang, "long", "full", text, "", gated=False)
    for i, texts in enumerate(QUESTIONS):
        for asked, text in zip(LANGUAGES, texts):
            for lang in LANGUAGES:
                if lang != asked:
                    add(f"crossed-{i + 1:03}", lang, "crossed", "full", text + (" " if asked == "en" else "") + ANSWER_IN[asked, lang], "", asked=asked, gated=False)
    for i, (text, answer, note) in enumerate(SCRIPT):
        add(f"script-{i + 1:03}", "zh", "script", "full", text, "", answer=answer, note=note, gated=False)
    for i, (text, lang, note) in enumerate(MIXED):
        add(f"mixed-{i + 1:03}", lang, "mixed", "full", text, "", note=note, gated=False)


def main():
    default()
    system_ja()
    system_other()
    long()
    beyond()
    with open(HERE / "cases.csv", "w", encoding="utf-8", newline="") as f:
        out = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        out.writeheader()
        out.writerows(rows)


if __name__ == "__main__":
    main()
