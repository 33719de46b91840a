#!/usr/bin/env python3
"""Writes tables.json of the needle suite, the same bytes every time.

    python3 suites/needle/make_tables.py            # from the project's root, or from anywhere

Haystack sentences, keys, attributes, needle sentences and questions are the training recipe's own
(golden/micro-glm/recipe/gen.py: needle_dialog and what it calls; data_tables.py: HAY), because the bundled model is a
closed world of templates. Written here are only: questions that the recipe does not have (several keys in one question,
second wordings where it has one), and the ways of saying that a text does not have something.
"""
import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "golden" / "micro-glm" / "recipe"))
sys.dont_write_bytecode = True
import gen  # noqa: E402
from data_tables import HAY, NAMES  # noqa: E402

LANGUAGES = ("ja", "en", "zh")

# The recipe's placeholders, in the tables' grammar: a capital letter writes the draw with a capital, a digit at the
# end is another draw. Its {L} is a place as it stands, not a capital.
PLACEHOLDERS = {"P": "Person", "p": "person", "p2": "person2", "L": "place", "l2": "place2", "t": "thing", "w": "weather",
                "m": "time", "M": "Time", "a": "adjective", "v": "verb", "n": "number", "n2": "few"}
VOCABULARY = {"people": "person", "place": "place", "thing": "thing", "weather": "weather", "time": "time", "adj": "adjective", "verb": "verb"}


def renamed(template, names):
    return re.sub(r"\{(\w+)\}", lambda match: "{" + names[match[1]] + "}", template)


def haystack(lang):
    table = HAY[lang]
    vocabulary = {name: table[key] for key, name in VOCABULARY.items()}
    vocabulary["number"] = [str(n) for n in range(2, 90)]
    vocabulary["few"] = [str(n) for n in range(1, 30)]
    templates = [renamed(t, PLACEHOLDERS) for t in table["tmpl"]]
    # As in gen.sentence, a weather that begins a sentence has its capital already; within one it has none to lose.
    return {"templates": templates, "vocabulary": vocabulary}


def keys(lang):
    """Most keys are made-up places, as in gen.new_key; without its keys that hold digits, which would look like values."""
    vocabulary = {"name": [n for n in NAMES[lang] if len(n) > 1], "adjective": gen.ADJ[lang], "noun": gen.NOUN[lang]}
    if lang == "en":
        vocabulary["syllable"] = gen.SYL
        places = ["{Syllable}{syllable2}", "{Syllable}{syllable2}", "{Syllable}{syllable2}{syllable3}"]
    else:
        first, second, suffix = (gen.JC1, gen.JC2, gen.JSUF) if lang == "ja" else (gen.ZC1, gen.ZC2, gen.ZSUF)
        vocabulary |= {"first": list(first), "second": second, "suffix": suffix}
        places = ["{first}{second}{suffix}"] * 3
    return {"templates": places + ["{name}", "{adjective}" + (" " if lang == "en" else "") + "{noun}"], "vocabulary": vocabulary}


NAMED = {"at": "attribute", "k": "key", "v": "value"}

OTHER = {
    "en": {
        "values": (["What are all the {attribute}s for {key}?"], ["According to the text, what are all the {attribute}s for {key}?"]),
        "keys": (["What are the {attribute}s for {key} and {key2}?"], ["Find the {attribute} for {key} and the {attribute} for {key2}."]),
        "variable": (["What is the value of VAR {name}?"], ["According to the text, which value does VAR {name} have?"]),
    },
    "ja": {
        "values": (["{key}の{attribute}をすべて答えてください。"], ["文章によると、{key}の{attribute}をすべて答えてください。"]),
        "keys": (["{key}と{key2}の{attribute}は何ですか？"], ["{key}の{attribute}と{key2}の{attribute}を答えてください。"]),
        "variable": (["VAR {name}の値は何ですか？"], ["文章によると、VAR {name}の値はいくつですか？"]),
    },
    "zh": {
        "values": (["{key}的所有{attribute}是什么？"], ["根据文章，{key}的所有{attribute}是什么？"]),
        "keys": (["{key}和{key2}的{attribute}是什么？"], ["请找出{key}的{attribute}和{key2}的{attribute}。"]),
        "variable": (["VAR {name}的值是多少？"], ["根据文章，VAR {name}的值等于多少？"]),
    },
}

# How an answer says that the text does not have it: the recipe's own sentence first, then usual ones. Compared without
# case, anywhere in the answer; an answer that also gives a value is wrong all the same.
ABSENT = {
    "en": ["not in the text", "not mention", "no mention", "n't mention", "never mention", "not found", "not find", "n't find", "not appear", "n't appear", "not give", "not provide",
           "n't provide", "not state", "not specif", "n't specif", "not contain", "n't contain", "not include", "n't include", "not present", "not listed", "not available", "not exist",
           "n't exist", "not say", "n't say", "not given", "n't given", "no information", "there is no", "there's no", "there are no", "no such", "unknown", "isn't in", "not part of"],
    "ja": ["書かれていません", "書かれていない", "書いてありません", "書いてない", "出てきません", "出てこない", "登場しません", "登場しない", "記載されていません", "記載されていない", "記載がありません", "記載がない",
           "記載はありません", "記載はない", "言及されていません", "言及されていない", "言及がありません", "言及がない", "言及はありません", "言及はない", "触れられていません", "触れられていない", "述べられていません",
           "述べられていない", "含まれていません", "含まれていない", "見つかりません", "見つからない", "見当たりません", "見当たらない", "存在しません", "存在しない", "示されていません", "示されていない",
           "ありません", "不明", "わかりません", "分かりません"],
    "zh": ["没有", "沒有", "未提到", "未提及", "未找到", "未出现", "未给出", "未说明", "未包含", "未写", "找不到", "不存在", "不包含", "未知", "不知道", "无法确定", "并未", "无此"],
}


def questions(lang):
    ask = [renamed(q, NAMED) for q in gen.NQ[lang]]
    out = {"key": {"ask": ask[:3], "reask": ask[3:]}}
    for name, (first, second) in OTHER[lang].items():
        out[name] = {"ask": first, "reask": second}
    return out


def language(lang):
    return {
        "join": " " if lang == "en" else "",
        "haystack": haystack(lang),
        "keys": keys(lang),
        "attributes": gen.ATTR[lang],
        "needles": [renamed(n, NAMED) for n in gen.NEEDLE[lang]],
        "intros": gen.INTRO[lang],
        "labels": [{"en": "Question: ", "ja": "質問：", "zh": "问题："}[lang], ""],
        "questions": questions(lang),
        "absent": ABSENT[lang],
    }


def main():
    tables = {
        "format": 1,
        "value_digits": [5, 6, 7],
        "paragraphs": [4, 6, 8],
        "gaps": ["\n", "\n\n"],
        "variable": {"define": "VAR {name} = {value}.", "copy": "VAR {name} = VAR {from}.", "letters": "ABCDEFGHKMPQRSTXYZ", "n_letters": 3, "digits": [5]},
        "languages": {lang: language(lang) for lang in LANGUAGES},
    }
    text = json.dumps(tables, ensure_ascii=False, indent=1)
    # Lists of words on one line each: a diff then shows what changed.
    text = re.sub(r"\[\s+((?:[^\[\]{}]|\{\w+\})*?)\s+\]", lambda m: "[" + re.sub(r"\n\s+", " ", m[1]) + "]", text)
    (HERE / "tables.json").write_text(text + "\n", encoding="utf-8")
    assert json.loads(text) == tables


if __name__ == "__main__":
    main()
